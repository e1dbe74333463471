# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A batch in parts gives the step of the whole batch, in every phase of every trainer."""

from __future__ import annotations

import math
import os
import signal

import pytest
import torch
from ignite.engine import Events
from torch import nn

from segan_monai.engines.accumulation import TwoPasses, split
from segan_monai.errors import ConfigError
from segan_monai.handlers import RunCheckpoint
from tests.engines.distributed_run import NAMES, make_batches, make_trainer, state_of


def test_parts_of_batches_that_cannot_be_divided():
    parts = split([torch.arange(5), None, torch.arange(10, 15)], 2)
    assert [part.tensors[0].tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert [part.tensors[2].tolist() for part in parts] == [[10, 11, 12], [13, 14]]
    assert [(part.share, part.last, part.tensors[1]) for part in parts] == [(0.6, False, None), (0.4, True, None)]
    assert len(split([torch.arange(2), torch.arange(9)], 4)) == 2, "no part without samples"


def trained(name, steps, **settings):
    """States before and after a training with batches in parts, the last terms, and the largest part."""
    trainer = make_trainer(name, make_batches(name), accumulation_steps=steps, **settings)
    before = state_of(trainer)
    largest = run_with_sizes(trainer)
    assert not any(exchange._under_way for exchange in trainer.exchanges.values()), "gradients are not kept"
    return before, state_of(trainer), trainer.state.output["terms"], largest


def run_with_sizes(trainer):
    """Train, and return the largest number of images that the network's first convolution saw."""
    sizes = []
    first = next(layer for layer in trainer.network.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d))
    first.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    trainer.run()
    return max(sizes)


@pytest.mark.parametrize(("name", "steps"), [*((name, 2) for name in NAMES), ("segan", 3)])
def test_every_weight_changes_as_with_the_whole_batch(name, steps):
    before, whole, terms, most = trained(name, 1)
    _, parts, others, fewer = trained(name, steps)
    assert fewer == math.ceil(most / steps)
    assert set(whole) == set(parts)
    for key in whole:
        torch.testing.assert_close(parts[key] - before[key], whole[key] - before[key], atol=2e-6, rtol=1e-3)
    for key in terms:
        torch.testing.assert_close(others[key], terms[key], atol=1e-5, rtol=1e-4)
    for player in {key.split(".")[0] for key in whole}:
        assert any(not torch.equal(whole[key], before[key]) for key in whole if key.startswith(player))


@pytest.mark.parametrize("uniform", [[True, False, True, False], [False, True, False, False]])
def test_parts_share_the_references_of_their_batch(uniform):
    """Each of four parts has one sample, often one chosen by its label; the batch has two references, or one."""

    def run(steps):
        batches = [{**batch, "uniform": torch.tensor(uniform)} for batch in make_batches("semi_supervised")]
        trainer = make_trainer("semi_supervised", batches, accumulation_steps=steps)
        trainer.run()
        return state_of(trainer), trainer.state.output["terms"]

    (whole, terms), (parts, others) = run(1), run(4)
    assert "critic_patch" in terms
    for name in terms:
        torch.testing.assert_close(others[name], terms[name], atol=1e-5, rtol=1e-4)
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], atol=2e-6, rtol=1e-4)


def test_the_warm_up_of_the_normalizer_too():
    before, whole, _, most = trained("normalization", 1, warm_up_epochs=1)
    _, parts, _, fewer = trained("normalization", 2, warm_up_epochs=1)
    assert (most, fewer) == (4, 2)
    for key in whole:
        torch.testing.assert_close(parts[key] - before[key], whole[key] - before[key], atol=2e-6, rtol=1e-3)
    assert any(not torch.equal(whole[key], before[key]) for key in whole)


def test_the_second_pass_repeats_random_draws_and_counts_statistics_once():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    x = torch.rand(4, 1, 8, 8)
    passes = TwoPasses(network, split([x], 2), network, torch.device("cpu"))
    first = [found for _, found in passes.first()]
    assert int(network[1].num_batches_tracked) == 0
    drawn = torch.rand(3)  # what other networks draw between the phases
    state = torch.get_rng_state()
    second = [found for _, found in passes.second()]
    assert torch.equal(torch.get_rng_state(), state), "the stream goes on where it was"
    assert not torch.equal(torch.rand(3), drawn)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert (a.requires_grad, b.requires_grad) == (False, True)
    assert not torch.equal(first[0] == 0, first[1] == 0), "each part has draws of its own"
    assert int(network[1].num_batches_tracked) == 2


def test_a_run_that_is_stopped_within_an_epoch_goes_on_bit_for_bit(tmp_path):
    states = []
    for part in ("whole", "stopped", "resumed"):
        trainer = make_trainer("segan", make_batches("segan"), max_epochs=2, accumulation_steps=2)
        if part != "whole":
            objects = {"network": trainer.network, "critic": trainer.critic}
            RunCheckpoint(tmp_path, tmp_path, trainer.network, objects, resume=part == "resumed").attach(trainer)
        if part == "stopped":
            ask = Events.ITERATION_STARTED(once=2)
            trainer.add_event_handler(ask, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(SystemExit):
                trainer.run()
            assert trainer.state.iteration == 2
            continue
        trainer.run()
        states.append(state_of(trainer))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulation_steps": 0}, "accumulation_steps is 0; expected 1 .* or more"),
        (
            {"accumulation_steps": 2, "compile": "graphs", "device": "cuda"},
            "accumulation_steps is 2 and compile 'graphs'",
        ),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer("segmentation", make_batches("segmentation"), **settings)
