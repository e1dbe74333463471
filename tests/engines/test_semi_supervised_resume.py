# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A training with unlabelled images that was stopped anywhere ends with the weights of an uninterrupted one."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceLoss
from monai.transforms import RandAffined, RandFlipd, RandGaussianNoise

from segan_monai.engines import SemiSupervisedTrainer
from segan_monai.handlers import RunCheckpoint
from segan_monai.losses import MultiScaleL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor
from segan_monai.transforms import AugmentBatch, EachModalityd, RandSlicesd, RandStrongChange, SlicesWithContentd

EPOCHS = 3


def make_loader(cases, workers, keys=("image", "label")):
    generator = torch.Generator().manual_seed(4)
    volumes = [{"image": torch.rand(1, 20, 20, 4, generator=generator)} for _ in range(cases)]
    for volume in volumes:
        volume["label"] = (volume["image"] > 0.5).float()
    transforms = [
        SlicesWithContentd(["image", "label"]),
        RandSlicesd(["image", "label"], label_key="label", num_samples=2, roi_size=(16, 16)),
        RandFlipd(keys, prob=0.5, spatial_axis=0),
    ]
    dataset = CacheDataset(volumes, transforms, progress=False)
    return DataLoader(dataset, batch_size=2, shuffle=True, num_workers=workers)


def make_run(folder, resume=False, workers=0, epochs=EPOCHS):
    torch.manual_seed(3)
    segmentor = SegANSegmentor(1, 1, base_channels=4, num_levels=2)
    critic = SegANCritics(1, 1, base_channels=4, num_levels=2, norm=False, patch_score=True)
    optimizers = [torch.optim.Adam(network.parameters(), lr=1e-3) for network in (segmentor, critic)]
    objects = dict(
        zip(("network", "critic", "optimizer", "critic_optimizer"), (segmentor, critic, *optimizers), strict=True)
    )
    folder.mkdir(exist_ok=True)
    return SemiSupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=make_loader(8, workers),
        unlabeled_data_loader=make_loader(5, workers),  # begins again within the epoch
        network=segmentor,
        optimizer=optimizers[0],
        critic=critic,
        critic_optimizer=optimizers[1],
        loss_function=MultiScaleL1Loss(),
        supervised_loss=DiceLoss(sigmoid=True, batch=True),
        supervised_weight=1.0,
        clamp=0.05,
        ema_decay=0.9,
        consistency_weight=0.5,
        consistency_ramp=2,
        strong_change=RandStrongChange(),
        unpaired_weight=0.2,
        patch_weight=0.2,
        unlabeled_critic_start=2,
        unlabeled_critic_ramp=1.5,
        mask_blur=1.0,
        mask_noise=0.1,
        augment=AugmentBatch(
            [
                RandAffined(["image", "label"], prob=0.5, rotate_range=0.5, allow_missing_keys=True),
                EachModalityd("image", 1, RandGaussianNoise(0.5)),
            ]
        ),
        train_handlers=[RunCheckpoint(str(folder), str(folder), segmentor, objects, resume=resume)],
    )


def state_of(trainer):
    networks = trainer.network, trainer.critic, trainer.averaged, trainer.unpaired
    return [value for network in networks for value in network.state_dict().values()]


@pytest.mark.parametrize("stop_after", [4, 6, 7])  # at the end of an epoch, and within the second
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_run_ends_with_the_very_same_weights(tmp_path, stop_after, workers):
    whole = make_run(tmp_path / "whole", workers=workers)
    torch.manual_seed(11)
    whole.run()
    assert whole.state.iteration == 4 * EPOCHS

    first = make_run(tmp_path / "parts", workers=workers)
    torch.manual_seed(11)
    first.add_event_handler(Events.ITERATION_STARTED(once=stop_after), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        first.run()
    assert first.state.iteration == stop_after
    second = make_run(tmp_path / "parts", resume=True, workers=workers)
    torch.manual_seed(99)
    second.run()

    assert second.state.iteration == whole.state.iteration
    assert all(torch.equal(a, b) for a, b in zip(state_of(whole), state_of(second), strict=True))


def test_the_checkpoint_has_the_running_means(tmp_path):
    trainer = make_run(tmp_path / "run", epochs=2)
    trainer.run()
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert torch.equal(last["unpaired"]["labelled_means"], trainer.unpaired.labelled_means)
    assert len(trainer.unpaired.labelled_means) == 4 + 8
