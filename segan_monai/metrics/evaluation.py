# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of predicted label maps against references, for single cases and folders.

A *region* is a named set of label values, such as ``{"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}``. Regions may overlap.
If predictions and references follow different label conventions, each side has a definition of the same regions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

from segan_monai.errors import ConfigError, DataError
from segan_monai.files import lies_in
from segan_monai.grids import Grid, check_same_grid, voxel_steps
from segan_monai.label_values import label_values
from segan_monai.metrics.label_maps import LabelMap, find_label_maps, read_label_map, without_labels
from segan_monai.metrics.overlap import as_array, overlap_metrics
from segan_monai.metrics.parts import PARTS, are_parts, part_errors
from segan_monai.metrics.shape import count_components, surface_to_volume
from segan_monai.metrics.summary import Regions, evaluation_table, listed, write_evaluation
from segan_monai.metrics.surface import bounding_box, surface_metrics
from segan_monai.parallel import available_processes, map_in_processes

ONE_GRID = "with nearest-neighbour interpolation (MONAI: ResampleToMatch(mode='nearest'))"


def case_metrics(
    prediction_label_map: np.ndarray | torch.Tensor,
    reference_label_map: np.ndarray | torch.Tensor,
    spacing_mm: ArrayLike | None,
    regions: Regions,
    prediction_regions: Regions | None = None,
) -> list[dict[str, Any]]:
    """Compute the metrics of one case for each region.

    Args:
        prediction_label_map: integers of shape ``(H, W[, D])``.
        reference_label_map: integers of the same shape, on the same grid.
        spacing_mm: spacing along each axis, in mm; or an affine, which may be sheared; None if unknown, as for
            photographs.
        regions: label values of every region.
        prediction_regions: label values of every region in the prediction; by default ``regions``.

    Returns:
        One dictionary per region: ``region``, ``dice``, ``iou``, ``precision``, ``sensitivity`` (0 to 1), ``hd95_mm``,
        ``assd_mm`` (mm), and for ``reference`` and ``prediction``: ``_ml`` (ml; a 2-D image counts as 1 mm thick),
        ``_voxels``, ``_components`` (number of connected components) and ``_surface_to_volume_per_mm``; and the columns
        ``PARTS`` of ``part_errors`` if there are two or more regions that share no label value. Empty masks
        follow ``EMPTY_MASK_RULE``. Without ``spacing_mm``, distances, volumes and surfaces are NaN, except where an
        empty mask makes them 0 or infinite in any unit.

    Raises:
        ConfigError: if a region has no values or the value 0, or the two sets of regions have different names.
        ValueError: if the shapes differ, or the length of ``spacing_mm`` is not the number of axes.
    """
    prediction_regions = _checked_regions(regions, prediction_regions)
    voxel_ml = float("nan") if spacing_mm is None else abs(float(np.linalg.det(voxel_steps(spacing_mm)))) / 1000
    predicted_values, true_values = as_array(prediction_label_map), as_array(reference_label_map)
    if predicted_values.shape == true_values.shape:
        box = bounding_box((predicted_values != 0) | (true_values != 0))
        predicted_values, true_values = predicted_values[box], true_values[box]
    predictions = {region: _mask(predicted_values, prediction_regions[region]) for region in regions}
    references = {region: _mask(true_values, values) for region, values in regions.items()}
    parts: dict[str, dict[str, Any]] = {}
    if are_parts(regions) and are_parts(prediction_regions) and predicted_values.shape == true_values.shape:
        parts = part_errors(predictions, references)
    rows = []
    for region, prediction in predictions.items():
        reference = references[region]
        rows.append(
            {
                "region": region,
                **overlap_metrics(prediction, reference),
                **surface_metrics(prediction, reference, spacing_mm),
                "reference_ml": count * voxel_ml if (count := np.count_nonzero(reference)) else 0.0,
                "prediction_ml": count * voxel_ml if (count := np.count_nonzero(prediction)) else 0.0,
                "reference_voxels": int(np.count_nonzero(reference)),
                "prediction_voxels": int(np.count_nonzero(prediction)),
                "reference_components": count_components(reference),
                "prediction_components": count_components(prediction),
                "reference_surface_to_volume_per_mm": surface_to_volume(reference, spacing_mm),
                "prediction_surface_to_volume_per_mm": surface_to_volume(prediction, spacing_mm),
                **parts.get(region, {}),
            }
        )
    return rows


def _mask(values: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    # on volumes, a few comparisons are several times faster than `np.isin`
    return reduce(np.logical_or, (values == value for value in wanted))


def _checked_regions(regions: Regions, prediction_regions: Regions | None) -> Regions:
    """Check both sets of regions and return those of the prediction."""
    prediction_regions = regions if prediction_regions is None else prediction_regions
    if set(regions) != set(prediction_regions):
        raise ConfigError(
            f"regions of the references are {listed(regions)}, of the predictions {listed(prediction_regions)}; "
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
    spacing_known: bool = True,
    ignore_label: int | None = None,
    labelled_regions: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Check that two label maps share one grid and contain only expected values, then compute their metrics.

    Args:
        case: name of the case.
        prediction: predicted label map.
        reference: true label map; its affine determines the spacing.
        regions: label values of every region.
        prediction_regions: the same for the prediction; by default ``regions``.
        spacing_known: whether the affine is in mm; if not, see ``case_metrics``.
        ignore_label: value of voxels of the reference whose label is unknown. They are in neither mask: a prediction
            there is neither right nor wrong.
        labelled_regions: names of the regions for which the case was labelled; None for all.

    Returns:
        The rows of ``case_metrics``, each with the key ``case`` in front; none of a region without a label.

    Raises:
        DataError: if the grids differ, a label map contains a value outside its regions, or ``labelled_regions`` names
            another region.
    """
    check_same_grid(_grid(prediction), _grid(reference), ONE_GRID)
    _check_values(reference, regions, ignore_label)
    _check_values(prediction, regions if prediction_regions is None else prediction_regions)
    affine = reference.affine if spacing_known else None
    predicted = prediction.values
    if ignore_label is not None:
        predicted = np.where(reference.values == ignore_label, 0, predicted)
    rows = case_metrics(predicted, reference.values, affine, regions, prediction_regions)
    listed_regions = regions if labelled_regions is None else labelled_regions
    if unknown := set(listed_regions) - set(regions):
        raise DataError(
            f"case {case} has labelled_regions {listed(sorted(unknown))}; expected some of {listed(regions)}. Correct "
            "the datalist."
        )
    if set(regions) - set(listed_regions):  # the union is not known either
        rows = [{name: value for name, value in row.items() if name not in PARTS} for row in rows]
    return [{"case": case, **row} for row in rows if row["region"] in listed_regions]


def _grid(of: LabelMap) -> Grid:
    return Grid(of.name, of.values.shape, of.affine)


def _nonzero_values(values: np.ndarray) -> set[int]:
    # most voxels are background; dropping them first makes the sort cheap
    return set(np.unique(values[values != 0]).tolist())


def _check_values(of: LabelMap, regions: Regions, ignore_label: int | None = None) -> None:
    expected = {0, *label_values(regions)}
    if ignore_label in expected:
        raise ConfigError(f"ignore_label is {ignore_label}, which is the background or a value of a region: {regions}.")
    expected |= set() if ignore_label is None else {ignore_label}
    unexpected = _nonzero_values(of.values) - expected
    if unexpected:
        raise DataError(
            f"{of.name} holds the label values {listed(sorted(unexpected))}; expected {listed(sorted(expected))} "
            "(0 is background, the others are those of the regions). Name the label convention of this file, add the "
            "values to a region, or pass those of other structures as --background-labels."
        )


def evaluate_folders(
    predictions: str | os.PathLike[str],
    references: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    regions: Regions | None = None,
    prediction_regions: Regions | None = None,
    workers: int | None = None,
    ignore_label: int | None = None,
    background_labels: Sequence[int] = (),
) -> pd.DataFrame:
    """Evaluate a folder of predicted label maps and write ``metrics.csv`` and ``summary.json``.

    Files are matched by case name, see ``find_label_maps``. Every case must be in both folders.

    Args:
        predictions: folder of the predicted label maps.
        references: folder of the true label maps; it may contain images too.
        output_dir: folder for the results, created if missing.
        regions: label values of every region; by default each value in the references is a region ``label_<value>``.
        prediction_regions: the same for the predictions, if their convention differs.
        workers: number of worker processes; by default the available processor cores, at most 8.
        ignore_label: value of voxels of the references whose label is unknown, see ``evaluate_case``.
        background_labels: values that count as background: in the references where ``regions`` lack them, in the
            predictions where ``prediction_regions`` do.

    Returns:
        Table of ``evaluation_table``, one row per case and region.

    Raises:
        DataError: if one folder contains the other, a case is missing in one folder, grids differ, or a file contains
            unexpected values.
        ConfigError: if ``prediction_regions`` do not match ``regions``, or both have one of ``background_labels``.
    """
    if lies_in(predictions, references) or lies_in(references, predictions):
        raise DataError(
            f"predictions {predictions} and references {references} lie in one another, so label maps would be "
            "compared with themselves. Give two separate folders, such as labelsTr of the data set for the references."
        )
    predicted, true = find_label_maps(Path(predictions)), find_label_maps(Path(references))
    _check_cases(predicted, true, predictions, references)
    workers = available_processes(len(true), workers)
    if regions is None:
        values = set().union(*_map_cases(_values_of_file, true.values(), workers, "label values"))
        values -= {ignore_label, *background_labels}
        if not values:
            raise DataError(f"{references}: every reference is empty, so there is no region to evaluate; give regions")
        regions = {f"label_{value}": [value] for value in sorted(values)}
    prediction_regions = _checked_regions(regions, prediction_regions)
    if held := sorted({*background_labels}.intersection(label_values(regions)) & {*label_values(prediction_regions)}):
        raise ConfigError(f"background_labels have {listed(held)}, which are values of regions: {dict(regions)}.")
    evaluate = partial(
        _evaluate_files,
        regions=regions,
        prediction_regions=prediction_regions,
        ignore_label=ignore_label,
        background_labels=background_labels,
    )
    rows = _map_cases(evaluate, [(case, predicted[case], true[case]) for case in true], workers, "evaluate")
    table = evaluation_table(row for of_case in rows for row in of_case)
    write_evaluation(table, output_dir, regions, prediction_regions)
    return table


def _values_of_file(path: Path) -> set[int]:
    return _nonzero_values(read_label_map(path).values)


def _evaluate_files(
    files: tuple[str, Path, Path],
    regions: Regions,
    prediction_regions: Regions,
    ignore_label: int | None,
    background_labels: Sequence[int],
) -> list[dict[str, Any]]:
    case, *pair = files
    prediction, reference = (
        without_labels(read_label_map(file), [*{*background_labels}.difference(label_values(of_side))])
        for file, of_side in zip(pair, (prediction_regions, regions), strict=True)
    )
    return evaluate_case(case, prediction, reference, regions, prediction_regions, ignore_label=ignore_label)


def _map_cases(function: Callable[[Any], Any], items: Collection[Any], workers: int, task: str) -> list[Any]:
    results = map_in_processes(function, [*items], workers, option="--workers")
    return list(tqdm(results, desc=task, total=len(items), unit="case", disable=None))


def _check_cases(predicted: Collection[str], true: Collection[str], predictions: Any, references: Any) -> None:
    for have, want, folder, what, remedy in (
        (predicted, true, predictions, "a prediction", "Predict them, or give a folder with fewer references"),
        (true, predicted, references, "a reference", "Add their label maps, or take the predictions away"),
    ):
        missing = [case for case in want if case not in have]
        if missing:
            raise DataError(
                f"{folder} lacks {what} for {len(missing)} of {len(want)} cases: {listed(missing)}; it holds "
                f"{listed(have, 3)}. {remedy}; expected names are <case>_seg.nii.gz or <case>.nii.gz."
            )
