# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from segan_monai.errors import DataError
from segan_monai.prepare.ct_labels import place_label
from segan_monai.volume_files import Volume
from tests.prepare.series import LPS

LABEL, IMAGE = Path("label0001.nii.gz"), "series"


def place(values, affine, image, flip="auto"):
    return place_label(LABEL, Volume(values, affine), IMAGE, Volume(image, LPS), flip)


@pytest.fixture
def ct():
    """An organ of 100 HU in noise between air and bone, off centre along every axis."""
    image = np.random.default_rng(0).integers(-1000, 1000, (12, 10, 8)).astype(np.int16)
    organ = np.zeros(image.shape, np.uint8)
    organ[1:4, 2:4, 5:7] = 1
    image[organ > 0] = 100
    return image, organ


def flipped_in_place(organ, axes):
    """The organ stored the other way round, with the affine that still places each voxel where it is."""
    reverse = np.eye(4)
    for axis in axes:
        reverse[axis, axis], reverse[axis, 3] = -1, organ.shape[axis] - 1
    return np.flip(organ, axes), LPS @ reverse


@pytest.mark.parametrize(("axes", "name"), [((), "none"), ((1,), "y"), ((0, 1), "xy"), ((1, 2), "yz")])
def test_header_that_lies_on_the_image(ct, axes, name):
    image, organ = ct
    placed = place(*flipped_in_place(organ, axes), image)
    assert placed.flip == name
    assert np.array_equal(placed.values, organ)
    assert placed.how.startswith("its header lies on the image")


def test_directions_of_a_header_that_lies_elsewhere(ct):
    image, organ = ct
    placed = place(organ[:, ::-1], np.diag([-0.7, 0.7, 2.5, 1]), image)
    assert (placed.flip, placed.how.split(";")[0]) == ("y", "directions in its header")
    assert np.array_equal(placed.values, organ)


def test_directions_that_are_wrong_give_way_to_the_image(ct):
    image, organ = ct
    placed = place(organ[:, ::-1], np.diag([-0.7, -0.7, 2.5, 1]), image)
    assert (placed.flip, placed.how.split(";")[0]) == ("y", "the image")
    assert np.array_equal(placed.values, organ)


def test_header_that_fits_and_an_image_that_contradicts(ct):
    image, organ = ct
    with pytest.raises(
        DataError, match=r"by its header flipped along none, by the image along y .*none \d+, x .*--label-flip"
    ):
        place(organ[:, ::-1], LPS, image)
    assert np.array_equal(place(organ[:, ::-1], LPS, image, "y").values, organ)


def test_guess_without_clear_evidence_is_refused(ct):
    image, organ = ct
    image[organ > 0] = [90, 110] * 6
    image[organ[::-1] > 0] = [88, 112] * 6  # as large a spread, nearly, where the label lies by its header
    message = "by its header flipped along none, by the image along x .*none 12, x 10"
    with pytest.raises(DataError, match=message):
        place(organ[::-1], np.diag([-0.7, -0.7, 2.5, 1]), image)


def test_empty_label_map_follows_its_header(ct):
    placed = place(np.zeros_like(ct[1]), np.diag([-0.7, 0.7, 2.5, 1]), ct[0])
    assert placed.flip == "y"


def test_other_shapes_and_voxel_sizes(ct):
    image, organ = ct
    with pytest.raises(DataError, match=r"label0001.nii.gz has shape \(12, 10, 7\), but series has \(12, 10, 8\)"):
        place(organ[:, :, 1:], LPS, image)
    with pytest.raises(DataError, match=r"voxels of \[0\.7, 0\.7, 1\.0\] mm, but series has \[0\.7, 0\.7, 2\.5\]"):
        place(organ, np.diag([-0.7, -0.7, 1, 1]), image)


@pytest.mark.real_data
@pytest.mark.parametrize("axes", [(), (0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_real_pancreas_is_found_without_a_header(data_dir, axes):
    image = nibabel.load(data_dir / "abdominal_ct" / "s0009_ct.nii.gz")
    organ = np.asanyarray(nibabel.load(data_dir / "abdominal_ct" / "s0009_pancreas.nii.gz").dataobj)
    values = np.asanyarray(image.dataobj)
    label = Volume(np.flip(organ, axes), np.diag([-1.5, -1.5, 1.5, 1]))
    placed = place_label(LABEL, label, IMAGE, Volume(values, image.affine))
    assert np.array_equal(placed.values, organ)
