# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy import ndimage

from segan_monai.metrics import surface_distances, surface_metrics

SPACING = (0.7, 1.0, 2.5)


def rough_masks(shape=(24, 26, 20)):
    """Two blobs with rough surfaces; the first touches the border of the image."""
    random = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(random.standard_normal((2, *shape)), (0, 2, 2, 2))
    prediction, reference = noise > 1.5 * noise.std()
    prediction[:5, :5, :5] = True
    return prediction, reference


def test_slab_shifted_by_two_voxels():
    # planes of one voxel's thickness, two voxels of 2.5 mm apart: every distance is 5 mm
    prediction, reference = np.zeros((8, 9, 10), bool), np.zeros((8, 9, 10), bool)
    prediction[:, :, 3] = reference[:, :, 5] = True
    assert surface_metrics(prediction, reference, SPACING) == {"hd95_mm": 5.0, "assd_mm": 5.0}


def test_box_shifted_by_two_voxels():
    # Of the 5 x 3 x 3 voxels all but the 3 along the core lie on the surface: 42.
    prediction, reference = np.zeros((9, 5, 5), bool), np.zeros((9, 5, 5), bool)
    prediction[1:6, 1:4, 1:4] = reference[3:8, 1:4, 1:4] = True
    # The end cap outside the other box is 2 voxels from it (9 voxels), the next slice 1 voxel (8). The centre of the
    # cap inside the other box is 1 mm from its sides. The other 24 lie on its surface.
    distances = np.sort(np.concatenate([[1.4] * 9, [0.7] * 8, [1.0], [0.0] * 24]))
    for found in surface_distances(prediction, reference, (0.7, 1.0, 1.0)):
        np.testing.assert_allclose(np.sort(found), distances, atol=1e-12)
    expected = {"hd95_mm": 1.4, "assd_mm": distances.mean()}
    assert surface_metrics(prediction, reference, (0.7, 1.0, 1.0)) == pytest.approx(expected, abs=1e-12)


def test_single_voxels_apart_in_all_axes():
    prediction, reference = np.zeros((6, 6, 6), bool), np.zeros((6, 6, 6), bool)
    prediction[1, 1, 1] = reference[4, 5, 3] = True
    distance = np.sqrt((3 * 0.7) ** 2 + (4 * 1.0) ** 2 + (2 * 2.5) ** 2)
    assert surface_metrics(prediction, reference, SPACING) == pytest.approx({"hd95_mm": distance, "assd_mm": distance})


def test_distances_equal_those_of_distance_maps():
    """Independent: SimpleITK's contours and signed distance maps, in float32."""
    masks = rough_masks()
    images = [SimpleITK.GetImageFromArray(np.pad(mask, 1).astype(np.uint8)) for mask in masks]
    contours = []
    for image in images:
        image.SetSpacing(SPACING[::-1])
        contours.append(SimpleITK.BinaryContour(image, fullyConnected=False))
    for found, here, there in zip(surface_distances(*masks, SPACING), contours, contours[::-1], strict=True):
        map_there = SimpleITK.SignedMaurerDistanceMap(there, squaredDistance=False, useImageSpacing=True)
        distances = np.abs(SimpleITK.GetArrayFromImage(map_there))[SimpleITK.GetArrayFromImage(here) > 0]
        np.testing.assert_allclose(np.sort(found), np.sort(distances), atol=1e-5)


def test_largest_distance_is_simpleitks_hausdorff_distance():
    """The definitions coincide for masks without thickness, where the surface is the whole mask."""
    masks = np.random.default_rng(1).random((2, 15, 16, 17)) < 0.02
    images = [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    for image in images:
        image.SetSpacing(SPACING[::-1])
    hausdorff = SimpleITK.HausdorffDistanceImageFilter()
    hausdorff.Execute(*images)
    largest = max(distances.max() for distances in surface_distances(*masks, SPACING))
    assert largest == pytest.approx(hausdorff.GetHausdorffDistance(), rel=1e-6)


def test_equals_monai():
    prediction, reference = rough_masks()
    one_hot = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
    hd95 = compute_hausdorff_distance(*one_hot, include_background=True, percentile=95, spacing=SPACING)
    assd = compute_average_surface_distance(*one_hot, include_background=True, symmetric=True, spacing=SPACING)
    found = surface_metrics(prediction, reference, SPACING)
    assert found == pytest.approx({"hd95_mm": hd95.item(), "assd_mm": assd.item()}, rel=1e-5)


def test_one_slice_is_a_two_dimensional_image():
    prediction, reference = (mask[:, :, 10] for mask in rough_masks())
    expected = surface_metrics(prediction, reference, SPACING[:2])
    assert surface_metrics(prediction[..., None], reference[..., None], SPACING) == expected
    assert surface_metrics(prediction[None], reference[None], (2.5, *SPACING[:2])) == expected


def test_order_of_masks_does_not_matter_nor_does_the_background_around():
    prediction, reference = rough_masks()
    expected = surface_metrics(prediction, reference, SPACING)
    assert surface_metrics(reference, prediction, SPACING) == pytest.approx(expected, rel=1e-12)
    wider = surface_metrics(np.pad(prediction, 7), np.pad(reference, 7), SPACING)
    assert wider == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("predicted", "true", "expected"), [(0, 0, 0.0), (1, 0, np.inf), (0, 1, np.inf)])
def test_empty_masks(predicted, true, expected):
    found = surface_metrics(np.full((3, 3, 3), predicted), np.full((3, 3, 3), true), SPACING)
    assert found == {"hd95_mm": expected, "assd_mm": expected}


def test_spacing_needs_a_value_for_every_axis():
    with pytest.raises(ValueError, match=r"spacing_mm \[1, 1\] has 2 axes, the masks have 3"):
        surface_metrics(np.ones((3, 3, 3)), np.ones((3, 3, 3)), (1, 1))


def test_empty_mask_has_no_surface():
    with pytest.raises(ValueError, match="an empty mask has no surface"):
        surface_distances(np.zeros((3, 3, 3)), np.ones((3, 3, 3)), SPACING)


SHEARED = np.array([[1.0, 0, 0, 7], [0, 1, 2, -3], [0, 0, 5, 0], [0, 0, 0, 1]])  # voxels of 5 mm3


@pytest.mark.parametrize("steps", [SHEARED, SHEARED[:3, :3]])
def test_distances_go_through_a_sheared_affine(steps):
    prediction, reference = np.zeros((9, 20, 9)), np.zeros((9, 20, 9))
    reference[4, 10, 2] = 1
    prediction[4, 6, 4] = 1  # 2 slices up, which shift by 4 mm along y, and 4 voxels back: 10 mm straight up
    assert surface_metrics(prediction, reference, steps) == pytest.approx({"hd95_mm": 10.0, "assd_mm": 10.0})
    assert surface_metrics(prediction, reference, [1, 1, np.sqrt(29)])["hd95_mm"] == pytest.approx(11.49, abs=0.01)


def test_a_plane_of_a_sheared_volume_has_a_contour():
    prediction, reference = np.zeros((5, 1, 5)), np.zeros((5, 1, 5))
    reference[1, 0, 1] = prediction[1, 0, 3] = 1
    assert surface_metrics(prediction, reference, SHEARED)["hd95_mm"] == pytest.approx(2 * np.hypot(2, 5))


def test_a_rotated_grid_has_the_distances_of_its_spacing():
    turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])
    random = np.random.default_rng(0)
    masks = [random.random((7, 8, 9)) > 0.7 for _ in range(2)]
    assert surface_metrics(*masks, turn * SPACING) == pytest.approx(surface_metrics(*masks, SPACING))
