# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Random changes of training slices, as the SegAN volume bundles configure them."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, PANCREAS


def parser_of(bundle, **settings):
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / bundle / "configs" / "train.json"))
    parser.update({"slice_size": [32, 40], "neighbours": 1, **settings})
    parser.parse()
    return parser


def steps_after_slicing(bundle, **settings):
    parser = parser_of(bundle, **settings)
    return Compose([s for s in parser.get_parsed_content("train#augmentation") if s is not None]).set_random_state(0)


@pytest.fixture
def sample():
    image = torch.zeros(9, 32, 40)
    image[:, 8:24, 10:30] = torch.rand(3, 16, 20, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1) + 0.5
    return {"image": image, "label": (image[:1] > 0).float()}


def test_without_augmentation_nothing_follows_the_slicing():
    for bundle in (BRATS, HIPPOCAMPUS):
        assert not steps_after_slicing(bundle, augmentation_probability=0.0, elastic_magnitude=5.0).transforms


def names_of_steps(parser, name):
    return [type(step).__name__ for step in parser.get_parsed_content(name) if step is not None]


@pytest.mark.parametrize(
    ("bundle", "kind", "name"),
    [
        (BRATS, "", "OneOf"),
        (BRATS, "unlabeled_", "OneOf"),
        (HIPPOCAMPUS, "", "OneOf"),
        (HIPPOCAMPUS, "unlabeled_", "OneOf"),
        (PANCREAS, "", "RandAffined"),
    ],
)
def test_slices_are_augmented_in_the_loader_or_on_the_device(bundle, kind, name):
    for on_device in (False, True):
        parser = parser_of(
            bundle,
            augmentation_probability=0.8,
            contrast_probability=0.5,
            elastic_magnitude=4.0,
            augment_on_device=on_device,
        )
        in_loader = names_of_steps(parser, f"train#{kind}augmentation_in_loader")
        assert (name in in_loader) is not on_device
        assert "RandSlicesd" in names_of_steps(parser, "train#random_slices")
        augment = parser.get_parsed_content("train#augment")
        assert (augment is not None) is on_device
        assert parser["train#trainer#augment"] == "@train::augment", "overlays of the trainer use the same"


@pytest.mark.parametrize("magnitude", [0.0, 4.0])
def test_a_batch_is_deformed_as_each_slice_is_with_its_label(sample, magnitude):
    parser = parser_of(BRATS, augmentation_probability=1.0, elastic_magnitude=magnitude, augment_on_device=True)
    augment = parser.get_parsed_content("train#augment")
    torch.manual_seed(0)
    batch = {key: value[None].repeat(16, 1, 1, 1) for key, value in sample.items()}
    changed = augment(batch)
    for image, label in zip(changed["image"], changed["label"], strict=True):
        assert not torch.equal(label, sample["label"])
        assert set(label.unique().tolist()) == {0.0, 1.0}
        bright = image.mean(0) > 0.35
        assert (bright == (label[0] > 0)).float().mean() > 0.93


@pytest.mark.parametrize("magnitude", [0.0, 4.0])
def test_every_slice_is_deformed_with_its_label(sample, magnitude):
    augment = steps_after_slicing(BRATS, augmentation_probability=1.0, elastic_magnitude=magnitude)
    for _ in range(8):
        changed = augment(dict(sample))
        image, label = changed["image"], changed["label"]
        assert image.shape == (9, 32, 40)
        assert type(image) is type(label) is torch.Tensor
        assert set(label.unique().tolist()) == {0.0, 1.0}
        assert not torch.equal(label, sample["label"])
        bright = image.mean(0) > 0.35  # noise and blur at the border
        assert (bright == (label[0] > 0)).float().mean() > 0.93
        correlation = torch.corrcoef(torch.stack([image[0].flatten(), image[3].flatten()]))[0, 1]
        assert correlation > 0.95, "neighbouring slices of a modality were equal, and change alike but for noise"


def test_elastic_deformation_bends_straight_edges(sample):
    """Rows of a bent label do not all begin on one line, as they do after any affine change."""

    def bend(magnitude):
        augment = steps_after_slicing(HIPPOCAMPUS, augmentation_probability=1.0, elastic_magnitude=magnitude)
        found = []
        for _ in range(20):
            label = augment({"image": sample["image"][:3], "label": sample["label"]})["label"][0]
            rows = label.any(1).nonzero().flatten()[2:-2]
            found.append(label[rows].argmax(1).float().std())
        return max(found)

    assert bend(0.0) == 0
    assert bend(6.0) > 0.5
