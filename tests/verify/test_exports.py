# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from segan_monai.export.run_onnx import merge
from segan_monai.verify.exports import margins

MAPS = np.array([[0.9, 0.52, 0.45, 0.1], [0.6, 0.51, 0.2, 0.3]])[..., None, None]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("paint", [0.1, 0.01, 0.05, 0.2]), ("highest", [0.3, 0.01, 0.05, 0.2]), ("argmax", [0.3, 0.01, 0.25, 0.2])],
)
def test_a_change_below_the_margin_changes_no_label(rule, expected):
    labels = {"values": [1, 2], "rule": rule, "threshold": 0.5, "order": [0, 1]}
    found = margins(MAPS, **labels)
    assert found.ravel() == pytest.approx(expected)
    for signs in ([1, 1], [1, -1], [-1, 1], [-1, -1]):
        change = 0.49 * found * np.reshape(signs, (2, 1, 1, 1))
        assert np.array_equal(merge(MAPS + change, **labels), merge(MAPS, **labels))
