# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.transforms import RandForegroundPatchesd
from segan_monai.transforms.rand_foreground_patches import cut_patch


def numbered(*shape):
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(1, *shape)


def draw(data, **settings):
    settings = {"num_samples": 20, "patch_size": (3, 3, 3), **settings}
    keys = ["image", "label", "mask"]
    transform = RandForegroundPatchesd(keys, "label", allow_missing_keys=True, **settings)
    return transform.set_random_state(0)(data)


def test_a_patch_is_cut_and_a_small_volume_is_centred():
    volume = numbered(3, 4, 2)
    patch = cut_patch(volume, (1, 0, 0), (2, 4, 5))
    assert torch.equal(patch[..., 1:3], volume[:, 1:3])
    assert not patch[..., [0, 3, 4]].any()


def test_images_and_labels_of_a_patch_belong_together():
    image = numbered(6, 5, 7)
    label = torch.cat([image % 2 == 0, image % 3 == 0]).float()
    for patch in draw({"image": image, "label": label, "case": "a"}, mirror_axes=[0, 2], num_samples=8):
        assert torch.equal(patch["label"], torch.cat([patch["image"] % 2 == 0, patch["image"] % 3 == 0]).float())
        assert (patch["case"], patch["image"].shape) == ("a", (1, 3, 3, 3))
    signs = {
        tuple(torch.sign(patch["image"].diff(dim=axis)).mean().item() for axis in (1, 2, 3))
        for patch in draw({"image": image, "label": label}, mirror_axes=[0, 2], num_samples=30)
    }
    assert signs == {(x, 1.0, z) for x in (1.0, -1.0) for z in (1.0, -1.0)}


def test_every_foreground_patch_has_the_foreground_of_any_region():
    image, label = torch.ones(1, 9, 9, 9), torch.zeros(2, 9, 9, 9)
    label[0, 0, 8, 4] = 1  # the first of the regions, which MONAI's transform takes for the background
    patches = draw({"image": image, "label": label}, foreground_probability=1.0)
    assert all(patch["label"].any() and not patch["uniform"] for patch in patches)
    patches = draw({"image": image, "label": label}, foreground_probability=0.0)
    assert all(patch["uniform"] for patch in patches)
    assert not all(patch["label"].any() for patch in patches)


def test_other_patches_are_centred_on_content_that_is_known():
    image, mask = torch.zeros(1, 9, 9, 9), torch.zeros(1, 9, 9, 9)
    image[0, 4:6, 4, 4] = 7
    centres = {tuple((p["image"] != 0).flatten().nonzero().flatten().tolist()) for p in draw({"image": image})}
    assert centres == {(13, 22), (4, 13)}, "each of the two voxels in the middle"
    mask[0, 5] = 1
    patches = draw({"image": image, "label": torch.zeros(1, 9, 9, 9), "mask": mask})
    assert all(patch["image"][0, 1, 1, 1] == 7 and patch["mask"][0, 1, 1, 1] for patch in patches)
    assert all(patch["uniform"] for patch in patches)


def test_an_empty_image_gives_its_middle():
    (patch,) = draw({"image": torch.zeros(1, 4, 2, 5), "label": torch.zeros(1, 4, 2, 5)}, num_samples=1)
    assert patch["image"].shape == (1, 3, 3, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": (3, 3)}, r"patch_size is \[3, 3\], expected 3"),
        ({"num_samples": 0}, "num_samples is 0, expected at least 1 patch"),
        ({"foreground_probability": 2}, "foreground_probability is 2, expected"),
        ({"mirror_axes": [3]}, r"mirror_axes is \[3\]"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ConfigError, match=message):
        draw({"image": torch.ones(1, 4, 4, 4)}, **settings)
