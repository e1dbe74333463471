# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Mirroring of regions whose names say a side."""

from __future__ import annotations

import pytest

from segan_monai.check.key_rules import broken_rules

KIDNEYS = {"left_kidney": [1], "Right kidney": [2]}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"mirror_axes": [0]}, "--mirror_axes [0]: regions (left_kidney, Right kidney) name the sides left and right"),
        ({"mirror_rois": True, "mirror_axes": []}, "--mirror_rois true: regions"),
        ({"mirror_axes": [1, 2]}, None),
        ({"mirror_rois": False}, None),
        ({"mirror_axes": [0], "regions": {"left_kidney": [1]}}, None),
        ({"mirror_axes": [0], "regions": {"bright": [1], "leftover": [2]}}, None),
        ({"mirror_axes": [1], "regions": {"anterior": [1], "posterior": [2]}}, "which axis 1 would exchange"),
        ({"mirror_axes": [1], "regions": {"anterior": [1], "posterior": [2]}, "image_size": [8, 8]}, None),
    ],
)
def test_sides_in_names(settings, found):
    problems = broken_rules({"regions": KIDNEYS, **settings}, {})
    assert len(problems) == bool(found)
    assert found is None or found in problems[0]
