# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Every bundle under MONAI's federated client: two clients with other cases, averaged by their numbers of cases."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType
from monai.fl.utils.exchange_object import ExchangeObject

from tests.bundles.workflow import (
    BRAIN,
    BRATS,
    BUNDLES,
    HIPPOCAMPUS,
    OVERLAYS,
    PANCREAS,
    SKIN,
    SMALL_BRAIN_TRAINING,
    SMALL_PANCREAS,
    SMALL_SKIN,
    SMALL_TRAINING,
)

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]

UNLABELED = {"unlabeled": "use", "consistency_weight": 0.5, "unpaired_weight": 0.2, "unlabeled_critic_start": 1}
# settings of both clients, of the second alone, fixture of the data, and the cases that each trains on
OF_BUNDLE = {
    BRATS: ({"folds": 4, "critic_start": 1}, {"folds": 2}, "phantoms", (3, 2)),
    HIPPOCAMPUS: (
        # no slice is drawn by its label, else a small batch may omit the unpaired term
        {
            "foreground_probability": 0.0,
            "folds": 4,
            "critic_start": 1,
            "ema_decay": 0.9,
            "labeled_cases": 2,
            **UNLABELED,
        },
        {"folds": 2, "labeled_cases": 1},
        "hippocampi",
        (2, 1),
    ),
    SKIN: (SMALL_SKIN, {"official_split": False, "folds": 4}, "photographs", (4, 3)),
    PANCREAS: ({**SMALL_PANCREAS, "ema_decay": 0.0}, {"folds": 4}, "slices", (4, 6)),
    # the second client has one domain of the two, so a discriminator of another shape
    BRAIN: ({**SMALL_BRAIN_TRAINING, "warm_up_epochs": 0}, {"train_domains": ["iSEG"]}, "brains", (2, 1)),
}


def start_client(bundle, name, folder, settings):
    """A client as docs/federated.md makes it."""
    folders = {"output_dir": str(folder / name), "ckpt_dir": str(folder / name / "models")}
    settings = {**SMALL_TRAINING, "epochs": 2, "val_interval": 2, **settings, **folders}
    files = ["configs/train.json", *([str(OVERLAYS / "ct_pictures.json")] if bundle == PANCREAS else [])]
    client = MonaiAlgo(
        bundle_root=str(BUNDLES / bundle),
        local_epochs=1,
        send_weight_diff=False,
        config_train_filename=files,
        train_kwargs=dict(settings),
        config_evaluate_filename=files,
        eval_kwargs=dict(settings),
        best_model_filepath=str(folder / name / "models" / "model.pt"),
    )
    client.initialize({ExtraItems.CLIENT_NAME: name})
    return client


def copy_of(state):
    return {name: tensor.clone() for name, tensor in state.items()}


def state_of(trainer):
    """Weights of the network, and of the players that stay at home."""
    players = trainer.adversaries.items()
    adversaries = {f"{name}.{key}": value.clone() for name, net in players for key, value in net.state_dict().items()}
    return copy_of(trainer.network.state_dict()), adversaries


def average(own, cases):
    """What a server does: weights of the clients, averaged by their numbers of cases."""
    total = sum(cases)
    return {
        name: sum(state[name].double() * count / total for state, count in zip(own, cases, strict=True)).to(
            tensor.dtype
        )
        for name, tensor in own[0].items()
    }


@pytest.mark.parametrize("bundle", OF_BUNDLE)
def test_two_clients_learn_one_network(bundle, request, tmp_path):
    common, of_second, fixture, expected = OF_BUNDLE[bundle]
    common = {**common, "dataset_dir": str(request.getfixturevalue(fixture))}
    clients = [start_client(bundle, name, tmp_path, {**common, **more}) for name, more in (("a", {}), ("b", of_second))]
    cases = [len(client.trainer.data_loader.dataset) for client in clients]
    assert tuple(cases) == expected
    assert not list(tmp_path.glob("*/previous_*")), "MonaiAlgo starts a run twice; nothing has been trained before"

    weights = copy_of(clients[0].get_weights().weights)
    at_start = []
    for client in clients:
        client.trainer.add_event_handler(Events.STARTED, lambda trainer: at_start.append(state_of(trainer)))
    critics = [{}, {}]
    for epoch in (1, 2):
        own = []
        for number, client in enumerate(clients):
            client.train(ExchangeObject(weights=weights))
            assert client.trainer.state.epoch == epoch
            network, critic = at_start.pop()
            assert all(torch.equal(network[key], weights[key]) for key in weights), "begins with the global network"
            if epoch == 2:
                assert all(torch.equal(critic[key], critics[number][key]) for key in critic), "and its own critic"
            network, critics[number] = state_of(client.trainer)
            assert any(not torch.equal(critic[key], critics[number][key]) for key in critic) or not critic
            own.append(copy_of(client.get_weights().weights))
            assert all(torch.equal(own[-1][key], network[key]) for key in network), "not the averaged weights"
            assert (client.trainer.averaged is None) == (bundle != HIPPOCAMPUS)
            assert own[-1].keys() == network.keys()
            terms = client.trainer.state.output["terms"]
            assert ({"consistency", "segmentor_unpaired"} <= terms.keys()) == (bundle == HIPPOCAMPUS)
        assert any(not torch.equal(own[0][key], own[1][key]) for key in own[0])
        weights = average(own, cases)
        key = max(weights, key=lambda name: weights[name].numel())
        first, second, both = (state[key].flatten()[0].item() for state in (*own, weights))
        assert both == pytest.approx((expected[0] * first + expected[1] * second) / sum(expected), rel=1e-5)

    for client in clients:
        found = client.evaluate(ExchangeObject(weights=weights)).metrics
        assert 0 <= float(found["mean_dice"]) <= 1
        evaluated = client.evaluator.network.state_dict()
        assert all(torch.equal(evaluated[key], weights[key]) for key in weights)
        steps = [int(state["step"]) for state in client.trainer.optimizer.state_dict()["state"].values()]
        best = client.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
        saved = torch.load(tmp_path / client.client_name / "models" / "model.pt", weights_only=True)
        assert all(torch.equal(torch.as_tensor(best[key]), saved[key]) for key in saved), "its own best network"
        assert max(steps) == client.trainer.state.iteration * (2 if bundle == PANCREAS else 1), "Adam goes on"
        client.finalize()
