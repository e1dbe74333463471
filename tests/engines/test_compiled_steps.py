# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Compiled training steps: gradients after each change of phase, and the weights that eager steps give.

``aot_eager`` traces forward and backward as ``inductor`` does, without a compiler. A GPU runs the others too.
"""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from torch import nn

from segan_monai.engines.compiling import compile_settings
from segan_monai.errors import ConfigError
from segan_monai.inferers import FiniteInferer, VolumeSliceInferer
from tests.engines.distributed_run import make_batches, make_trainer, state_of

BACKENDS = [
    ("cpu", "aot_eager"),
    pytest.param("cuda", "inductor", marks=pytest.mark.gpu),
    pytest.param("cuda", "graphs", marks=pytest.mark.gpu),
]
# trainers whose phases freeze networks, and the setting that lets a phase begin in epoch 2
CHANGING = {"segan": {"critic_start": 2}, "normalization": {"warm_up_epochs": 1}}


@pytest.fixture(autouse=True)
def no_earlier_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def on_device(name, device, **settings):
    """A trainer of ``distributed_run`` with its networks on a device, in float32 as the CPU computes it."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    trainer = make_trainer(name, make_batches(name)[:2], device=device, **settings)
    for network in (trainer.network, *trainer.adversaries.values()):
        network.to(device)
    return trainer


def watch_gradients(trainer, seen):
    """Note at each step which networks have received gradients since the iteration began: all, no or some weights."""
    networks = {"network": trainer.network, **trainer.adversaries}
    optimizers = {"network": trainer.optimizer}
    optimizers |= {name: getattr(trainer, f"{name}_optimizer") for name in trainer.adversaries}

    def forget():
        for network in networks.values():
            network.zero_grad(set_to_none=True)

    def note(optimizer, *_):
        (trained,) = [name for name, each in optimizers.items() if each is optimizer]
        found = {}
        for name, network in networks.items():
            has = {p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters()}
            found[name] = {True: "all", False: "none"}[has.pop()] if len(has) == 1 else "some"
        seen.append((trainer.state.epoch, trained, found))
        forget()  # what a later phase leaves behind must be its own

    trainer.add_event_handler(Events.ITERATION_STARTED, forget)
    for optimizer in optimizers.values():
        optimizer.register_step_pre_hook(note)


@pytest.mark.slow
@pytest.mark.parametrize(("device", "backend"), BACKENDS)
@pytest.mark.parametrize("name", CHANGING)
def test_trained_weights_have_gradients_and_frozen_ones_none_in_every_phase(name, device, backend):
    trainer = on_device(name, device, compile=backend, max_epochs=3, **CHANGING[name])
    seen = []
    watch_gradients(trainer, seen)
    trainer.run()
    (adversary,) = trainer.adversaries
    own, others = {"network": "all", adversary: "none"}, {"network": "none", adversary: "all"}
    steps = [(adversary, others), ("network", own)] if name == "segan" else [("network", own), (adversary, others)]
    # the normalizer alone is trained in the first epoch
    first = {**own, "network": "some"} if name == "normalization" else own
    expected = [(1, "network", first)] * 2 + [(epoch, *step) for epoch in (2, 3) for _ in range(2) for step in steps]
    assert seen == expected


@pytest.mark.slow
@pytest.mark.parametrize(("device", "backend"), BACKENDS)
@pytest.mark.parametrize("name", ["segan", "normalization", "segmentation"])
def test_compiled_steps_give_the_weights_of_eager_ones(name, device, backend):
    results = []
    for compile in (None, backend):
        trainer = on_device(name, device, compile=compile, max_epochs=3, **CHANGING.get(name, {}))
        before = state_of(trainer)
        trainer.run()
        results.append(state_of(trainer))
        assert list(before) == list(results[-1]), "names of weights stay"
        assert any(not torch.equal(value, before[key]) for key, value in results[-1].items())
    for key, eager in results[0].items():
        torch.testing.assert_close(results[1][key], eager, atol=1e-4, rtol=1e-4, msg=key)


def test_each_phase_has_its_own_graphs():
    """Graphs belong to the code of a function, so one function for two phases could share them."""
    trainer = make_trainer("segan", [])
    assert trainer._distance.__code__ is not trainer._distance_to_frozen.__code__
    trainer = make_trainer("normalization", [])
    assert trainer._judge.__code__ is not trainer._judge_frozen.__code__


@pytest.mark.slow
def test_the_phases_are_compiled_as_a_whole():
    """A part that dynamo leaves out would be compiled by its own code, which both phases share."""
    trainer = on_device("segan", "cpu", compile="aot_eager")
    torch._dynamo.utils.counters.clear()
    trainer.run()
    assert not torch._dynamo.utils.counters["graph_break"]
    # segmentor, critic's step, segmentor's step
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3


class PlainOnly(nn.Module):
    """A network that insists on plain tensors, as torch.compile does."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)
        self.seen = []

    def forward(self, x):
        self.seen.append(type(x))
        return self.layer(x)


@pytest.mark.parametrize(("inferer", "shape"), [(VolumeSliceInferer(), (6, 6, 4)), (FiniteInferer(), (6, 6))])
def test_networks_receive_plain_tensors_in_inference(inferer, shape):
    network = PlainOnly()
    affine = torch.diag(torch.tensor([2.0, 3, 4, 1], dtype=torch.float64))
    output = inferer(MetaTensor(torch.rand(1, 1, *shape), affine=affine), network)
    assert set(network.seen) == {torch.Tensor}
    assert torch.equal(output.affine, affine), "the result keeps the metadata"


@pytest.mark.parametrize("name", ["segan", "normalization", "segmentation", "lsnet"])
def test_networks_receive_plain_tensors_in_training(name):
    batches = [{key: MetaTensor(value) for key, value in batch.items()} for batch in make_batches(name)[:1]]
    trainer = make_trainer(name, batches)
    seen = []
    for network in (trainer.network, *trainer.adversaries.values()):
        for module in network.modules():
            module.register_forward_pre_hook(
                lambda module, args: seen.extend(type(a) for a in args if isinstance(a, torch.Tensor))
            )
    trainer.run()
    assert set(seen) == {torch.Tensor}


@pytest.mark.parametrize(
    ("compile", "message"),
    [
        ("graphs", "compile is 'graphs' on cpu; CUDA graphs need a GPU. Expected inductor, or no value"),
        ("indctor", "compile is 'indctor'; expected 'graphs' or a backend of torch.compile: .*inductor"),
    ],
)
def test_unknown_compilers_are_refused(compile, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer("segan", [], compile=compile)


def test_lsnet_is_not_compiled():
    with pytest.raises(ConfigError, match="LSNetTrainer cannot be compiled, because the number of RoIs varies"):
        make_trainer("lsnet", [], compile="inductor")


def test_graphs_are_inductor_with_cuda_graphs():
    assert compile_settings("graphs", torch.device("cuda")) == {"mode": "reduce-overhead", "dynamic": False}
    assert compile_settings(None, torch.device("cpu")) == {}
