# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of label maps: from two folders, or two label maps, to a table, a summary and two files.

A *region* is a name for the label values that make it up, such as `{"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}`.
Regions may overlap. Where the predictions follow another label convention than the references, they have regions of
their own, under the same names.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial, reduce
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import SimpleITK
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from tqdm import tqdm

from segan_monai.errors import ConfigError, DataError
from segan_monai.metrics.overlap import EMPTY_MASK_RULE, as_array, overlap_metrics
from segan_monai.metrics.surface import bounding_box, surface_metrics

Regions = Mapping[str, Sequence[int]]

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")
OVERLAPS = ("dice", "iou", "precision", "sensitivity")
DISTANCES = ("hd95_mm", "assd_mm")
COLUMNS = ("case", "region", *OVERLAPS, *DISTANCES, "reference_ml", "prediction_ml")
GRID_TOLERANCE_MM = 1e-3
FAILURE_RULE = "A case fails in a region when exactly one of the two masks is empty, or when they do not overlap."


class LabelMap(NamedTuple):
    """A label map on its voxel grid.

    Attributes:
        name: file or case, as error messages show it.
        values: integers of shape `(H, W, D)`.
        affine: `(4, 4)`, from voxel indices to mm in the RAS frame.
    """

    name: str
    values: np.ndarray
    affine: np.ndarray


def label_map(name: str, values: np.ndarray, affine: np.ndarray) -> LabelMap:
    """Checks an array and makes it a `LabelMap`.

    Args:
        name: file or case, for error messages.
        values: array of shape `(H, W)`, `(H, W, D)` or `(H, W, D, 1)`, of any type; a 2-D one becomes one slice.
        affine: `(4, 4)`, in mm, RAS.

    Raises:
        DataError: there is more than one channel, or a value is not an integer.
    """
    shape = values.shape
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise DataError(f"{name}: shape {shape}; expected one label map (H, W, D). Merge channels into one label map.")
    if values.dtype.kind not in "iub":
        wrong = values[~np.isfinite(values) | (values != np.rint(values))]
        if wrong.size:
            raise DataError(
                f"{name}: value {wrong[0]:g} is not an integer ({wrong.size} such voxels); expected a label map. Is it "
                "an image, a probability map, or a label map resampled without nearest neighbour?"
            )
        values = values.astype(np.int32)
    return LabelMap(name, values, np.asarray(affine, dtype=float))


def read_label_map(path: Path) -> LabelMap:
    """Reads a label map: NIfTI with nibabel, other formats with SimpleITK; the affine is RAS for both.

    Raises:
        DataError: the file cannot be read, has more than one channel, or a value that is not an integer.
    """
    try:
        if path.name.endswith((".nii", ".nii.gz")):
            nifti = nib.Nifti1Image.from_filename(path)
            values, affine = np.asanyarray(nifti.dataobj), nifti.affine
        else:
            image = SimpleITK.ReadImage(str(path))
            values, affine = SimpleITK.GetArrayFromImage(image).T, _affine_of_simpleitk(image)
    except (OSError, EOFError, RuntimeError, zlib.error, ImageFileError, HeaderDataError, WrapStructError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}). Write or copy it anew.") from error
    return label_map(str(path), values, affine)


def _affine_of_simpleitk(image: SimpleITK.Image) -> np.ndarray:
    """Affine in the RAS frame; ITK's own frame is LPS, so the first two world axes change sign."""
    dimensions = min(image.GetDimension(), 3)
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(), -1))[:dimensions, :dimensions]
    affine[:dimensions, :dimensions] = direction * np.array(image.GetSpacing()[:dimensions])
    affine[:dimensions, 3] = image.GetOrigin()[:dimensions]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def case_metrics(
    prediction_label_map: np.ndarray | torch.Tensor,
    reference_label_map: np.ndarray | torch.Tensor,
    spacing_mm: Sequence[float],
    regions: Regions,
    prediction_regions: Regions | None = None,
) -> list[dict[str, Any]]:
    """Metrics of one case, region by region.

    Args:
        prediction_label_map: integers of shape `(H, W[, D])`.
        reference_label_map: integers of the same shape, on the same grid.
        spacing_mm: size of a voxel along every axis, in mm.
        regions: label values of every region.
        prediction_regions: label values of every region in the prediction; by default `regions`.

    Returns:
        One dictionary a region: `region`, `dice`, `iou`, `precision`, `sensitivity` (0 to 1), `hd95_mm`, `assd_mm`
        (mm), `reference_ml`, `prediction_ml` (volumes in ml; a 2-D image counts as 1 mm thick). Empty masks follow
        `EMPTY_MASK_RULE`.

    Raises:
        ConfigError: a region has no values or the value 0, or the two sets of regions have different names.
        ValueError: the shapes differ, or `spacing_mm` has another length than the shape.
    """
    prediction_regions = _checked_regions(regions, prediction_regions)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    predicted_values, true_values = as_array(prediction_label_map), as_array(reference_label_map)
    if predicted_values.shape == true_values.shape:
        box = bounding_box((predicted_values != 0) | (true_values != 0))
        predicted_values, true_values = predicted_values[box], true_values[box]
    rows = []
    for region, values in regions.items():
        prediction = _mask(predicted_values, prediction_regions[region])
        reference = _mask(true_values, values)
        rows.append(
            {
                "region": region,
                **overlap_metrics(prediction, reference),
                **surface_metrics(prediction, reference, spacing_mm),
                "reference_ml": np.count_nonzero(reference) * voxel_ml,
                "prediction_ml": np.count_nonzero(prediction) * voxel_ml,
            }
        )
    return rows


def _mask(values: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    # on a volume, a few comparisons are several times as fast as `np.isin`
    return reduce(np.logical_or, (values == value for value in wanted))


def _checked_regions(regions: Regions, prediction_regions: Regions | None) -> Regions:
    """Returns the regions of the prediction, after a check of both."""
    prediction_regions = regions if prediction_regions is None else prediction_regions
    if set(regions) != set(prediction_regions):
        raise ConfigError(
            f"regions of the references are {_listed(regions)}, of the predictions {_listed(prediction_regions)}; "
            "expected the same names on both sides"
        )
    if not regions:
        raise ConfigError("there are no regions; give at least one")
    for side in (regions, prediction_regions):
        for region, values in side.items():
            if not values or 0 in values:
                raise ConfigError(
                    f"region {region} has the label values {list(values)}; expected one or more, not 0 (background)"
                )
    return prediction_regions


def evaluate_case(
    case: str,
    prediction: LabelMap,
    reference: LabelMap,
    regions: Regions,
    prediction_regions: Regions | None = None,
) -> list[dict[str, Any]]:
    """Metrics of one case after a check that both label maps share one grid and hold expected values only.

    Args:
        case: name of the case.
        prediction: predicted label map.
        reference: true label map; the spacing is its own.
        regions: label values of every region.
        prediction_regions: the same for the prediction; by default `regions`.

    Returns:
        The rows of `case_metrics`, each with the key `case` in front.

    Raises:
        DataError: the grids differ, or a label map holds a value outside its regions.
    """
    _check_grids(prediction, reference)
    _check_values(reference, regions)
    _check_values(prediction, regions if prediction_regions is None else prediction_regions)
    spacing_mm = np.linalg.norm(reference.affine[:3, :3], axis=0)
    rows = case_metrics(prediction.values, reference.values, spacing_mm.tolist(), regions, prediction_regions)
    return [{"case": case, **row} for row in rows]


def _check_grids(prediction: LabelMap, reference: LabelMap) -> None:
    remedy = (
        "Expected both on one voxel grid: resample the prediction onto the reference's grid with nearest neighbour "
        "(MONAI: ResampleToMatch(mode='nearest'))."
    )
    if prediction.values.shape != reference.values.shape:
        raise DataError(
            f"{prediction.name} has shape {prediction.values.shape}, "
            f"{reference.name} has shape {reference.values.shape}. {remedy}"
        )
    corners = np.array([(*corner, 1) for corner in product(*((0, length - 1) for length in reference.values.shape))])
    apart = np.linalg.norm(corners @ (prediction.affine - reference.affine).T, axis=1).max()
    # written so that an affine with NaN is an error too
    if not apart <= GRID_TOLERANCE_MM:
        raise DataError(
            f"{prediction.name} has affine {_rounded(prediction.affine)}, {reference.name} has affine "
            f"{_rounded(reference.affine)}: corners of the volumes lie up to {apart:.3g} mm apart, tolerance "
            f"{GRID_TOLERANCE_MM:g} mm. {remedy}"
        )


def _rounded(affine: np.ndarray) -> list[list[float]]:
    return np.round(affine[:3], 4).tolist()


def _nonzero_values(values: np.ndarray) -> set[int]:
    # most voxels are background: to drop them first makes the sort cheap
    return set(np.unique(values[values != 0]).tolist())


def _check_values(of: LabelMap, regions: Regions) -> None:
    expected = {int(value) for values in regions.values() for value in values} | {0}
    unexpected = _nonzero_values(of.values) - expected
    if unexpected:
        raise DataError(
            f"{of.name} holds the label values {_listed(sorted(unexpected))}; expected {_listed(sorted(expected))} "
            "(0 is background, the others are those of the regions). Name the label convention of this file, or add "
            "the values to a region."
        )


def _listed(items: Iterable[Any], most: int = 8) -> str:
    names = [str(item) for item in items]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def find_label_maps(folder: Path) -> dict[str, Path]:
    """Finds the label maps of a folder and its subfolders, and tells them from images by their names.

    The first of these that any file fits decides, and only the files that fit it are label maps:

    1. `<case>_seg.*`, as this package writes them and BraTS from 2017 on, `<case>-seg.*` from 2023 on.
    2. `.OT.` in the name, BraTS 2012 to 2015; the case is the folder that holds the `VSD.*` folders, with the grade's
       folder in front (`HGG_brats_2013_pat0001_1`), since both grades have cases of the same name.
    3. a folder `labelsTr`, Medical Segmentation Decathlon; the case is `<case>.*`.
    4. any file, `<case>.*`.

    Formats: `.nii.gz`, `.nii`, `.mha`, `.nrrd`. Names with a leading dot, which macOS leaves, are passed over.

    Returns:
        Path of every case's label map, sorted by case.

    Raises:
        DataError: the folder is missing or holds no label map, or a case has two.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    # `os.walk` follows links to folders, `Path.rglob` does not
    paths = sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.endswith(SUFFIXES) and not name.startswith(".")
    )
    stems = {path: re.sub(r"(\.nii\.gz|\.[a-z]+)$", "", path.name) for path in paths}
    marked = {path: re.sub(r"[_-]seg$", "", stem) for path, stem in stems.items() if stem.endswith(("_seg", "-seg"))}
    if marked:
        # the one label map of BraTS 2020 with another name, W39_1998.09.19_Segm.nii, lies in its case's folder
        marked |= {path: path.parent.name for path, stem in stems.items() if stem.endswith("_Segm")}
    of_challenge = {path: _challenge_case(path, folder) for path in paths if ".OT." in path.name}
    of_decathlon = {path: stem for path, stem in stems.items() if path.parent.name == "labelsTr"}
    found: dict[str, Path] = {}
    for path, case in (marked or of_challenge or of_decathlon or stems).items():
        if case in found:
            raise DataError(
                f"case {case} has two label maps, {found[case]} and {path}; expected one. "
                "Give a folder that holds label maps only, each case once."
            )
        found[case] = path
    if not found:
        raise DataError(f"{folder}: no label map found; expected files <case>_seg or <case> with {', '.join(SUFFIXES)}")
    return dict(sorted(found.items()))


def _challenge_case(path: Path, root: Path) -> str:
    """Name of a case of BraTS 2012 to 2015, the same as `segan_monai.data.brats_cases` gives it."""
    folder = path.parent.parent if path.parent.name.startswith("VSD.") else path.parent
    above = [folder, *folder.parents][: len(folder.parts) - len(root.parts) + 1]
    grades = [parent.name for parent in above if parent.name in ("HGG", "LGG", "HG", "LG")]
    return "_".join((*grades[:1], folder.name))


def evaluate_folders(
    predictions: str | os.PathLike[str],
    references: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    regions: Regions | None = None,
    prediction_regions: Regions | None = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Evaluates a folder of predicted label maps and writes `metrics.csv` and `summary.json`.

    Files are matched by case name, see `find_label_maps`. Every case must be on both sides.

    Args:
        predictions: folder of the predicted label maps.
        references: folder of the true label maps; it may hold the images too.
        output_dir: folder of the results, made if missing.
        regions: label values of every region; by default every value in the references is a region `label_<value>`.
        prediction_regions: the same for the predictions, where their convention differs.
        workers: cases evaluated at once, in processes; by default the processor cores at hand, at most 8.

    Returns:
        Table with the columns `COLUMNS`, one row a case and region.

    Raises:
        DataError: a case is on one side only, grids differ, or a file holds other values than expected.
        ConfigError: `prediction_regions` do not fit `regions`.
    """
    predicted, true = find_label_maps(Path(predictions)), find_label_maps(Path(references))
    _check_cases(predicted, true, predictions, references)
    if workers is None:
        workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
    workers = min(workers, len(true))
    if regions is None:
        values = set().union(*_map_cases(_values_of_file, true.values(), workers, "label values"))
        if not values:
            raise DataError(f"{references}: every reference is empty, so there is no region to evaluate; give regions")
        regions = {f"label_{value}": [value] for value in sorted(values)}
    prediction_regions = _checked_regions(regions, prediction_regions)
    evaluate = partial(_evaluate_files, regions=regions, prediction_regions=prediction_regions)
    rows = _map_cases(evaluate, [(case, predicted[case], true[case]) for case in true], workers, "evaluate")
    table = pd.DataFrame([row for of_case in rows for row in of_case], columns=list(COLUMNS))
    write_evaluation(table, output_dir, regions, prediction_regions)
    return table


def _values_of_file(path: Path) -> set[int]:
    return _nonzero_values(read_label_map(path).values)


def _evaluate_files(
    files: tuple[str, Path, Path], regions: Regions, prediction_regions: Regions
) -> list[dict[str, Any]]:
    case, prediction, reference = files
    return evaluate_case(case, read_label_map(prediction), read_label_map(reference), regions, prediction_regions)


def _map_cases(function: Callable[[Any], Any], items: Collection[Any], workers: int, task: str) -> list[Any]:
    """Maps in processes (threads gain nothing here, most of the work holds the interpreter's lock), with a bar."""
    bar = partial(tqdm, desc=task, total=len(items), unit="case", disable=None)
    if workers == 1:
        return list(bar(map(function, items)))
    with ProcessPoolExecutor(workers) as pool:
        return list(bar(pool.map(function, items)))


def _check_cases(predicted: Collection[str], true: Collection[str], predictions: Any, references: Any) -> None:
    for have, want, folder, what, remedy in (
        (predicted, true, predictions, "a prediction", "Predict them, or give a folder with fewer references"),
        (true, predicted, references, "a reference", "Add their label maps, or take the predictions away"),
    ):
        missing = [case for case in want if case not in have]
        if missing:
            raise DataError(
                f"{folder} lacks {what} for {len(missing)} of {len(want)} cases: {_listed(missing)}; it holds "
                f"{_listed(have, 3)}. {remedy}; expected names are <case>_seg.nii.gz or <case>.nii.gz."
            )


def summarize(
    table: pd.DataFrame, regions: Regions | None = None, prediction_regions: Regions | None = None
) -> dict[str, Any]:
    """Mean, standard deviation, median and counts of every region.

    Args:
        table: as `evaluate_folders` returns it.
        regions: label values of every region, to be told in the summary.
        prediction_regions: the same for the predictions; by default `regions`.

    Returns:
        A dictionary that is valid JSON. A region has `cases`; `reference_empty` and `prediction_empty`, which both
        include `both_empty`; `failures` (see `FAILURE_RULE`), which is the sum of `only_reference_empty`,
        `only_prediction_empty` and `no_overlap`, and the names `failed_cases`. A metric has `mean`,
        `standard_deviation` (of the sample; null for one case) and `median`. A distance also has `infinite`, the number
        of infinite ones, and `mean_of_finite`; what would be infinite is null.
    """
    summary: dict[str, Any] = {
        "cases": int(table["case"].nunique()),
        "empty_mask_rule": EMPTY_MASK_RULE,
        "failure_rule": FAILURE_RULE,
        "regions": {},
    }
    for region, rows in table.groupby("region", sort=False):
        definition = {}
        if regions is not None:
            definition = {
                "reference_values": [int(value) for value in regions[region]],
                "prediction_values": [int(value) for value in (prediction_regions or regions)[region]],
            }
        no_reference, no_prediction = rows["reference_ml"] == 0, rows["prediction_ml"] == 0
        failed = rows["dice"] == 0
        summary["regions"][region] = {
            **definition,
            "cases": len(rows),
            "reference_empty": int(no_reference.sum()),
            "prediction_empty": int(no_prediction.sum()),
            "both_empty": int((no_reference & no_prediction).sum()),
            "failures": int(failed.sum()),
            "only_reference_empty": int((no_reference & ~no_prediction).sum()),
            "only_prediction_empty": int((no_prediction & ~no_reference).sum()),
            "no_overlap": int((failed & ~no_reference & ~no_prediction).sum()),
            "failed_cases": rows["case"][failed].tolist(),
            **{name: _statistics(rows[name].to_numpy(float)) for name in OVERLAPS},
            **{name: _statistics_with_infinite(rows[name].to_numpy(float)) for name in DISTANCES},
        }
    return summary


def _statistics(values: np.ndarray) -> dict[str, float | None]:
    """Statistics of at least one value; null where the result is not finite or not defined."""
    finite, median = bool(np.isfinite(values).all()), float(np.median(values))
    return {
        "mean": float(values.mean()) if finite else None,
        "standard_deviation": float(values.std(ddof=1)) if finite and len(values) > 1 else None,
        "median": median if np.isfinite(median) else None,
    }


def _statistics_with_infinite(values: np.ndarray) -> dict[str, float | int | None]:
    finite = values[np.isfinite(values)]
    return {
        **_statistics(values),
        "infinite": len(values) - len(finite),
        "mean_of_finite": float(finite.mean()) if len(finite) else None,
    }


def write_evaluation(
    table: pd.DataFrame,
    output_dir: str | os.PathLike[str],
    regions: Regions | None = None,
    prediction_regions: Regions | None = None,
) -> None:
    """Writes `metrics.csv`, infinite distances as `inf`, and `summary.json`, see `summarize`, to `output_dir`."""
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    table.to_csv(output_dir / "metrics.csv", columns=list(COLUMNS), index=False, float_format="%.9g")
    summary = summarize(table, regions, prediction_regions)
    (output_dir / "summary.json").write_text(json.dumps(summary, indent=4, allow_nan=False) + "\n", encoding="utf-8")


def format_table(table: pd.DataFrame) -> str:
    """Formats a row a region as plain text, for screens, logs and pipes; the failing cases follow below.

    Dice, IoU, precision and sensitivity are means, with the sample's standard deviation and the median for Dice; the
    two distances are medians, which stay finite as long as fewer than half of the cases fail.
    """
    lines, notes = [], ["HD95 and ASSD are medians, in mm. empty: references/predictions/both."]
    for region, of_region in summarize(table)["regions"].items():
        spread = of_region["dice"]["standard_deviation"]
        lines.append(
            {
                "region": region,
                "cases": of_region["cases"],
                "Dice": f"{of_region['dice']['mean']:.3f}" + ("" if spread is None else f" ± {spread:.3f}"),
                "median": f"{of_region['dice']['median']:.3f}",
                "IoU": f"{of_region['iou']['mean']:.3f}",
                "precision": f"{of_region['precision']['mean']:.3f}",
                "sensitivity": f"{of_region['sensitivity']['mean']:.3f}",
                **{
                    title: "inf" if of_region[name]["median"] is None else f"{of_region[name]['median']:.2f}"
                    for title, name in (("HD95", "hd95_mm"), ("ASSD", "assd_mm"))
                },
                "failures": of_region["failures"],
                "empty": "/".join(
                    str(of_region[name]) for name in ("reference_empty", "prediction_empty", "both_empty")
                ),
            }
        )
        if of_region["failures"]:
            notes.append(f"failures in {region}: {_listed(of_region['failed_cases'])}")
    return "\n".join([pd.DataFrame(lines).to_string(index=False), *notes])
