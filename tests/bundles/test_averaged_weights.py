# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The key ``ema_decay`` of the bundles."""

from __future__ import annotations

import json

import pytest
import torch

from segan_monai.errors import ConfigError, causes
from tests.bundles.workflow import (
    BRAIN,
    BRATS,
    HIPPOCAMPUS,
    SKIN,
    SMALL_BRAIN_TRAINING,
    SMALL_SKIN,
    make_workflow,
    run_workflow,
)

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


def load(file):
    return torch.load(file, weights_only=True)


def test_validation_and_evaluation_measure_the_averaged_weights(hippocampi, tmp_path):
    settings = {"dataset_dir": str(hippocampi), "ckpt_dir": str(tmp_path / "run")}
    settings |= {"regions": {"hippocampus": [1, 2]}, "learning_rate": 0.03}
    settings |= {"neighbours": 0, "slice_axis": 2, "full_resolution_channels": 0}
    training = run_workflow(
        HIPPOCAMPUS,
        "training",
        output_dir=str(tmp_path / "run"),
        **settings,
        **{"epochs": 20, "ema_decay": 0.9, "augmentation_probability": 0.0, "supervised_weight": 1.0},
    )
    best = training.parser.get_parsed_content("validate#evaluator").state.best_metric
    run_workflow(HIPPOCAMPUS, "evaluating", output_dir=str(tmp_path / "evaluation"), **settings)
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    assert 0 < best < 1
    assert summary["regions"]["hippocampus"]["dice"]["mean"] == pytest.approx(best, abs=1e-6)

    model, last = load(tmp_path / "run" / "model.pt"), load(tmp_path / "run" / "last.pt")
    assert all(torch.equal(weight, last["averaged"]["network"][name]) for name, weight in model.items())
    assert any(not torch.equal(weight, last["network"][name]) for name, weight in model.items())


ADABN = {"unlabeled_domains": ["MRBrainS"], "unlabeled_statistics": True}
OF_BUNDLES = {
    BRATS: {"learning_rate_decay": 0.0, "critic_start": 1},
    SKIN: {**SMALL_SKIN, "learning_rate_decay": 1.0, "critic_start": 1},
    BRAIN: {**SMALL_BRAIN_TRAINING, **ADABN, "gain_and_offset": False, "learning_rate_decay": 0.0},  # with a warm-up
}


@pytest.mark.parametrize(("bundle", "data"), [(BRATS, "phantoms"), (SKIN, "photographs"), (BRAIN, "brains")])
def test_a_resumed_run_ends_with_the_same_averages(bundle, data, request, tmp_path):
    settings = {"dataset_dir": str(request.getfixturevalue(data)), "ema_decay": 0.99}
    # what depends on the number of epochs: learning rates, the epoch of the critics, the last validation
    settings |= {**OF_BUNDLES[bundle], "val_interval": 1}
    settings.pop("epochs", None)
    run_workflow(bundle, "training", output_dir=str(tmp_path / "whole"), epochs=4, **settings)
    for epochs in (2, 4):
        run_workflow(
            bundle, "training", output_dir=str(tmp_path / "parts"), epochs=epochs, resume=epochs == 4, **settings
        )
    whole, parts = (load(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert whole["averaged"]["updates"] == parts["averaged"]["updates"] > 0
    for of in ("network", "discriminator" if bundle == BRAIN else "critic"):
        assert all(torch.equal(weight, parts[of][name]) for name, weight in whole[of].items())
    averaged = parts["averaged"]["network"]
    assert all(torch.equal(weight, averaged[name]) for name, weight in whole["averaged"]["network"].items())
    assert any(not torch.equal(weight, averaged[name]) for name, weight in parts["network"].items())
    best = load(tmp_path / "whole" / "model.pt")
    assert best.keys() == averaged.keys()
    assert all(not torch.equal(best[name], weight) for name, weight in whole["network"].items() if "running" in name)


def test_a_decay_of_one_is_refused_before_a_run_writes_anything(phantoms, tmp_path):
    workflow = make_workflow(
        BRATS, "training", dataset_dir=str(phantoms), output_dir=str(tmp_path / "run"), ema_decay=1.0
    )
    with pytest.raises(RuntimeError) as caught:
        workflow.initialize()
    (error,) = [error for error in causes(caught.value) if isinstance(error, ConfigError)]
    assert "--ema_decay 1.0: expected a finite number of at least 0 and below 1" in str(error)
    assert not (tmp_path / "run").exists()
