# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from segan_monai.metrics.volumes import region_volumes


def test_voxels_times_their_size(oblique):
    label_map = np.zeros((10, 10, 10), np.uint8)
    label_map[:5, :4, :3] = 1  # 60 voxels of 1 x 2 x 3 mm
    label_map[9, 9, :2] = 3
    found = region_volumes(label_map, oblique, {"whole": [1, 2, 3], "core": [3], "none": [2], "beyond": [250]})
    assert found == pytest.approx({"whole": 62 * 0.006, "core": 2 * 0.006, "none": 0, "beyond": 0})
