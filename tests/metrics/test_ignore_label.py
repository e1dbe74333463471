# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Voxels of unknown label count in no metric."""

from __future__ import annotations

import numpy as np
import pytest

from segan_monai.errors import ConfigError, DataError
from segan_monai.metrics import evaluate_case, evaluate_folders, label_map

REGIONS = {"a": [1], "b": [2]}


def maps():
    """Region a, known voxels only: TP 2, FP 1, FN 1. Region b is right."""
    reference = np.array([1, 1, 1, 0, 0, 2, 255, 255]).reshape(8, 1, 1)
    prediction = np.array([1, 1, 0, 1, 0, 2, 1, 2]).reshape(8, 1, 1)
    return [label_map(name, values, np.eye(4)) for name, values in (("p", prediction), ("r", reference))]


def test_metrics_of_known_voxels():
    first, second = evaluate_case("c", *maps(), REGIONS, ignore_label=255)
    assert (first["dice"], first["precision"], first["sensitivity"]) == pytest.approx((4 / 6, 2 / 3, 2 / 3))
    assert (first["reference_voxels"], first["prediction_voxels"]) == (3, 3)
    assert (second["dice"], second["prediction_voxels"]) == (1, 1)


def test_a_region_for_which_the_case_was_not_labelled_has_no_row():
    (row,) = evaluate_case("c", *maps(), REGIONS, ignore_label=255, labelled_regions=["b"])
    assert row["region"] == "b"
    with pytest.raises(
        DataError, match=r"case c has labelled_regions edge; expected some of a, b. Correct the datalist"
    ):
        evaluate_case("c", *maps(), REGIONS, ignore_label=255, labelled_regions=["edge"])


def test_wrong_values():
    with pytest.raises(DataError, match=r"r holds the label values 255; expected 0, 1, 2"):
        evaluate_case("c", *maps(), REGIONS)
    with pytest.raises(ConfigError, match=r"ignore_label is 2, which is the background or a value of a region"):
        evaluate_case("c", *maps(), REGIONS, ignore_label=2)


def test_folders(tmp_path, write_volume):
    prediction, reference = maps()
    write_volume(tmp_path / "p/c_seg.nii.gz", prediction.values.astype("uint8"))
    write_volume(tmp_path / "r/c_seg.nii.gz", reference.values.astype("uint8"))
    table = evaluate_folders(tmp_path / "p", tmp_path / "r", tmp_path / "out", workers=1, ignore_label=255)
    assert table["region"].tolist() == ["label_1", "label_2"], "255 is no region"
    assert table["dice"].tolist() == pytest.approx([4 / 6, 1])


def test_values_of_other_structures_are_background(tmp_path, write_volume):
    prediction, reference = (np.zeros((4, 1, 1), "uint8") for _ in range(2))
    prediction[:3, 0, 0], reference[:3, 0, 0] = (1, 1, 3), (1, 2, 1)
    write_volume(tmp_path / "p/c_seg.nii.gz", prediction)
    write_volume(tmp_path / "r/c_seg.nii.gz", reference)
    folders = (tmp_path / "p", tmp_path / "r", tmp_path / "out")
    for regions in ({"a": [1]}, None):
        table = evaluate_folders(*folders, regions, workers=1, background_labels=[2, 3])
        assert table["dice"].tolist() == [0.5], "of two voxels each, one agrees"
    swapped = evaluate_folders(*folders, {"a": [2]}, {"a": [1]}, workers=1, background_labels=[1, 3])
    assert swapped["dice"].tolist() == [pytest.approx(2 / 3)], "1 is background in the references alone"
    with pytest.raises(DataError, match=r"holds the label values 2; .*other structures as --background-labels"):
        evaluate_folders(*folders, {"a": [1]}, workers=1)
    with pytest.raises(ConfigError, match=r"background_labels have 1, which are values of regions: {'a': \[1\]}"):
        evaluate_folders(*folders, {"a": [1]}, workers=1, background_labels=[1])
