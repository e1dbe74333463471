# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.transforms import RandSlicesd, SlicesWithContentd, cut_slice
from segan_monai.transforms.rand_slices import neighbouring_slices


def numbered_volume():
    """Every voxel tells its place: 100 * row + 10 * column + slice, plus 1000 so that none is 0."""
    h, w, d = torch.meshgrid(torch.arange(6), torch.arange(5), torch.arange(4), indexing="ij")
    return (1000 + 100 * h + 10 * w + d)[None].float()


def case(tumour_slices=(1,)):
    image = numbered_volume()
    image[..., 3] = 0
    label = torch.zeros(2, 6, 5, 4, dtype=torch.uint8)
    label[1, 2, 2, list(tumour_slices)] = 1
    return SlicesWithContentd(["image", "label"])({"image": image, "label": label})


def draw(data, **settings):
    arguments = {"keys": ["image", "label"], "label_key": "label", "num_samples": 40, "roi_size": (4, 3), **settings}
    transform = RandSlicesd(**arguments)
    transform.set_random_state(0)
    return transform(data)


def test_window_is_cut_out_of_the_right_slice():
    found = cut_slice(numbered_volume(), axis=2, index=3, start=(1, 2), size=(2, 2))
    assert found.tolist() == [[[1123, 1133], [1223, 1233]]]
    found = cut_slice(numbered_volume(), axis=0, index=5, start=(0, 1), size=(2, 2))
    assert found.tolist() == [[[1501, 1502], [1511, 1512]]]


def test_small_planes_are_centred_and_padded():
    found = cut_slice(torch.ones(1, 2, 1, 1), axis=2, index=0, start=(0, 0), size=(4, 2))
    assert found.tolist() == [[[0, 0], [1, 0], [1, 0], [0, 0]]]


def test_slices_with_content_are_noted():
    data = case()
    assert data["image_slices"][2].tolist() == [0, 1, 2]
    assert data["label_slices"][2].tolist() == [1]


def test_slices_of_several_axes():
    image = numbered_volume()
    image[:, 4:] = 0
    label = torch.zeros(1, 6, 5, 4)
    label[0, 2, 3, 1] = 1
    data = SlicesWithContentd(["image", "label"], axis=[0, 1])({"image": image, "label": label})
    assert {axis: index.tolist() for axis, index in data["image_slices"].items()} == {
        0: [0, 1, 2, 3],
        1: [0, 1, 2, 3, 4],
    }
    assert {axis: index.tolist() for axis, index in data["label_slices"].items()} == {0: [2], 1: [3]}
    samples = draw(data, axis=[0, 1], roi_size=(6, 4), foreground_probability=1.0)
    sagittal = cut_slice(image, 0, 2, (0, 0), (6, 4))
    coronal = cut_slice(image, 1, 3, (0, 0), (6, 4))
    seen = [(torch.equal(s["image"], sagittal), torch.equal(s["image"], coronal)) for s in samples]
    assert set(seen) == {(True, False), (False, True)}
    assert 8 < sum(first for first, _ in seen) < 32  # of 40, by a coin


def test_image_and_label_are_cut_alike_and_share_no_memory_with_the_cache():
    data = case()
    data["label"] = data["image"].clone()
    for sample in draw(data, roi_size=(6, 5)):
        assert torch.equal(sample["image"], sample["label"])
        sample["image"].zero_()
    assert data["image"].sum() > 0


def test_every_window_position_and_only_slices_with_content_are_drawn():
    corners = {int(sample["image"][0, 0, 0]) for sample in draw(case(), num_samples=500, foreground_probability=0.0)}
    assert corners == {1000 + 100 * h + 10 * w + d for h in range(3) for w in range(3) for d in range(3)}


@pytest.mark.parametrize(("probability", "expected"), [(1.0, 1.0), (0.5, 0.5 + 0.5 / 3), (0.0, 1 / 3)])
def test_tumour_slices_are_favoured_as_set(probability, expected):
    samples = draw(case(), num_samples=2000, roi_size=(6, 5), foreground_probability=probability)
    share = sum(bool(sample["label"].any()) for sample in samples) / len(samples)
    assert share == pytest.approx(expected, abs=0.04)


def test_a_case_without_tumour_still_gives_slices():
    assert len(draw(case(tumour_slices=()), foreground_probability=1.0)) == 40


def test_an_empty_volume_still_gives_slices():
    data = SlicesWithContentd(["image", "label"])({"image": torch.zeros(1, 6, 5, 4), "label": torch.zeros(1, 6, 5, 4)})
    assert len(draw(data)) == 40


def test_bad_settings():
    with pytest.raises(ConfigError, match=r"foreground_probability is 1\.5, expected a number from 0 to 1"):
        draw(case(), foreground_probability=1.5)
    with pytest.raises(ConfigError, match="num_samples is 0, expected at least 1"):
        draw(case(), num_samples=0)


def test_neighbouring_slices_come_as_channels_and_are_0_beyond_the_ends():
    volume = torch.cat([numbered_volume(), -numbered_volume()])  # two channels
    found = cut_slice(volume, axis=2, index=0, start=(1, 2), size=(1, 1), neighbours=1)
    assert found.flatten().tolist() == [0, 0, 1120, -1120, 1121, -1121]
    found = cut_slice(volume, axis=0, index=4, start=(2, 1), size=(1, 1), neighbours=2)
    assert found.flatten().tolist() == [1221, -1221, 1321, -1321, 1421, -1421, 1521, -1521, 0, 0]


def test_neighbours_of_a_batch_of_volumes_do_not_mix():
    volumes = torch.arange(1.0, 7).reshape(2, 3, 1, 1, 1)  # slices 1 2 3 and 4 5 6
    found = neighbouring_slices(volumes, torch.tensor([2, 3]), neighbours=1)
    assert found.flatten(1).tolist() == [[2, 3, 0], [0, 4, 5]]


def test_the_image_gets_neighbours_and_the_label_none():
    for sample in draw(case(), neighbours=1):
        assert sample["image"].shape == (3, 4, 3)
        assert sample["label"].shape == (2, 4, 3)


def test_negative_neighbours():
    with pytest.raises(ConfigError, match="neighbours is -1, expected 0 or more slices on each side"):
        draw(case(), neighbours=-1)
