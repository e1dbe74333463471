# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainings of the hippocampus bundle that begin with the weights of another one."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch

from segan_monai.check.runs import check_command_line
from segan_monai.report.card import model_card
from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, SMALL_TRAINING, make_workflow, run_workflow

pytestmark = pytest.mark.usefixtures("process_as_before")
SMALLEST = {"num_levels": 2, "neighbours": 1}
SAID = "of subjects that initial_weights was trained on: their figures are too high"


@pytest.fixture
def trained(hippocampi, tmp_path):
    """Output folder of a training, and what another training needs to be of the same network."""
    settings = {**SMALLEST, "dataset_dir": str(hippocampi)}
    run_workflow(HIPPOCAMPUS, "training", output_dir=str(tmp_path / "run #1"), **settings)
    return tmp_path / "run #1", settings


def weights_of(folder):
    return torch.load(folder / "model.pt", weights_only=True)


def holds(network, weights):
    return all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_the_network_begins_with_the_weights_and_a_resumed_run_with_its_own(trained, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first, settings = trained
    settings |= {"output_dir": str(tmp_path / "second"), "initial_weights": str(first)}
    workflow = make_workflow(HIPPOCAMPUS, "training", **settings)
    workflow.initialize()
    assert holds(workflow.parser.get_parsed_content("network"), weights_of(first))
    assert SAID not in caplog.text  # the same fold
    assert "trained with other settings" not in caplog.text
    workflow.run()
    workflow.finalize()
    assert "run #1, else random, seed 0 |" in model_card(BUNDLES / HIPPOCAMPUS, tmp_path / "second")

    shutil.move(first, tmp_path / "elsewhere")
    run_workflow(HIPPOCAMPUS, "training", **settings, resume=True, epochs=2)
    del settings["initial_weights"]
    run_workflow(HIPPOCAMPUS, "training", **settings, resume=True, epochs=3)
    assert "run #1, else random, seed 0 |" in model_card(BUNDLES / HIPPOCAMPUS, tmp_path / "second")


def checked(settings, rule="subjects", **others):
    """Warnings of the quick check, of one rule."""
    arguments = {"config_file": str(BUNDLES / HIPPOCAMPUS / "configs" / "train.json"), "run_id": "training"}
    report, _ = check_command_line({**arguments, **SMALL_TRAINING, **settings, **others}, quick=True)
    assert not report.errors
    return [finding.message for finding in report.warnings if finding.rule == rule]


def test_the_check_warns_of_held_out_cases_that_the_weights_have_seen(trained, tmp_path):
    first, settings = trained
    settings |= {"output_dir": str(tmp_path / "second"), "initial_weights": str(first)}
    assert checked(settings) == []
    (message,) = checked(settings, fold=1)
    assert message.startswith("2 of 2 cases that are judged, such as ")
    assert SAID in message
    split = json.loads((first / "split.json").read_text(encoding="utf-8"))
    split["digests"] = dict.fromkeys(split["digests"], "of other files")
    (first / "split.json").write_text(json.dumps(split), encoding="utf-8")
    assert checked(settings, fold=1) == [], "the same names in another data set"
    (first / "split.json").write_text("{", encoding="utf-8")
    (message,) = checked(settings)
    assert message.startswith("it is unknown which cases initial_weights was trained on: ")


def test_the_check_warns_of_other_settings_than_those_of_the_weights(trained, tmp_path):
    """The weights have the same shape whatever the window, so nothing else would show it."""
    first, settings = trained
    settings |= {"output_dir": str(tmp_path / "second"), "initial_weights": str(first)}
    assert checked(settings, "initial weights") == []
    other_regions = {"regions": {"front": [1], "back": [2]}}
    assert checked({**settings, **other_regions}, "initial weights") == []
    (message,) = checked(settings, "initial weights", intensity_window=[0, 200], slice_axis=2)
    assert "trained with other settings: intensity_window was None, and is [0, 200] here" in message
    assert "slice_axis was [2, 1, 0], and is 2 here. Set them alike" in message
    record = first / "model.json"
    record.write_text(record.read_text(encoding="utf-8").replace("{", "[", 1), encoding="utf-8")
    (message,) = checked(settings, "initial weights")
    assert message.startswith("their settings are unknown: ")
    record.unlink()
    assert checked(settings, "initial weights") == []


def test_unreadable_data_are_the_error_whatever_the_initial_weights(trained, tmp_path):
    """The regions of BraTS are detected from the cases, so the settings of the training need them, too."""
    (tmp_path / "no cases").mkdir()
    arguments = {"config_file": str(BUNDLES / BRATS / "configs" / "train.json"), "run_id": "training"}
    arguments |= {"dataset_dir": str(tmp_path / "no cases"), "output_dir": str(tmp_path / "second")}
    report, _ = check_command_line({**arguments, "initial_weights": str(trained[0])}, quick=True)
    assert [finding.rule for finding in report.errors] == ["data set"]


def test_the_check_of_a_resumed_run_does_not_need_the_file(trained, tmp_path):
    first, settings = trained
    deleted = {"output_dir": str(first), "resume": True, "initial_weights": str(tmp_path / "deleted.pt")}
    assert checked(settings, **deleted) == []
    assert checked(settings, "initial weights", **deleted, slice_axis=2) == []
