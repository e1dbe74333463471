# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
import pytest

from segan_monai.errors import DataError
from segan_monai.new_bundle import describe_data, take_fingerprint
from tests.new_bundle.data import MRI, write_raw


def fingerprint(folder):
    return take_fingerprint(describe_data(folder))


def save(folder, case, image, label, affine):
    nibabel.save(nibabel.Nifti1Image(image, affine), folder / "imagesTr" / f"{case}_0000.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labelsTr" / f"{case}.nii.gz")


def test_numbers_by_hand(tmp_path):
    folder = write_raw(tmp_path, cases=1)
    image, label = np.zeros((10, 20, 4), np.int16), np.zeros((10, 20, 4), np.uint8)
    image[2:8, 5:15, 1:3] = 50
    label[3:5, 6:9, 1] = 1  # two objects in one slice
    label[6, 12:14, 1] = 1
    image[label > 0] = 200
    turned = np.array([[0, 3.0, 0, 0], [2.0, 0, 0, 0], [0, 0, -5.0, 0], [0, 0, 0, 1]])  # A, R, I
    for case in ("c0", "c1"):
        save(folder, case, image, label, turned)
    found = fingerprint(folder)
    assert (found.cases, found.subjects, found.channels, found.regions) == (2, 2, ["T1"], {"organ": [1]})
    assert [median for _, median, _ in found.shape] == [20, 10, 4]
    assert [median for _, median, _ in found.spacing] == [3, 2, 5]
    assert [median for _, median, _ in found.content] == [10, 6, 2]
    assert [median for _, median, _ in found.foreground] == [8, 4, 1]
    assert found.smallest == [60, 20, 20]
    assert found.zeros == pytest.approx(1 - 120 / 800)
    assert found.noise == 0
    assert found.objects == 2
    assert found.intensities == [[200, 200, 0, 200]]
    assert found.cases_with == {"organ": 2}
    assert found.gigabytes == round(1600 * 5 / 2**30, 3)


def test_content_of_a_ct_is_what_is_no_air(tmp_path):
    found = fingerprint(write_raw(tmp_path, content={**MRI, "channel_names": {"0": "CT"}}, air=-1000))
    assert found.is_ct
    assert [median for _, median, _ in found.content] == [32, 36, 12], "the body"


def test_noise_of_the_background_is_measured_as_the_median_of_cases(tmp_path):
    folder = write_raw(tmp_path, cases=3)
    image, label = np.full((10, 20, 4), 2, np.int16), np.zeros((10, 20, 4), np.uint8)
    image[2:8, 5:15], label[4, 8, 1] = 100, 1
    image[0] = 0
    for case in ("c0", "c1"):
        save(folder, case, image, label, np.eye(4))
    found = fingerprint(folder)
    assert found.noise == pytest.approx((800 - 80 - 240) / 800)
    assert [median for _, median, _ in found.content] == [6, 10, 4], "the head"


def test_values_outside_chosen_regions_are_measured_as_background(tmp_path):
    folder = write_raw(tmp_path, cases=1, content={**MRI, "labels": {"background": 0, "organ": 1, "body": 2}})
    image, label = np.full((10, 20, 4), 50, np.int16), np.zeros((10, 20, 4), np.uint8)
    label[1:9, 1:19] = 2
    label[3:5, 6:9, 1] = 1
    image[label == 1] = 200
    for case in ("c0", "c1"):
        save(folder, case, image, label, np.eye(4))
    found = take_fingerprint(describe_data(folder, regions={"organ": [1]}))
    assert found.background_labels == [2]
    assert [median for _, median, _ in found.foreground] == [2, 3, 1]
    assert (found.objects, found.intensities) == (1, [[200, 200, 0, 200]])
    assert fingerprint(folder).background_labels == []


def test_several_processes_find_the_same(tmp_path):
    data = describe_data(write_raw(tmp_path))
    assert take_fingerprint(data, processes=2) == take_fingerprint(data)


def test_without_dataset_json_channels_and_labels_are_what_is_there(tmp_path):
    found = fingerprint(write_raw(tmp_path, cases=2, channels=2, content=None, values=(2, 7)))
    assert found.channels == ["channel 0", "channel 1"]
    assert found.regions == {"label_2": [2], "label_7": [7]}
    assert found.cases_with == {"label_2": 2, "label_7": 2}


def test_a_label_value_that_nobody_named(tmp_path):
    folder = write_raw(tmp_path, values=(1, 3))
    with pytest.raises(
        DataError, match=r"c0.nii.gz: found label values 3 \(\d+ voxels\) that 'labels' in .*dataset.json"
    ):
        fingerprint(folder)


def test_no_voxel_is_labelled(tmp_path):
    folder = write_raw(tmp_path, content=None, values=(0,))
    with pytest.raises(DataError, match=r"all label maps of .* are empty"):
        fingerprint(folder)


def test_image_and_label_map_on_different_grids(tmp_path):
    folder = write_raw(tmp_path)
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4)), folder / "labelsTr" / "c2.nii.gz")
    with pytest.raises(DataError, match=r"c2_0000.nii.gz has shape \(36, 40, 12\), but .*c2.nii.gz has \(5, 5, 5\)"):
        fingerprint(folder)


def test_other_channels_than_the_first_case_in_4d_files(tmp_path):
    folder = write_raw(tmp_path, content=None)
    image = nibabel.load(folder / "imagesTr" / "c1_0000.nii.gz")
    twice = np.stack([np.asarray(image.dataobj)] * 2, axis=-1)
    nibabel.save(nibabel.Nifti1Image(twice, image.affine), folder / "imagesTr" / "c1_0000.nii.gz")
    with pytest.raises(DataError, match=r"case c1 in .* has 2 channels, others have 1. Expected the same"):
        fingerprint(folder)


def test_label_maps_that_are_all_empty_are_refused_though_labels_are_named(tmp_path):
    folder = write_raw(tmp_path)
    for file in (folder / "labelsTr").iterdir():
        image = nibabel.load(file)
        nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), file)
    with pytest.raises(DataError, match=r"all label maps of .* are empty: every voxel is 0"):
        fingerprint(folder)
