# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from segan_monai.folds import (
    choose_row,
    configurations,
    describe_rules,
    ensemble_name,
    format_result,
    out_of_fold_scores,
    record_of_choice,
)
from segan_monai.folds.report import predict_commands
from segan_monai.reproduce import Plan
from tests.folds.results import one_region, write_fold


@pytest.fixture
def plan(tmp_path) -> Plan:
    return Plan(configurations("hippocampus", ["2-D=axial_slices", "2.5-D="]), Path("Task04"), tmp_path)


def test_commands_of_an_ensemble_of_configurations(plan):
    rules = {"tumour": {"smallest_voxels": 10}}
    *members, together = predict_commands(plan, {"2-D": ["/a b/0", "/a b/1"], "2.5-D": ["/c/0"]}, rules)
    words = [shlex.split(command) for command in members]
    assert [command[command.index("--weights") + 1] for command in words] == ["['/a b/0','/a b/1']", "['/c/0']"]
    assert [command[command.index("-o") + 1] for command in words] == ["OUT/2-D", "OUT/2.5-D"]
    assert all("--save_probabilities" in command for command in words)
    command = shlex.split(together)
    assert command[:6] == ["segan-monai", "ensemble", "OUT/2-D", "OUT/2.5-D", "-o", "OUT/ensemble"]
    assert json.loads(command[command.index("--region_rules") + 1]) == rules


def test_paths_with_signs_of_the_shell_are_quoted(plan):
    (command,) = predict_commands(plan, {"2-D": ['/a$b"/0']}, {})
    assert shlex.split(command)[-1] == "['/a$b\"/0']"


def test_the_record_names_the_weights_of_the_members(tmp_path, plan):
    low, high = one_region(a=0.5, b=0.6), one_region(a=0.7, b=0.9)
    members = [write_fold(tmp_path, row, 0, low) for row in ("2-D", "2.5-D")]
    name = ensemble_name([member.row for member in members])
    both = replace(write_fold(tmp_path, name, 0, high), members=tuple(members))
    runs = [*members, both]
    scores = out_of_fold_scores(runs)
    choice = choose_row(scores, ["2-D", "2.5-D", name])
    assert choice.winner == name  # better by .2 and .3 in both patients
    record = record_of_choice(plan, runs, scores, choice, {"rules": {}})
    assert record["weights"] == {member.row: [str(member.training)] for member in members}
    assert len(record["predict"]) == 3
    assert record["rows"][name]["overlays"] == []
    assert record["rows"][name]["regions"]["tumour"]["dice"] == pytest.approx(0.8)


def test_parts_are_summarized_over_all_folds(tmp_path, plan):
    runs = [write_fold(tmp_path, "2-D", 0, {"a": {"head": 0.9, "tail": 0.8}})]
    table = pd.read_csv(runs[0].evaluation / "metrics.csv")
    table = table.assign(union_dice=0.95, wrong_voxels=[6, 4], confused_voxels=[2, 2])
    table.to_csv(runs[0].evaluation / "metrics.csv", index=False)
    scores = out_of_fold_scores(runs)
    text = format_result(plan, scores, choose_row(scores, ["2-D"]), [], {})
    # of 8 wrong voxels, 2 are in the other part
    assert "2-D: All regions together (head, tail): Dice 0.950. Of the wrong voxels, 75% are background in one" in text


def test_rules_in_words():
    gains = {"a": {"dice_before": 0.8, "dice_after": 0.81}, "b": {"dice_before": 0.7, "dice_after": 0.7}}
    chosen = {"rules": {"a": {"smallest_voxels": 30, "fill_holes": True}}, "regions": gains, "cases": ["x", "y"]}
    assert describe_rules(chosen) == (
        "Post-processing of the chosen configuration, by the Dice of all 2 cases: a: smallest_voxels 30, fill_holes 1 "
        "(Dice 0.8000 to 0.8100); b: no rule helps. Each region is judged by itself, before all are merged into one "
        "label map. The tables are of label maps without it."
    )
