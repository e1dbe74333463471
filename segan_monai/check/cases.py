# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of cases by their headers and by their contents, each alone and against the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nibabel
import numpy as np
from tqdm import tqdm

from segan_monai.check.headers import read_header
from segan_monai.check.report import Report
from segan_monai.errors import DataError
from segan_monai.grids import GRID_TOLERANCE_VOXELS
from segan_monai.transforms.case_loader import CaseLoader, Header
from segan_monai.transforms.regions import unknown_values
from segan_monai.transforms.tissue_labels import unknown_tissue_values

Case = Mapping[Any, Any]
Parts = Mapping[str, Sequence[Case]]
Regions = Mapping[str, Sequence[int]]

SPACING_FACTOR = 2.0
"""[ours] A spacing is an outlier if it differs from the median by more than this factor."""
COMMON_SHARE = 0.8
"""[ours] An orientation or data type is an outlier if at least this fraction of the cases share another one."""
INTENSITY_FACTOR = 10.0
"""[ours] A range of intensities is an outlier if its width differs from the median by more than this factor."""


def unique_cases(parts: Parts) -> list[Case]:
    """Return every case once, even if it is in several parts."""
    return list({case["case"]: case for of_part in parts.values() for case in of_part}.values())


def check_headers(cases: Sequence[Case], loader: CaseLoader, label_keys: Sequence[str], report: Report) -> None:
    """Check files, grids, channels, spacing, orientation and data types of cases.

    Args:
        cases: the cases.
        loader: the transform with which the run reads them.
        label_keys: those of its keys that are label maps.
        report: receives one row per rule.
    """
    report.note("headers", f"{len(cases)} cases read as {type(loader).__name__} does")
    report.note("grids", f"one shape per case, corners at most {GRID_TOLERANCE_VOXELS:g} voxels apart")
    images: dict[str, Header] = {}
    for case in tqdm(cases, desc="headers", unit="case", disable=None):
        try:
            headers = [read_header(file) for file in files_of(case[loader.keys[0]])]
            labels = [read_header(case[key]) for key in label_keys if case.get(key)]
            missing = [key for key in label_keys if not case.get(key)]
            if missing and not loader.allow_missing_keys:
                raise DataError(f"case {case['case']} has no '{missing[0]}'. Add it to the datalist.")
            loader.check_image_headers(case, headers)
        except DataError as error:
            report.error("headers", case["case"], str(error))
            continue
        images[case["case"]] = headers[0]
        try:
            loader.check_grids(headers, labels)
        except DataError as error:
            report.error("grids", case["case"], str(error))
    volumes = [(case, images[case["case"]]) for case in cases if case["case"] in images]
    volumes = [(case, header) for case, header in volumes if not header.is_picture]
    if volumes:
        report.note("spacing", "")
        report.note("orientation", f"that of most cases, if {COMMON_SHARE:.0%} share it; and given by the header")
        report.note("data types", "")
    medians = []
    for domain in sorted({str(case.get("domain", "")) for case, _ in volumes}):
        of_domain = {case["case"]: header for case, header in volumes if str(case.get("domain", "")) == domain}
        medians.append(_check_geometry(of_domain, f" of domain {domain}" if domain else "", report))
    if volumes:
        report.note("spacing", f"within a factor of {SPACING_FACTOR:g} of the median, {', '.join(medians)}")
        types = Counter(header.dtype for _, header in volumes).most_common()
        report.note("data types", ", ".join(f"{count} {dtype}" for dtype, count in types))


def files_of(image: Any) -> list[str]:
    """Return the files of an image: one, or one per modality."""
    return [image] if isinstance(image, str) else list(image)


def _check_geometry(headers: Mapping[str, Header], of_domain: str, report: Report) -> str:
    """Compare the headers of a domain and return its median spacing as text."""
    orientations = {name: "".join(nibabel.aff2axcodes(header.grid.affine)) for name, header in headers.items()}
    spacings = {name: _world_spacing(header.grid.affine) for name, header in headers.items()}
    median = np.median(list(spacings.values()), axis=0)
    for name, spacing in spacings.items():
        if (np.maximum(spacing / median, median / spacing) > SPACING_FACTOR).any():
            report.warning(
                "spacing",
                name,
                f"{headers[name].grid.name} has voxels of {_mm(spacing)}; the median{of_domain} is {_mm(median)} "
                f"(left, forward, up; more than a factor of {SPACING_FACTOR:g} apart). Check its header, or "
                "resample it.",
            )
    for name, usual in _outliers(orientations):
        report.warning(
            "orientation",
            name,
            f"{headers[name].grid.name} is stored {orientations[name]}, most cases{of_domain} {usual}. Configs of this "
            "project turn all to RAS, so this is fine if the header is right: look at the image beside another.",
        )
    for name, header in headers.items():
        if not header.placed:
            report.warning(
                "orientation",
                name,
                f"{header.grid.name} says nowhere how it lies (qform_code and sform_code are 0); left and right may be "
                "exchanged. Convert it again from DICOM, or set the affine.",
            )
    dtypes = {name: header.dtype for name, header in headers.items()}
    for name, usual in _outliers(dtypes):
        report.warning(
            "data types",
            name,
            f"{headers[name].grid.name} is stored as {dtypes[name]}, most cases{of_domain} as {usual}. Check that its "
            "intensities were not rescaled or cut off when it was saved.",
        )
    return f"{_mm(median)}{of_domain}"


def _world_spacing(affine: np.ndarray) -> np.ndarray:
    """Return the spacing along left-right, back-front and down-up, whatever the order of the stored axes."""
    order = nibabel.io_orientation(affine)[:, 0].astype(int)
    spacing = np.empty(3)
    spacing[order] = nibabel.affines.voxel_sizes(affine)
    return spacing


def _mm(spacing: Iterable[float]) -> str:
    return " x ".join(f"{length:.3g}" for length in spacing) + " mm"


def _outliers(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the cases that differ from a value that nearly all share, each with that value."""
    usual, count = Counter(values.values()).most_common(1)[0]
    if count < COMMON_SHARE * len(values):
        return []
    return [(name, usual) for name, value in values.items() if value != usual]


def check_contents(
    cases: Sequence[Case],
    contents: Mapping[str, Mapping[str, Any]],
    regions: Regions | None,
    relabelled: bool,
    report: Report,
) -> None:
    """Check the contents of cases: damage, NaN, intensities, label values and empty label maps.

    Args:
        cases: the cases.
        contents: result of ``segan_monai.check.contents.read_contents`` for each case that was read.
        regions: label values of each region; None if unknown.
        relabelled: whether the run replaces label values according to the cases' ``tissue_values``.
        report: receives one row per rule.
    """
    report.note("contents", f"{len(contents)} cases read in full: undamaged, finite, whole labels, one grid")
    read: dict[str, Mapping[str, Any]] = {}
    reported = {finding.where for finding in report.errors if finding.rule in ("headers", "grids")}
    for case in cases:
        found = contents.get(case["case"], {})
        if "error" not in found:
            read[case["case"]] = found
        elif case["case"] not in reported:
            report.error("contents", case["case"], found["error"])
    of_case = {case["case"]: case for case in cases if case["case"] in read}
    _check_intensities(of_case, read, report)
    _check_labels(of_case, read, regions, relabelled, report)


def _check_intensities(of_case: Mapping[str, Case], read: Mapping[str, Mapping[str, Any]], report: Report) -> None:
    ranges: dict[str, np.ndarray] = {}
    for name, found in read.items():
        ranges[name] = np.array([upper - lower for lower, upper in found["intensities"]])
        for channel in np.flatnonzero(ranges[name] == 0):
            report.warning(
                "intensities",
                name,
                f"{files_of(of_case[name]['image'])[0]}: channel {channel} of case {name} has one value, "
                f"{found['intensities'][channel][0]:g}, in all voxels. Nothing can be learned from it; "
                "export it again.",
            )
    domains = {name: str(case.get("domain", "")) for name, case in of_case.items()}
    looked_at = []
    for domain in sorted(set(domains.values())):
        names = [name for name in read if domains[name] == domain and (ranges[name] > 0).all()]
        if not names or len({len(ranges[name]) for name in names}) > 1:
            continue
        median = np.median([ranges[name] for name in names], axis=0)
        looked_at.append(f"{' / '.join(f'{width:.4g}' for width in median)}{f' of domain {domain}' if domain else ''}")
        for name in names:
            apart = np.maximum(ranges[name] / median, median / ranges[name])
            if (apart > INTENSITY_FACTOR).any():
                worst = int(apart.argmax())
                lower, upper = read[name]["intensities"][worst]
                files = files_of(of_case[name]["image"])
                report.warning(
                    "intensities",
                    name,
                    f"{files[min(worst, len(files) - 1)]} has intensities from {lower:g} to {upper:g}; the median "
                    f"width is {median[worst]:.4g} (more than a factor of {INTENSITY_FACTOR:g} apart). Harmless if "
                    "the config scales each image by itself; else check its units.",
                )
    report.note("intensities", f"width within a factor of {INTENSITY_FACTOR:g} of the median, {', '.join(looked_at)}")


def _check_labels(
    of_case: Mapping[str, Case],
    read: Mapping[str, Mapping[str, Any]],
    regions: Regions | None,
    relabelled: bool,
    report: Report,
) -> None:
    labelled = {name: found["labels"] for name, found in read.items() if found["labels"] is not None}
    report.note("labels", f"{len(labelled)} label maps, regions {dict(regions)}" if regions else "no regions known")
    for name, pairs in labelled.items():
        case, found = of_case[name], dict(pairs)
        if not any(value for value in found):
            report.warning(
                "labels",
                name,
                f"{case['label']} is empty: no voxel is labelled. Right for a healthy subject; else it is the wrong "
                "file.",
            )
        if relabelled and case.get("tissue_values"):
            message = unknown_tissue_values(case, case["label"], found)
        else:
            message = unknown_values(case["label"], found, regions) if regions else None
        if message:
            report.error("labels", name, message)
