# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Resampling that leaves the rest of a case alone."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd

from segan_monai.transforms import IsolatedSpacingd


def case():
    image = MetaTensor(torch.rand(1, 6, 5, 4), affine=torch.diag(torch.tensor([2.0, 1, 3, 1])))
    image.meta["filename_or_obj"] = "case.nii.gz"
    return {"image": image}


def test_it_is_monais_spacing():
    given = case()
    expected = Spacingd("image", (1, 1, 1))(given)["image"]
    found = IsolatedSpacingd("image", (1, 1, 1))(given)["image"]
    assert found.shape == (1, 11, 5, 10)
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    assert torch.equal(found.affine, expected.affine)


def test_entries_named_like_metadata_stay_as_they_are_and_the_inverse_is_the_own_grid():
    given = {**case(), "image_path": "case.nii.gz", "image_notes": {"quality": 1}}
    spacing = IsolatedSpacingd(["image", "label"], (1, 1, 1), allow_missing_keys=True)
    found = spacing(given)
    assert (found["image_path"], found["image_notes"]) == ("case.nii.gz", {"quality": 1})
    assert spacing.inverse(found)["image"].shape == given["image"].shape
