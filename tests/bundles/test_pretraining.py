# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainings without labels, and trainings that begin with their weights."""

from __future__ import annotations

import json
import logging

import pandas as pd
import pytest
import torch

from segan_monai.cli.train import _next_commands
from segan_monai.errors import ConfigError
from segan_monai.trained import read_trained_settings
from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, SKIN, SMALL_SKIN, make_workflow, run_workflow

pytestmark = pytest.mark.usefixtures("process_as_before")
OVERLAY = "pretraining.json"
SMALLEST = {"num_levels": 2, "neighbours": 1}


def test_a_training_begins_with_all_pretrained_weights_but_the_last_layer(hippocampi, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "pretrained"
    settings = {**SMALLEST, "dataset_dir": str(hippocampi)}
    run_workflow(HIPPOCAMPUS, "training", OVERLAY, **settings, output_dir=str(folder), epochs=1)
    run_workflow(HIPPOCAMPUS, "training", OVERLAY, **settings, output_dir=str(folder), epochs=2, resume=True)
    history = pd.read_csv(folder / "history.csv")
    losses = history[history["name"] == "training/reconstruction"]
    assert losses["epoch"].tolist() == [1, 2]
    assert (losses["value"] > 0).all()
    assert f"begin a training with them, pass --initial_weights {folder}" in caplog.text
    assert _next_commands("hippocampus", "DATA", str(folder))[0].startswith(
        f"next:    segan-monai train hippocampus DATA --initial_weights {folder}"
    )

    settings |= {"output_dir": str(tmp_path / "run"), "initial_weights": str(folder)}
    run_workflow(HIPPOCAMPUS, "training", **settings)
    of_all = len(torch.load(folder / "model.pt", weights_only=True))
    assert f"initial weights: {of_all - 2} of the network's {of_all} from" in caplog.text
    with pytest.raises(ConfigError, match=r"is of a pre-training: .* segments nothing.*--initial_weights"):
        read_trained_settings(folder / "model.pt")


@pytest.mark.parametrize(("bundle", "on_device"), [(HIPPOCAMPUS, True), (HIPPOCAMPUS, False), (SKIN, False)])
def test_augmentation_takes_place_where_the_training_has_it(bundle, on_device, request, tmp_path):
    data = request.getfixturevalue("photographs" if bundle == SKIN else "hippocampi")
    settings = {**(SMALL_SKIN if bundle == SKIN else {**SMALLEST, "augment_on_device": on_device})}
    settings |= {"dataset_dir": str(data), "output_dir": str(tmp_path / "run")}
    workflow = make_workflow(bundle, "training", OVERLAY, **settings)
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")
    assert (trainer.augment is not None) == on_device


@pytest.mark.parametrize("bundle", [BRATS, HIPPOCAMPUS, SKIN])
def test_the_order_of_the_overlays_changes_nothing(bundle):
    files = [OVERLAY, str(BUNDLES / bundle / "configs" / "multi_gpu_train.json")]
    first, last = (make_workflow(bundle, "training", order).parser for order in (files, files[::-1]))
    for parser in (first, last):
        parser["_desc_"] = ""  # that of the later file
        parser["split"] = {"training": [{"image": "a", "label": "b"}, {"image": "c"}], "unlabeled": [{"image": "d"}]}
        parser.parse()
        cases = [{"image": name} for name in "acd"]
        assert parser.get_parsed_content("train#unlabeled_dataset#data") == cases
    assert first.config == last.config


def test_labels_are_never_read(hippocampi, tmp_path):
    """Label maps of training cases may even be damaged, and unlabelled images take part."""
    settings = {**SMALLEST, "dataset_dir": str(hippocampi), "output_dir": str(tmp_path / "run"), "check": False}
    split = tmp_path / "run" / "split.json"
    run_workflow(HIPPOCAMPUS, "training", OVERLAY, **settings, labeled_cases=1)
    parts = json.loads(split.read_text(encoding="utf-8"))
    for case in [*parts["training"], *parts["unlabeled"]]:
        (label,) = (hippocampi / "labelsTr").glob(f"{case}.nii*")
        label.write_bytes(b"no label map")
    run_workflow(HIPPOCAMPUS, "training", OVERLAY, **settings)
