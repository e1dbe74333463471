# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What a data set looks like, measured: grids, planes, labels, intensities. The choices follow from this alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from monai.transforms import Orientation
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from segan_monai.errors import DataError
from segan_monai.networks.keypoints import object_boxes
from segan_monai.new_bundle.description import DataDescription
from segan_monai.parallel import map_in_processes
from segan_monai.transforms import LoadCased

AIR_HU = -500
"""Voxels of a CT below this are no content of a plane."""
SAMPLES = 10_000
"""Voxels of the foreground that are drawn from each case [nnU-Net]."""
PERCENTILES = (0.5, 99.5)
"""Of the foreground's intensities: the window of a CT [nnU-Net]."""


@dataclass(frozen=True)
class CaseFingerprint:
    """Of one case; axes are those of the volume turned to RAS.

    Attributes:
        case: its name.
        shape: in voxels.
        spacing: in mm.
        content: the box of what is not background, in voxels: other than 0, of a CT above -500 HU.
        foreground: the box of all labels, in voxels; zeros if nothing is labelled.
        zeros: share of voxels that are 0 in every channel.
        labels: voxels of each label value.
        objects: the most connected objects of one label value in an axial slice.
        intensities: drawn from the foreground, a row a channel; not kept.
    """

    case: str
    shape: list[int]
    spacing: list[float]
    content: list[int]
    foreground: list[int]
    zeros: float
    labels: dict[int, int]
    objects: int
    intensities: NDArray[np.float32]


@dataclass(frozen=True)
class Fingerprint:
    """Of a data set.

    Attributes:
        cases: with a label map.
        subjects: of them.
        channels: names.
        is_ct: there is one channel, and it is called CT.
        regions: label values of each region.
        cases_with: how many cases hold each region.
        domains: cases of each domain; empty if they have none.
        shape: per axis (RAS) 5th percentile, median and 95th percentile of the cases, in voxels.
        spacing: the same, in mm.
        content: the same, of what is not background, in voxels.
        foreground: the same, of the box of all labels.
        smallest: shortest side of each axis, in mm.
        zeros: median share of voxels that are 0.
        objects: the most objects of a label value in an axial slice.
        intensities: per channel 0.5th percentile, mean, standard deviation and 99.5th percentile in the foreground.
        gigabytes: of all images and label maps in memory, as float32.
    """

    cases: int
    subjects: int
    channels: list[str]
    is_ct: bool
    regions: dict[str, list[int]]
    cases_with: dict[str, int]
    domains: dict[str, int]
    shape: list[list[float]]
    spacing: list[list[float]]
    content: list[list[float]]
    foreground: list[list[float]]
    smallest: list[float]
    zeros: float
    objects: int
    intensities: list[list[float]]
    gigabytes: float

    def as_json(self) -> dict[str, Any]:
        """As plain values, for ``fingerprint.json``."""
        return asdict(self)


def take_fingerprint(data: DataDescription, processes: int = 1) -> Fingerprint:
    """Read every case once.

    Args:
        data: what the data set says of itself.
        processes: that read cases.

    Raises:
        DataError: a case that cannot be used: what `LoadCased` raises (image and label map on different grids, NaN,
            damaged files), label values that nobody named, another number of channels than the first case has.
    """
    is_ct = [name.strip().lower() for name in data.channels] == ["ct"]
    measure = partial(measure_case, channels=len(data.channels) or None, is_ct=is_ct)
    results = map_in_processes(measure, data.cases, processes)
    found = list(tqdm(results, "fingerprint", len(data.cases), unit="case", disable=None))
    counts = Counter(len(case.intensities) for case in found)
    if len(counts) > 1:
        (usual, _), *_ = counts.most_common()
        odd = next(case for case in found if len(case.intensities) != usual)
        raise DataError(
            f"case {odd.case} in {data.folder} has {len(odd.intensities)} channels, others have {usual}. Expected the "
            "same channels in every case: add or remove files, or name them in dataset.json."
        )
    regions = data.regions or _seen_regions(found)
    _check_labels(data, regions, found)
    channels = data.channels or _numbered(len(found[0].intensities))
    drawn = np.concatenate([case.intensities for case in found], axis=1)
    lower, upper = np.percentile(drawn, PERCENTILES, axis=1) if drawn.size else np.zeros((2, len(channels)))
    moments = (drawn.mean(axis=1), drawn.std(axis=1)) if drawn.size else (lower, upper)
    voxels = sum(int(np.prod(case.shape)) for case in found)
    extents = np.array([np.multiply(case.shape, case.spacing) for case in found])
    return Fingerprint(
        cases=len(found),
        subjects=len({case["subject"] for case in data.cases}),
        channels=channels,
        is_ct=is_ct,
        regions=regions,
        cases_with={
            name: sum(any(case.labels.get(value) for value in values) for case in found)
            for name, values in regions.items()
        },
        domains=dict(sorted(Counter(str(case["domain"]) for case in data.cases if "domain" in case).items())),
        shape=_spread([case.shape for case in found]),
        spacing=_spread([case.spacing for case in found]),
        content=_spread([case.content for case in found]),
        foreground=_spread([case.foreground for case in found if any(case.foreground)]),
        smallest=np.round(extents.min(axis=0), 3).tolist(),
        zeros=round(float(np.median([case.zeros for case in found])), 4),
        objects=max(case.objects for case in found),
        intensities=np.round(np.stack([lower, *moments, upper], axis=1), 4).tolist(),
        gigabytes=round(voxels * 4 * (len(channels) + len(regions) / 4) / 2**30, 3),  # regions are bytes
    )


def measure_case(case: Mapping[Any, Any], channels: int | None, is_ct: bool) -> CaseFingerprint:
    """Read a case as training does, and measure it."""
    to_ras = Orientation(axcodes="RAS", labels=None)
    read = LoadCased(keys=("image", "label"), num_channels=channels)(dict(case))
    image, label = to_ras(read["image"]), to_ras(read["label"])
    pixels, values = image.as_tensor().numpy(), label.as_tensor().numpy()[0].astype(np.int64)
    inside = (pixels > AIR_HU if is_ct else pixels != 0).any(axis=0)
    labelled = pixels[:, values != 0]
    if labelled.shape[1] > SAMPLES:
        generator = np.random.default_rng(0)
        labelled = labelled[:, generator.choice(labelled.shape[1], SAMPLES, replace=False)]
    counted = zip(*(found.tolist() for found in np.unique(values, return_counts=True)), strict=True)
    labels = {int(value): int(count) for value, count in counted if value}
    return CaseFingerprint(
        case=case["case"],
        shape=list(values.shape),
        spacing=np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0).round(4).tolist(),
        content=_box(inside),
        foreground=_box(values != 0),
        zeros=float(1 - (pixels != 0).any(axis=0).mean()),
        labels=labels,
        objects=max((len(object_boxes(plane == value)) for value in labels for plane in _planes(values)), default=0),
        intensities=labelled,
    )


def _planes(values: NDArray) -> Iterator[NDArray]:
    """Axial slices with anything in them."""
    return (values[..., index] for index in np.flatnonzero(values.any(axis=(0, 1))))


def _box(mask: NDArray) -> list[int]:
    found = ndimage.find_objects(mask.astype(np.uint8))
    return [side.stop - side.start for side in found[0]] if found else [0] * mask.ndim


def _spread(values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Per axis 5th percentile, median, 95th percentile."""
    table = np.array(values if len(values) else [[0, 0, 0]], dtype=float)
    return np.round(np.percentile(table, (5, 50, 95), axis=0).T, 4).tolist()


def _numbered(count: int) -> list[str]:
    return [f"channel {number}" for number in range(count)] if count > 1 else ["image"]


def _seen_regions(found: Sequence[CaseFingerprint]) -> dict[str, list[int]]:
    return {f"label_{value}": [value] for value in sorted({value for case in found for value in case.labels})}


def _check_labels(data: DataDescription, regions: dict[str, list[int]], found: Sequence[CaseFingerprint]) -> None:
    known = {value for values in regions.values() for value in values}
    if not any(case.labels for case in found):
        raise DataError(
            f"no label map of {data.folder} has a voxel other than 0. Expected labels to learn from: see whether "
            "labelsTr holds the right files."
        )
    for case, entry in zip(found, data.cases, strict=True):
        if odd := sorted(set(case.labels) - known):
            listed = ", ".join(f"{value} ({case.labels[value]} voxels)" for value in odd[:8])
            raise DataError(
                f"{entry['label']}: found label values {listed} that 'labels' in {data.folder / 'dataset.json'} does "
                f"not name; it names 0 and {', '.join(map(str, sorted(known)))}. Name them there, or correct the label "
                "map."
            )
