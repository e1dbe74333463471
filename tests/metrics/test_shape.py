# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from segan_monai.metrics.evaluation import case_metrics
from segan_monai.metrics.shape import count_components, surface_to_volume
from segan_monai.metrics.summary import COLUMNS, summarize


def test_corners_connect_and_gaps_do_not():
    mask = np.zeros((5, 5, 5), bool)
    assert count_components(mask) == 0
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert count_components(mask) == 2


@pytest.mark.parametrize("border", [0, 2])
def test_surface_of_a_block(border):
    """A block of 2 x 3 x 4 voxels of 1 x 2 x 3 mm: 2 x 6 x 12 mm."""
    mask = np.pad(np.ones((2, 3, 4), bool), border)
    area, volume = 2 * (2 * 6 + 2 * 12 + 6 * 12), 2 * 6 * 12
    assert surface_to_volume(mask, [1, 2, 3]) == pytest.approx(area / volume)
    turned = np.array([[0, 2.0, 0, 5], [-1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    assert surface_to_volume(mask, turned) == pytest.approx(area / volume)


def test_a_sheared_voxel_has_faces_of_parallelograms():
    """Steps (1, 0, 0), (1, 1, 0) and (0, 0, 1): two faces of sqrt(2) mm2, four of 1 mm2, a volume of 1 mm3."""
    sheared = np.array([[1.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert surface_to_volume(np.ones((1, 1, 1), bool), sheared) == pytest.approx(2 * np.sqrt(2) + 4)


def test_perimeter_in_a_plane_and_unknown_values():
    assert surface_to_volume(np.ones((2, 5), bool), [1, 1]) == pytest.approx(14 / 10)
    assert np.isnan(surface_to_volume(np.ones((2, 5), bool), None))
    assert np.isnan(surface_to_volume(np.zeros((2, 5), bool), [1, 1]))


def test_columns_and_summary_omit_empty_masks():
    noisy = np.zeros((9, 9, 9), np.uint8)
    noisy[0, 0, 0] = noisy[4, 4, 4] = 1
    rows = [
        {"case": case, **row}
        for case, prediction in (("a", noisy), ("b", np.zeros_like(noisy)))
        for row in case_metrics(prediction, np.ones_like(noisy), [1, 1, 1], {"lesion": [1]})
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    assert table["prediction_components"].tolist() == [2, 0]
    assert table["reference_components"].tolist() == [1, 1]
    lesion = summarize(table)["regions"]["lesion"]
    assert lesion["prediction_surface_to_volume_per_mm"] == {"mean": 6.0, "standard_deviation": None, "median": 6.0}
    assert lesion["reference_surface_to_volume_per_mm"]["mean"] == pytest.approx(6 / 9)
