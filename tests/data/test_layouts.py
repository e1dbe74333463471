# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.data.layouts import LAYOUTS, WITH_LABEL_MAPS

ISEG = "subject-1-T1.nii"
MRBRAINS = ("TrainingData/1/T1.nii", "TrainingData/1/T2_FLAIR.nii")


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def first_match(folder, modalities=None):
    groups = ([layout.name for layout in group if layout.matches(folder, modalities)] for group in LAYOUTS)
    return next(filter(None, groups), [])


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["imagesTr/a_0000.nii.gz", "a.nii.gz"], ["nnU-Net raw format"]),
        (["dataset.json", "imagesTr/a_0000.nii.gz"], ["nnU-Net raw format"]),
        (["dataset.json", "a.nii.gz"], ["decathlon dataset.json"]),
        (["HGG/a/a_t1ce.nii.gz", "b.nii.gz"], ["plain folder of images"]),
        (["HGG/a/a_t1ce.nii.gz"], []),
        (["deep/" + ISEG, "b.nii.gz"], ["iSEG"]),
        (["deep/" + MRBRAINS[0], "deep/" + MRBRAINS[1]], ["MRBrainS"]),
        ([ISEG, *MRBRAINS], ["iSEG", "MRBrainS"]),
        (["b.nii.gz", "c.jpg"], ["plain folder of images"]),
        (["c.jpg"], ["photographs"]),
        (["notes.txt", ".b.nii.gz"], []),
    ],
)
def test_which_layout_matches_without_modalities(tmp_path, files, names):
    assert first_match(write(tmp_path, *files)) == names


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["HGG/a/a_t1ce.nii.gz", "b.nii.gz", ISEG], ["BraTS folders"]),
        (["dataset.json", "a_t1ce.nii.gz"], ["decathlon dataset.json"]),
        ([ISEG, "b.nii.gz"], ["iSEG"]),
        (["c.jpg"], []),
        (["b.nii.gz", "b_seg.nii.gz"], ["plain folder of images"]),
    ],
)
def test_which_layout_matches_with_modalities(tmp_path, files, names):
    assert first_match(write(tmp_path, *files), ["t1c"]) == names


def test_layouts_are_named_once():
    names = [layout.name for group in LAYOUTS for layout in group]
    assert len(set(names)) == len(names)
    assert {layout.name for layout in WITH_LABEL_MAPS} == {
        layout.name for group in LAYOUTS for layout in group if layout.label_maps
    }


def test_label_maps_by_their_names(tmp_path):
    seg, image, label = (tmp_path / name for name in ("x/x_seg.nii", "x/x_t1.nii", "labelsTr/y.nii"))
    by_layout = {layout.data_set: layout.label_maps([seg, image, label], tmp_path) for layout in WITH_LABEL_MAPS}
    assert by_layout == {
        "BraTS": {seg: "x"},
        "the decathlon": {label: "y"},
        "images": {seg: "x_seg", image: "x_t1", label: "y"},
    }
