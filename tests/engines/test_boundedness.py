# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Theorem 1 of Xue et al. (2018): the multi-scale loss is bounded while the critics' weights are clamped."""

from __future__ import annotations

import pytest
import torch

from segan_monai.engines import SegANTrainer
from segan_monai.losses import MultiScaleL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor


def lipschitz_constants(critic, clamp):
    """Bounds of the L1 norm of each layer's change by that of its input: Eq. 10, computed for these blocks.

    An element of the input reaches 4 places in each of the n channels of a 4x4 convolution of stride 2, each time with
    a weight of at most c. Leaky ReLU does not enlarge a difference. A block's constant is thus 4 n c.
    """
    constants = [1.0]
    for block in critic.encoder:
        convolution = next(m for m in block.modules() if isinstance(m, torch.nn.Conv2d))
        assert (convolution.kernel_size, convolution.stride) == ((4, 4), (2, 2))
        constants.append(constants[-1] * 4 * convolution.out_channels * clamp)
    return constants


@pytest.mark.parametrize("clamp", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("clamped", [True, False])
def test_loss_is_below_the_bound_for_clamped_critics_alone(clamp, clamped):
    torch.manual_seed(0)
    segmentor = SegANSegmentor(2, 1, base_channels=4)
    critics = SegANCritics(2, 1, base_channels=8, norm=False)
    batches = [
        {"image": torch.rand(4, 2, 32, 32), "label": (torch.rand(4, 1, 32, 32) > 0.5).float()} for _ in range(60)
    ]
    loss = MultiScaleL1Loss(reduction="sum")
    trainer = SegANTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=batches,
        network=segmentor,
        optimizer=torch.optim.SGD(segmentor.parameters(), lr=0.0),
        critic=critics,
        critic_optimizer=torch.optim.RMSprop(critics.parameters(), lr=0.02),  # climbs as fast as it can
        loss_function=loss,
        clamp=clamp if clamped else 1e9,
        clamp_norm=True,
    )
    trainer.run()
    above = False
    with torch.no_grad():
        for batch in batches[:8]:
            image, label = batch["image"], batch["label"]
            prediction = segmentor(image).sigmoid()
            masked = float((image * (prediction - label)).abs().sum()) / len(image)
            constants = lipschitz_constants(critics.critics[0], clamp)
            bound = sum(constants) / len(constants) * masked
            assert masked <= float(image.sum()) / len(image)  # of any segmentor: x is bounded
            value = float(loss(critics(image, prediction), critics(image, label)))
            assert value > 0
            above |= value > bound * (1 + 1e-5)
    assert above != clamped


def test_every_weight_is_clamped_on_request():
    critics = SegANCritics(1, 1, base_channels=4)
    settings = {
        "device": "cpu",
        "max_epochs": 1,
        "network": SegANSegmentor(1, 1, base_channels=4),
        "loss_function": MultiScaleL1Loss(),
        "train_data_loader": [{"image": torch.rand(2, 1, 32, 32), "label": torch.ones(2, 1, 32, 32)}],
        "critic": critics,
        "critic_optimizer": torch.optim.SGD(critics.parameters(), lr=0.1),
    }
    settings["optimizer"] = torch.optim.SGD(settings["network"].parameters(), lr=0.1)
    SegANTrainer(**settings, clamp=0.01).run()
    largest = max(float(p.detach().abs().max()) for p in critics.parameters())
    assert largest > 0.5  # a batch norm weight
    SegANTrainer(**settings, clamp=0.01, clamp_norm=True).run()
    assert max(float(p.detach().abs().max()) for p in critics.parameters()) == pytest.approx(0.01)
