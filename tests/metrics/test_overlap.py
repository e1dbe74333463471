# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch

from segan_monai.metrics import overlap_metrics


def test_hand_computed():
    prediction, reference = np.zeros((10, 4), bool), np.zeros((10, 4), bool)
    prediction[2:8] = True  # 24 voxels
    reference[4:8] = True  # 16 voxels, all inside the prediction
    expected = {"dice": 0.8, "iou": 2 / 3, "precision": 2 / 3, "sensitivity": 1.0}
    assert overlap_metrics(prediction, reference) == pytest.approx(expected, abs=1e-15)
    swapped = overlap_metrics(reference, prediction)
    assert (swapped["precision"], swapped["sensitivity"]) == pytest.approx((1.0, 2 / 3), abs=1e-15)


def test_equals_simpleitk():
    random = np.random.default_rng(0)
    prediction, reference = random.random((2, 12, 13, 14)) < 0.3
    measures = SimpleITK.LabelOverlapMeasuresImageFilter()
    # SimpleITK calls the first image the source and the second the target, which is the truth
    measures.Execute(*(SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in (prediction, reference)))
    ours = overlap_metrics(prediction, reference)
    assert ours["dice"] == measures.GetDiceCoefficient()
    assert ours["iou"] == measures.GetJaccardCoefficient()
    assert ours["precision"] == pytest.approx(1 - measures.GetFalseDiscoveryRate(), abs=1e-15)
    assert ours["sensitivity"] == pytest.approx(1 - measures.GetFalseNegativeError(), abs=1e-15)


@pytest.mark.parametrize(("predicted", "true", "expected"), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0)])
def test_empty_masks(predicted, true, expected):
    metrics = overlap_metrics(np.full((3, 3, 3), predicted), np.full((3, 3, 3), true))
    assert metrics == dict.fromkeys(("dice", "iou", "precision", "sensitivity"), expected)


def test_tensors_give_what_arrays_give():
    prediction, reference = torch.rand(2, 5, 6, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    assert overlap_metrics(prediction, reference) == overlap_metrics(prediction.numpy(), reference.numpy())


def test_shapes_must_be_equal():
    with pytest.raises(ValueError, match=r"prediction has shape \(1, 3\), the reference \(2, 3\)"):
        overlap_metrics(np.ones((1, 3)), np.ones((2, 3)))
