# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses that the host reads every few iterations, as on a GPU: ``look_every`` makes the CPU do the same."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from ignite.engine import Events
from torch.utils._python_dispatch import TorchDispatchMode

from segan_monai.engines import NonFiniteLossError
from segan_monai.engines.loss_watch import LossWatch, unchanged_unless
from segan_monai.handlers import EpochLog
from tests.engines.distributed_run import make_batches, make_trainer, state_of

# what makes the host wait for a GPU: values read, and shapes that depend on values
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")
NAMES = ("segan", "segmentation", "normalization")


class HostReads(TorchDispatchMode):
    """Notes operations for which the host would wait on a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple) else ()
        by_mask = any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if name in WAITS or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def weights_of(trainer):
    networks = (trainer.network, *trainer.adversaries.values())
    return [p.detach().clone() for network in networks for p in network.parameters()]


@pytest.mark.parametrize("name", [*NAMES, "lsnet"])
def test_reading_later_changes_no_result(name):
    results = []
    for look_every in (1, 2, 100):
        trainer = make_trainer(name, make_batches(name))
        trainer.look_every = look_every
        trainer.run()
        results.append([*state_of(trainer).values(), *trainer.state.output["terms"].values()])
    for values in zip(*results, strict=True):
        assert torch.equal(values[0], values[1])
        assert torch.equal(values[0], values[2])


@pytest.mark.parametrize("name", [*NAMES, "semi_supervised"])
def test_the_host_reads_nothing_within_an_iteration(name, tmp_path):
    reads = []
    # all terms of unlabelled images
    settings = {"unpaired_weight": 0.5, "balance_gradients": True, "mask_blur": 1.0, "mask_noise": 0.1}
    more = settings if name == "semi_supervised" else {}
    for look_every in (100, 1):
        trainer = make_trainer(name, make_batches(name), train_handlers=[EpochLog(tmp_path)], **more)
        trainer.look_every = look_every
        trainer.state.epoch = trainer.state.iteration = 1
        trainer.state.epoch_length = 100
        batches = list(trainer.data_loader)
        with HostReads() as mode:
            for batch in batches:
                trainer._iteration(trainer, batch)
                trainer.fire_event(Events.ITERATION_COMPLETED)
        reads.append(mode.found)
    assert reads[0] == []
    assert reads[1], "it sees the wait of every phase where losses are read at once"


@pytest.mark.parametrize("name", [*NAMES, "lsnet"])
def test_no_weight_changes_after_a_loss_that_is_not_finite(name):
    batches = make_batches(name)
    alone = make_trainer(name, batches[:1])
    alone.run()
    expected = weights_of(alone)

    batches[1]["image"][0, 0, 3, 3] = math.nan
    batches[1]["case"] = ["a", "b", "a", "b"]
    trainer = make_trainer(name, batches)
    trainer.look_every = 100
    with pytest.raises(NonFiniteLossError, match=r"became nan in epoch 1, iteration 2, on a batch of a, b; expected"):
        trainer.run()
    assert trainer.state.iteration == 3, "the host read the losses at the end of the epoch"
    for weight, before in zip(weights_of(trainer), expected, strict=True):
        assert torch.equal(weight, before)


def test_critics_are_not_even_clamped_after_it():
    batches = make_batches("segan")
    batches[0]["label"][0, 0, 3, 3] = math.nan
    trainer = make_trainer("segan", batches)
    trainer.look_every = 100
    before = copy.deepcopy(list(trainer.critic.parameters()))
    assert max(float(p.detach().abs().max()) for p in trainer.clamped) > trainer.clamp
    with pytest.raises(
        NonFiniteLossError, match="loss term 'critic_l1' of the critic became nan in epoch 1, iteration 1"
    ):
        trainer.run()
    assert all(torch.equal(p, old) for p, old in zip(trainer.critic.parameters(), before, strict=True))


def test_losses_are_read_after_so_many_phases_and_before_a_checkpoint():
    batches = make_batches("segmentation") * 2
    batches[0]["image"][...] = math.inf
    trainer = make_trainer("segmentation", batches, max_epochs=2)
    trainer.look_every = 2  # up to four phases
    with pytest.raises(NonFiniteLossError, match="iteration 1,"):
        trainer.run()
    assert trainer.state.iteration == 4

    trainer = make_trainer("segmentation", batches)
    trainer.look_every = 100
    trainer.stops.signals.received = 15
    trainer.state.epoch = trainer.state.iteration = 1
    trainer._iteration(trainer, batches[0])
    with pytest.raises(NonFiniteLossError, match="loss term 'mask' of the segmentor"):
        _ = trainer.stop_requested


def test_the_first_term_that_is_not_finite_is_named():
    watch = LossWatch(3)
    watch.add("critic", ["a"], torch.tensor([1.0]), 1, 7, "x")
    watch.add("segmentor", ["b", "c"], torch.tensor([2.0, math.inf]), 1, 7, "x")
    with pytest.raises(NonFiniteLossError, match="loss term 'c' of the segmentor became inf in epoch 1, iteration 7"):
        watch.add("critic", ["a"], torch.tensor([math.nan]), 1, 8, "y")
    watch.reset()
    watch.look()


def test_changes_are_undone_on_the_device():
    for finite in (True, False):
        weights = [
            torch.nn.Parameter(torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)),
            torch.ones(()),
        ]
        with unchanged_unless(torch.tensor(finite), weights), torch.no_grad():
            weights[0].mul_(math.nan)
            weights[1].fill_(5.0)
        assert bool(weights[0].isnan().all()) is finite
        assert float(weights[1]) == (5.0 if finite else 1.0)
        assert finite or bool((weights[0] == 1).all())
        assert weights[0].is_contiguous(memory_format=torch.channels_last)
