# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Speed of training steps of adversarial normalization."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.networks.nets import UNet

from benchmarks.tables import Compilers, Device, JsonFile, Rounds, by_turns, device_gib, report
from segan_monai.engines import AdversarialNormalizationTrainer
from segan_monai.losses import DomainAdversarialLoss, WeightedDiceLoss
from segan_monai.networks import DomainDiscriminator, NormalizerSegmentor


def normalization_networks(base_channels: int) -> tuple[NormalizerSegmentor, DomainDiscriminator]:
    """Return the bundle's networks: 3-D U-Nets, three tissues, two domains."""
    torch.manual_seed(0)
    channels = [base_channels * 2**level for level in range(4)]
    segmentor = UNet(3, 1, 4, channels=channels, strides=(2, 2, 2), norm="batch")
    normalizer = UNet(3, 1, 2, channels=channels, strides=(1, 2, 2), norm="batch")
    return NormalizerSegmentor(segmentor, normalizer, gain_and_offset=True), DomainDiscriminator(2)


def literal_normalization_step(
    batch: dict[str, torch.Tensor], base_channels: int, device: str = "cpu"
) -> Callable[[], None]:
    """Return an iteration as in Eq. 1: the whole formula in both steps, every network evaluated where it appears."""
    network, discriminator = (each.to(device) for each in normalization_networks(base_channels))
    dice, domains = WeightedDiceLoss(), DomainAdversarialLoss()
    optimizers = [torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9) for net in (network, discriminator)]

    def run() -> None:
        image, label, domain = (batch[name].to(device) for name in ("image", "label", "domain"))
        for sign, optimizer in zip((1, -1), optimizers, strict=True):
            network.zero_grad()
            discriminator.zero_grad()
            segmentation = dice(network.segmentor(network.normalize(image)), label)
            adversarial = domains(discriminator(image), discriminator(network.normalize(image)), domain)
            (sign * (segmentation - adversarial)).backward()
            optimizer.step()

    return run


def our_normalization_step(
    batch: dict[str, torch.Tensor], base_channels: int, amp: bool, device: str = "cpu", compile: str | None = None
) -> Callable[[], None]:
    """Return an iteration of the trainer, after the warm-up."""
    network, discriminator = (each.to(device) for each in normalization_networks(base_channels))
    trainer = AdversarialNormalizationTrainer(
        device=device,
        compile=compile,
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=torch.optim.SGD(network.parameter_groups(1e-5), lr=1e-4, momentum=0.9),
        discriminator=discriminator,
        discriminator_optimizer=torch.optim.SGD(discriminator.parameters(), lr=1e-4, momentum=0.9),
        loss_function=WeightedDiceLoss(),
        domain_loss=DomainAdversarialLoss(),
        domains=["a", "b"],
        warm_up_epochs=0,
        amp=amp,
    )
    trainer.state.epoch = 1
    return lambda: trainer._iteration(trainer, batch)


def normalization_step(
    rounds: Rounds = 7,
    batch_size: int = 16,
    base_channels: int = 16,
    device: Device = "cpu",
    compile: Compilers = None,
    json_file: JsonFile = None,
) -> None:
    """Time an iteration of adversarial normalization on 32^3 patches, literal and ours."""
    torch.manual_seed(0)
    size = (batch_size, 1, 32, 32, 32)
    batch = {"image": torch.rand(size), "label": torch.randint(0, 4, size), "domain": torch.arange(batch_size) % 2}
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    sides = {
        "literal": literal_normalization_step(batch, base_channels, device),
        "float32": our_normalization_step(batch, base_channels, amp=False, device=device),
        "bfloat16": our_normalization_step(batch, base_channels, amp=True, device=device),
    }
    for name in compile or ():
        sides[f"bfloat16, {name}"] = our_normalization_step(batch, base_channels, True, device, name)
    seconds = by_turns(sides, rounds, warm_up=3 if compile else 1)
    rows = [{"side": name, "seconds": s, "ratio": seconds["literal"] / s} for name, s in seconds.items()]
    if device != "cpu":
        for row in rows:
            row["GPU GiB"] = device_gib(sides[str(row["side"])])
    report(f"normalization-step: batch {batch_size} of 32^3, base {base_channels}, K = 2", rows, json_file)
