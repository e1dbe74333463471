# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""All trainers on each device: gradients, mixed precision, resuming, and no waits for a GPU."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from torch import nn

from segan_monai.engines import NonFiniteLossError
from segan_monai.handlers import EpochLog, RunCheckpoint
from tests.engines.distributed_run import make_batches
from tests.gpu.devices import DEVICES, GPU, TRAINERS, networks_of, trainer_on, weights_of


@pytest.fixture(autouse=True)
def exact_float32():
    """No TF32, which has ten bits of float32's mantissa."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def deterministic():
    """Algorithms that give the same bits in every run, as far as an operation has one."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def gradients_of_steps(trainer):
    """Run, and return the gradients of each optimizer step as one vector."""
    found = []

    def note(optimizer, *_):
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        found.append(torch.cat([p.grad.double().cpu().flatten() for p in parameters]))

    optimizers = {trainer.optimizer, *(getattr(trainer, f"{name}_optimizer") for name in trainer.adversaries)}
    for optimizer in optimizers:
        optimizer.register_step_pre_hook(note)
    torch.manual_seed(3)  # L-SNet draws RoIs
    trainer.run()
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TRAINERS)
def test_gradients_are_those_of_the_cpu(name, device):
    """On the CPU, in its other memory format."""
    reference = gradients_of_steps(trainer_on("cpu", name, batches=1, channels_last=False))
    found = gradients_of_steps(trainer_on(device, name, batches=1, channels_last=name != "normalization"))
    assert len(found) == len(reference) == (1 if name == "segmentation" else 2)
    for ours, expected in zip(found, reference, strict=True):
        assert expected.norm() > 0
        assert (ours - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", TRAINERS)
def test_mixed_precision_follows_float32(name, dtype, device):
    weights = []
    for amp in (False, True):
        trainer = trainer_on(device, name, amp=amp)
        if amp:
            trainer.autocast_dtype = dtype
            trainer.look_every = 1
        before = weights_of(trainer)
        torch.manual_seed(3)
        trainer.run()
        weights.append(weights_of(trainer) - before)
    exact, mixed = weights
    assert mixed.isfinite().all()
    assert not torch.equal(exact, mixed)
    assert (mixed - exact).norm() / exact.norm() < 0.2
    phases = {"segan": 2, "segmentation": 1, "normalization": 2, "lsnet": 2}[name]
    assert len(trainer.scalers) == (phases if dtype is torch.float16 else 0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_gradient_beyond_float16_changes_no_weight_and_lowers_the_scale(device):
    trainer = trainer_on(device, "segmentation", batches=1, amp=True)
    trainer.autocast_dtype = torch.float16
    trainer.look_every = 1
    trainer.scalers["segmentor"] = torch.amp.GradScaler(device, init_scale=2.0**60)
    before = weights_of(trainer)
    trainer.run()
    assert torch.equal(weights_of(trainer), before)
    assert trainer.scalers["segmentor"].get_scale() == 2.0**59


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["segan", "segmentation", "normalization"])
def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(name, device, deterministic, tmp_path):
    """Without L-SNet, whose sampling has no deterministic gradient on a GPU."""
    found = []
    for parts in ((2,), (1, 2)):
        folder = tmp_path / str(len(parts))
        folder.mkdir()
        for epochs in parts:
            trainer = trainer_on(device, name, max_epochs=epochs)
            optimizers = {key: value for key, value in vars(trainer).items() if key.endswith("optimizer")}
            objects = {"network": trainer.network, **trainer.adversaries, **optimizers}
            resume = epochs > parts[0]
            RunCheckpoint(folder, folder, trainer.network, objects, resume=resume).attach(trainer)
            trainer.run()
        found.append(weights_of(trainer))
    assert torch.equal(*found)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TRAINERS)
def test_a_loss_that_is_not_finite_changes_no_weight(name, device):
    batches = make_batches(name)
    batches[0]["image"][0, 0, 3, 3] = torch.nan
    trainer = trainer_on(device, name)
    trainer.data_loader = batches
    before = weights_of(trainer)
    with pytest.raises(NonFiniteLossError, match="became nan in epoch 1, iteration 1,"):
        trainer.run()
    assert torch.equal(weights_of(trainer), before)


def pinned(batch):
    """A batch in pinned memory, as a loader gives it."""
    return {key: pinned(value) if isinstance(value, dict) else value.pin_memory() for key, value in batch.items()}


@pytest.mark.gpu
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("name", ["segan", "segmentation", "normalization", "semi_supervised"])
def test_the_host_never_waits_within_an_epoch(name, amp, tmp_path):
    """PyTorch raises an error for every wait that it knows of."""
    # all terms of unlabelled images
    settings = {"unpaired_weight": 0.5, "balance_gradients": True, "mask_blur": 1.0, "mask_noise": 0.1}
    more = settings if name == "semi_supervised" else {}
    handlers = [EpochLog(str(tmp_path))]
    trainer = trainer_on("cuda", name, amp=amp, train_handlers=handlers, **{"ema_decay": 0.9, **more})
    batches = [pinned({**batch, "uniform": torch.tensor([True, False, True, True])}) for batch in trainer.data_loader]
    trainer.state.epoch = trainer.state.iteration = 1
    trainer.state.epoch_length = 100
    trainer._iteration(trainer, batches[0])  # the first one may set up libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            trainer._iteration(trainer, batch)
            trainer.fire_event(Events.ITERATION_COMPLETED)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.losses.look()


@pytest.mark.parametrize("device", [GPU])
def test_batches_are_copied_without_a_wait(device):
    trainer = trainer_on(device, "segmentation")
    assert trainer.non_blocking
    assert trainer.look_every == 10


def test_the_cpu_reads_losses_at_once():
    trainer = trainer_on("cpu", "segmentation")
    assert not trainer.non_blocking
    assert trainer.look_every == trainer.losses.look_after == 1


@pytest.mark.gpu
def test_networks_stay_on_the_gpu():
    trainer = trainer_on("cuda", "segan")
    trainer.run()
    assert {p.device.type for network in networks_of(trainer) for p in network.parameters()} == {"cuda"}
    assert isinstance(trainer.network, nn.Module)
    assert trainer.state.output["pred"].device.type == "cuda"
