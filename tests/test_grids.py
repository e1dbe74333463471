# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from segan_monai.errors import DataError
from segan_monai.grids import Grid, check_same_grid, corner_distance, spans_space, voxel_steps

SHAPE = (512, 512, 100)
AFFINE = np.array([[-0.3, 0, 0, 90], [0, -0.3, 0, 110], [0, 0, 3, -50], [0, 0, 0, 1.0]])


def changed(**entries):
    affine = AFFINE.copy()
    for place, by in entries.items():
        row, column = map(int, place.removeprefix("e"))
        affine[row, column] += by
    return affine


def test_the_distance_is_that_of_the_farthest_corner():
    voxels, mm = corner_distance(SHAPE, AFFINE, changed(e00=1e-3))
    assert mm == pytest.approx(511 * 1e-3)
    assert voxels == pytest.approx(511 * 1e-3 / 0.3)


@pytest.mark.parametrize("place", [f"e{row}{column}" for row in range(3) for column in range(4)])
@pytest.mark.parametrize("by", [1e-4, -1e-4])
def test_an_entry_rounded_to_four_decimals_is_the_same_grid(place, by):
    check_same_grid(Grid("image", SHAPE, AFFINE), Grid("label", SHAPE, changed(**{place: by})))


@pytest.mark.parametrize(
    "affine",
    [
        changed(e03=0.15),  # half a voxel
        changed(e23=1.5),  # half a slice
        changed(e00=-0.001),  # spacing of 0.301 mm: half a voxel and more at the end
        AFFINE @ np.diag([-1, 1, 1, 1]),  # mirrored
        np.full((4, 4), np.nan),
    ],
)
def test_what_a_network_would_notice_is_another_grid(affine):
    with pytest.raises(DataError, match=r"image has affine .*, but label has .* voxels \(tolerance 0\.25 voxels\)"):
        check_same_grid(Grid("image", SHAPE, AFFINE), Grid("label", SHAPE, affine))


def test_half_a_voxel_of_a_thick_slice_is_measured_along_that_axis():
    check_same_grid(Grid("image", SHAPE, AFFINE), Grid("label", SHAPE, changed(e23=0.7)))  # 0.23 of a slice
    with pytest.raises(DataError, match=r"0\.8 mm apart, 0\.267 voxels"):
        check_same_grid(Grid("image", SHAPE, AFFINE), Grid("label", SHAPE, changed(e23=0.8)))


def test_shapes_are_compared_first_and_the_remedy_is_extended():
    with pytest.raises(DataError, match=r"image has shape \(2, 3, 4\), but label has \(2, 3, 5\).*, as I said\.$"):
        check_same_grid(Grid("image", (2, 3, 4), AFFINE), Grid("label", (2, 3, 5), AFFINE), "as I said")


@pytest.mark.parametrize(
    ("shape", "diagonal", "fits"),
    [
        ((512, 512), (0.3, 0.3, 3), True),
        ((9000, 10, 10), (1, 1, 1), True),
        ((11000, 10, 10), (1, 1, 1), False),  # 11 m
        ((10, 10, 10), (1, 1, 1e-5), False),
        ((10, 10, 10), (1, 1, 0), False),
        ((10, 10, 10), (1, np.nan, 1), False),
    ],
)
def test_affines_that_a_scanner_can_have(shape, diagonal, fits):
    assert spans_space(shape, np.diag([*diagonal, 1.0])) is fits


def test_steps_of_a_spacing_an_affine_and_a_matrix():
    np.testing.assert_array_equal(voxel_steps([1, 2, 3]), np.diag([1, 2, 3]))
    np.testing.assert_array_equal(voxel_steps(AFFINE), AFFINE[:3, :3])
    np.testing.assert_array_equal(voxel_steps([[1, 0.5], [0, 1]]), [[1, 0.5], [0, 1]])
