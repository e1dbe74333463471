# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Fingerprint of a data set: grids, planes, labels, intensities. All choices depend on it alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from monai.transforms import Orientation
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from segan_monai.errors import DataError
from segan_monai.label_values import label_values
from segan_monai.networks.keypoints import object_boxes
from segan_monai.new_bundle.description import DataDescription
from segan_monai.parallel import map_in_processes
from segan_monai.transforms import LoadCased
from segan_monai.transforms.head_intensity import NOISY_SHARE, head_mask, noise_share

AIR_HU = -500
"""CT voxels at or below this count as background."""
SAMPLES = 10_000
"""Maximum number of foreground voxels sampled per case [nnU-Net]."""
PERCENTILES = (0.5, 99.5)
"""Percentiles of the foreground intensities that define the window of a CT [nnU-Net]."""


@dataclass(frozen=True)
class CaseFingerprint:
    """Fingerprint of one case; axes are in RAS orientation.

    Attributes:
        case: Name of the case.
        shape: Shape in voxels.
        spacing: Voxel size in mm.
        content: Size in voxels of the bounding box of the content: non-zero voxels, for CT those above -500 HU, with a
            noisy background the head.
        foreground: Size in voxels of the bounding box of all labels; zeros if nothing is labelled.
        zeros: Fraction of voxels that are 0 in every channel.
        noise: Fraction of voxels that hold noise of the background, mean of the channels; 0 for CT.
        labels: Number of voxels of each label value.
        objects: Largest number of connected objects of one label value in an axial slice.
        intensities: Samples from the foreground, one row per channel; not stored.
    """

    case: str
    shape: list[int]
    spacing: list[float]
    content: list[int]
    foreground: list[int]
    zeros: float
    noise: float
    labels: dict[int, int]
    objects: int
    intensities: NDArray[np.float32]


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of a data set.

    Attributes:
        cases: Number of cases with a label map.
        subjects: Number of their subjects.
        channels: Names of the channels.
        is_ct: Whether there is one channel, named CT.
        regions: Label values of each region.
        cases_with: Number of cases that contain each region.
        domains: Number of cases of each domain; empty if there are no domains.
        shape: 5th percentile, median and 95th percentile over the cases per axis (RAS), in voxels.
        spacing: The same of the voxel size, in mm.
        content: The same of the bounding box of the content, in voxels.
        foreground: The same of the bounding box of all labels, in voxels.
        smallest: Smallest extent along each axis, in mm.
        zeros: Median fraction of voxels that are 0.
        noise: Median fraction of voxels that hold noise of the background; 0 for CT.
        objects: Largest number of objects of one label value in an axial slice.
        intensities: 0.5th percentile, mean, standard deviation and 99.5th percentile of the foreground per channel.
        gigabytes: Memory in GiB of all images (float32) and region masks (bytes).
        unlabelled: Number of further cases without a label map.
        background_labels: Label values outside the regions that the user chose.
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
    noise: float
    objects: int
    intensities: list[list[float]]
    gigabytes: float
    unlabelled: int = 0
    background_labels: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return plain values, for ``fingerprint.json``."""
        return asdict(self)


def take_fingerprint(data: DataDescription, processes: int = 1) -> Fingerprint:
    """Read every case once and compute the fingerprint.

    Args:
        data: Description of the data set.
        processes: Number of processes that read cases.

    Raises:
        DataError: A case is invalid: ``LoadCased`` raises it (image and label map on different grids, NaN, damaged
            files), label values have no name, or the number of channels differs from that of other cases.
    """
    is_ct = [name.strip().lower() for name in data.channels] == ["ct"]
    measure = partial(
        measure_case,
        channels=len(data.channels) or None,
        is_ct=is_ct,
        ignore=data.ignore_label,
        chosen={*label_values(data.regions)} if data.chosen_regions else None,
    )
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
        noise=round(float(np.median([case.noise for case in found])), 4),
        objects=max(case.objects for case in found),
        intensities=np.round(np.stack([lower, *moments, upper], axis=1), 4).tolist(),
        gigabytes=round(voxels * 4 * (len(channels) + len(regions) / 4) / 2**30, 3),  # regions are bytes
        unlabelled=data.unlabelled,
        background_labels=sorted({value for case in found for value in case.labels}.difference(label_values(regions))),
    )


def measure_case(
    case: Mapping[Any, Any],
    channels: int | None,
    is_ct: bool,
    ignore: int | None = None,
    chosen: Set[int] | None = None,
) -> CaseFingerprint:
    """Read a case as in training, and measure it.

    Voxels with the label ``ignore`` count as background, and so do those with values other than ``chosen``, of which
    only ``labels`` tells the number.
    """
    to_ras = Orientation(axcodes="RAS", labels=None)
    read = LoadCased(keys=("image", "label"), num_channels=channels)(dict(case))
    image, label = to_ras(read["image"]), to_ras(read["label"])
    pixels, values = image.as_tensor().numpy(), label.as_tensor().numpy()[0].astype(np.int64)
    if ignore is not None:
        values[values == ignore] = 0
    counted = zip(*(found.tolist() for found in np.unique(values, return_counts=True)), strict=True)
    labels = {int(value): int(count) for value, count in counted if value}
    if chosen is not None:
        values[~np.isin(values, list(chosen))] = 0
    measured = labels.keys() if chosen is None else labels.keys() & chosen
    noise = 0.0 if is_ct else float(np.mean([noise_share(channel) for channel in pixels]))
    content = pixels > AIR_HU if is_ct else head_mask(pixels) if noise > NOISY_SHARE else pixels != 0
    labelled = pixels[:, values != 0]
    if labelled.shape[1] > SAMPLES:
        generator = np.random.default_rng(0)
        labelled = labelled[:, generator.choice(labelled.shape[1], SAMPLES, replace=False)]
    return CaseFingerprint(
        case=case["case"],
        shape=list(values.shape),
        spacing=np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0).round(4).tolist(),
        content=_box(np.asarray(content.any(axis=0))),
        foreground=_box(values != 0),
        zeros=float(1 - (pixels != 0).any(axis=0).mean()),
        noise=noise,
        labels=labels,
        objects=max((len(object_boxes(plane == value)) for value in measured for plane in _planes(values)), default=0),
        intensities=labelled,
    )


def _planes(values: NDArray) -> Iterator[NDArray]:
    """Yield the axial slices that are not empty."""
    return (values[..., index] for index in np.flatnonzero(values.any(axis=(0, 1))))


def _box(mask: NDArray) -> list[int]:
    found = ndimage.find_objects(mask.astype(np.uint8))
    return [side.stop - side.start for side in found[0]] if found else [0] * mask.ndim


def _spread(values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return 5th percentile, median and 95th percentile per axis."""
    table = np.array(values if len(values) else [[0, 0, 0]], dtype=float)
    return np.round(np.percentile(table, (5, 50, 95), axis=0).T, 4).tolist()


def _numbered(count: int) -> list[str]:
    return [f"channel {number}" for number in range(count)] if count > 1 else ["image"]


def _seen_regions(found: Sequence[CaseFingerprint]) -> dict[str, list[int]]:
    return {f"label_{value}": [value] for value in sorted({value for case in found for value in case.labels})}


def _check_labels(data: DataDescription, regions: dict[str, list[int]], found: Sequence[CaseFingerprint]) -> None:
    known = label_values(regions)
    if not any(case.labels for case in found):
        raise DataError(
            f"all label maps of {data.folder} are empty: every voxel is 0. Check whether labelsTr holds the right "
            "files."
        )
    if data.chosen_regions:  # other label values become background
        present = {value for case in found for value in case.labels}
        if absent := [name for name, values in regions.items() if not present & set(values)]:
            raise DataError(
                f"--regions: no label map of {data.folder} has a value of {', '.join(absent)}. Found the values "
                f"{', '.join(map(str, sorted(present)))}."
            )
        return
    for case, entry in zip(found, data.cases, strict=True):
        if odd := sorted(set(case.labels).difference(known)):
            listed = ", ".join(f"{value} ({case.labels[value]} voxels)" for value in odd[:8])
            raise DataError(
                f"{entry['label']}: found label values {listed} that 'labels' in {data.folder / 'dataset.json'} does "
                f"not name; it names 0 and {', '.join(map(str, known))}. Name them there, or correct the label "
                "map."
            )
