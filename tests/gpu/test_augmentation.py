# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Batches that a trainer augments on its device."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Identityd,
    OneOf,
    Rand2DElasticd,
    RandAdjustContrast,
    RandAffined,
    RandGaussianNoise,
    RandScaleIntensity,
    RandSimulateLowResolution,
)

from segan_monai.transforms import AugmentBatch, EachModalityd
from tests.engines.distributed_run import make_batches
from tests.gpu.devices import DEVICES, trainer_on

KEYS = ["image", "label", "mask"]
HOW = {"mode": ["bilinear", "nearest", "nearest"], "padding_mode": "zeros", "allow_missing_keys": True}
AFFINE = RandAffined(KEYS, prob=1.0, rotate_range=0.35, translate_range=(4, 4), scale_range=(0.2, 0.2), **HOW)
ELASTIC = Rand2DElasticd(KEYS, spacing=(16, 16), magnitude_range=(2.0, 5.0), prob=1.0, **HOW)
DEFORMATION = OneOf([AFFINE, ELASTIC, Identityd(KEYS)], weights=[0.4, 0.4, 0.2])
INTENSITIES = [
    RandSimulateLowResolution(0.5, upsample_mode="bilinear"),
    RandAdjustContrast(0.5, gamma=(0.7, 1.5)),
    RandScaleIntensity(0.3, 0.5),
]


def augmenting_trainer(device, *last, name="semi_supervised", **settings):
    steps = Compose([*INTENSITIES, *last])
    return trainer_on(device, name, augment=AugmentBatch([DEFORMATION, EachModalityd("image", 1, steps)]), **settings)


def batch_with_others():
    batch = {**make_batches("segan")[0], "case": ["a", "b", "c", "d"]}
    batch["mask"] = torch.ones_like(batch["label"], dtype=torch.uint8)
    return {**batch, "unlabeled": {"image": batch["image"].flip(0), "case": ["e", "f", "g", "h"]}}


def augmented(device, *last, seed=1, batch=None, **settings):
    trainer = augmenting_trainer(device, *last, **settings)
    torch.manual_seed(seed)
    return trainer.augmented(batch or batch_with_others())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("amp", [False, True])
def test_batches_are_those_of_the_cpu_whatever_the_precision(device, amp):
    """Without noise, which is drawn on the device."""
    found, expected = augmented(device, amp=amp), augmented("cpu")
    assert found["image"].device.type == found["unlabeled"]["image"].device.type == device
    assert not torch.equal(expected["image"], batch_with_others()["image"])
    for key in ("image", "label", "mask"):
        assert found[key].dtype is torch.float32
        # a pixel whose place is halfway between two may be either
        different = (found[key].cpu() - expected[key]).abs() > 1e-3
        assert different.float().mean() < (0.002 if device == "cuda" else 1e-9)
    torch.testing.assert_close(found["unlabeled"]["image"].cpu(), expected["unlabeled"]["image"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_labelled_and_unlabelled_images_change_by_themselves(device):
    batch = batch_with_others()
    batch["unlabeled"]["image"] = batch["image"]
    found = augmented(device, RandGaussianNoise(0.5), batch=batch)
    assert not torch.equal(found["image"], found["unlabeled"]["image"])
    assert found["case"] == ["a", "b", "c", "d"]
    assert found["unlabeled"]["case"] == ["e", "f", "g", "h"]
    again = augmented(device, RandGaussianNoise(0.5), batch=batch)
    assert torch.equal(found["image"], again["image"]), "the seed decides"


@pytest.mark.parametrize("device", DEVICES)
def test_pixels_from_outside_the_slice_are_unknown(device):
    found = augmented(device)
    outside = found["mask"] == 0
    assert 0.01 < outside.float().mean() < 0.5
    assert not found["label"][outside].any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["segan", "segmentation"])
def test_steps_are_those_on_the_augmented_batches(device, name):
    """A training on batches that were augmented before takes the same steps."""
    weights = []
    for before in (False, True):
        trainer = augmenting_trainer(device, name=name, batches=1)
        (batch,) = trainer.data_loader
        torch.manual_seed(7)
        if before:
            trainer.data_loader, trainer.augment = [trainer.augmented(batch)], None
        trainer.run()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.network.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("device", DEVICES)
def test_networks_get_plain_tensors(device):
    batch = batch_with_others()
    batch["image"] = MetaTensor(batch["image"])
    found = augmented(device, batch=batch)
    assert {type(found[key]) for key in ("image", "label", "mask")} == {torch.Tensor}


@pytest.mark.gpu
def test_the_host_does_not_wait():
    trainer = augmenting_trainer("cuda", RandGaussianNoise(0.5))
    batch = {k: v.pin_memory() if torch.is_tensor(v) else v for k, v in batch_with_others().items() if k != "unlabeled"}
    trainer.augmented(batch)  # the first one may set up libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer.augmented(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
