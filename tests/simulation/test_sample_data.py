# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
from PIL import Image

from segan_monai.data import find_cases
from segan_monai.transforms import LoadCased
from segan_monai.verify import write_sample_data


def test_volumes_are_cases_whose_labels_can_be_seen(tmp_path):
    write_sample_data(tmp_path, ("t1c", "flair"), (1, 2, 4), domains=("a", "b"), convention="brats2021")
    cases = find_cases(tmp_path, modalities=("t1c", "flair"), require_labels=True)
    assert [case["domain"] for case in cases] == ["a", "b", "a", "b"]
    assert {case["convention"] for case in cases} == {"brats2021"}
    axes = []
    for case in cases:
        loaded = LoadCased(num_channels=2)(case)
        image, label = loaded["image"].numpy(), loaded["label"].numpy()[0]
        assert set(np.unique(label)) == {0, 1, 2, 4}
        means = [image[:, label == value].mean(1) for value in (1, 2, 4)]
        assert (np.diff(means, axis=0) > 20).all(), "each label has an intensity of its own in every channel"
        assert (image[:, 0] == 0).all(), "background"
        affine = nibabel.load(case["image"]).affine
        axes.append("".join(nibabel.aff2axcodes(affine)))
        np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), 1)
    assert len(set(axes)) == 3
    assert len(np.unique(np.abs(nibabel.load(cases[0]["image"]).affine[:3, :3]).round(3))) > 2, "oblique"


def test_photographs(tmp_path):
    write_sample_data(tmp_path, ("red", "green", "blue"), (255,), photographs=True)
    (case, *_) = find_cases(tmp_path, require_labels=True)
    assert Image.open(case["image"]).mode == "RGB"
    mask = np.asarray(Image.open(case["label"]))
    assert set(np.unique(mask)) == {0, 255}
    assert Image.open(case["image"]).size == mask.shape[::-1]
