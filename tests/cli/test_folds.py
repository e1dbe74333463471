# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pandas as pd
from typer.testing import CliRunner

from segan_monai.bundles_by_name import BUNDLES
from segan_monai.cli.main import app
from segan_monai.reproduce import RunFailedError
from tests.folds.results import one_region, write_fold

DICE = {"A": (one_region(a=0.8, b=0.82), one_region(c=0.84, d=0.86)), "B": (one_region(a=0.9, b=0.93), None)}


def test_a_failed_fold_is_named_and_the_others_are_kept(tmp_path, monkeypatch):
    def run_fold(plan, row, seed, fold, save_maps):
        assert (plan.overrides, [file.name for file in plan.configs]) == ({"epochs": 1}, ["cpu.json"])
        dice = DICE[row][fold]
        if dice is None:
            raise RunFailedError("row 'B', seed 0: training ended with status 1: no memory.")
        return write_fold(tmp_path / "runs", row, fold, dice)

    monkeypatch.setattr("segan_monai.folds.run_fold", run_fold)
    (tmp_path / "data").mkdir()
    out = tmp_path / "out"
    command = ["folds", "hippocampus", str(tmp_path / "data"), "-o", str(out), "--folds", "0,1", "--no-region-rules"]
    command += ["--row", "A=axial_slices", "--row", "B=", "--config", "configs/cpu.json", "--set", "epochs=1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert "segan-monai: error: fold 1: row 'B', seed 0: training ended with status 1: no memory." in done.output
    refused = CliRunner().invoke(app, [*command, "--folds", "0,7"])
    assert "--folds: there is no fold 7. Expected folds from 0 to 4; --set folds=N" in str(refused.exception)
    text = (out / "folds.md").read_text(encoding="utf-8")
    assert "| A | tumour | 4 | 0.8300 | 0.8300 | 0.8000 (a) | 1.00 | none |" in text
    assert "| B | tumour | 2 | 0.9150 |" in text
    assert "**Chosen: A.** A is the only configuration with results of all folds" in text
    assert "B, seed 0: 2 of 4 cases were in no evaluated fold." in text
    assert "**B failed**: fold 1: row 'B', seed 0: training ended with status 1: no memory. It is no candidate." in text
    scores = pd.read_csv(out / "folds.csv")
    assert scores[["row", "fold", "case", "dice"]].iloc[-1].to_list() == ["B", 0, "b", 0.93]
    record = json.loads((out / "folds.json").read_text(encoding="utf-8"))
    weights = [str(tmp_path / "runs" / "A" / f"0_{fold}" / "training") for fold in (0, 1)]
    assert (record["winner"], record["weights"]) == ("A", {"A": weights})
    bundle = BUNDLES / "hippocampus_mri_segan_segmentation"
    listed = ",".join(f"'{folder}'" for folder in weights)
    assert record["predict"] == [f'segan-monai predict {bundle} -i IMAGES -o OUT --weights "[{listed}]"']
    assert record["rows"]["A"]["overlays"] == ["configs/axial_slices.json"]
    assert record["rows"]["B"]["runs"] == [{"seed": 0, "fold": 0, "folder": str(tmp_path / "runs/B/0_0/oof")}]


def test_nothing_is_chosen_without_all_folds(tmp_path, monkeypatch):
    def run_fold(plan, row, seed, fold, save_maps):
        if fold:
            raise RunFailedError("it failed")
        return write_fold(tmp_path / "runs", row, fold, one_region(a=0.8, b=0.9))

    monkeypatch.setattr("segan_monai.folds.run_fold", run_fold)
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "folds.json").write_text("{}", encoding="utf-8")  # of an earlier choice
    command = [
        "folds",
        "hippocampus",
        str(tmp_path / "data"),
        "-o",
        str(tmp_path / "out"),
        "--folds",
        "0,1",
        "--no-region-rules",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "**No choice**: no configuration has results of all folds." in done.output
    assert not (tmp_path / "out" / "folds.json").exists()


def test_steps_that_the_bundle_has_no_keys_for_are_named(tmp_path, monkeypatch):
    def run_fold(plan, row, seed, fold, save_maps):
        assert not save_maps
        return write_fold(tmp_path / "runs", row, fold, DICE["A"][fold])

    monkeypatch.setattr("segan_monai.folds.run_fold", run_fold)
    own = tmp_path / "own"
    shutil.copytree(BUNDLES / "hippocampus_mri_segan_segmentation" / "configs", own / "configs")
    config = json.loads((own / "configs" / "evaluate.json").read_text(encoding="utf-8"))
    (tmp_path / "data").mkdir()
    common = ["folds", str(own), str(tmp_path / "data"), "-o", str(tmp_path / "out"), "--folds", "0,1"]
    two_rows = ["--row", "A=axial_slices", "--row", "B="]
    rules = "No post-processing was chosen: own has no key"
    for missing, options, expected in (
        (["region_rules"], [], f"{rules} region_rules."),
        (["region_rules"], ["--no-region-rules"], None),
        (["save_probabilities"], ["--no-region-rules"], None),
        (["save_probabilities"], ["--no-region-rules", *two_rows], "Ensembles were not scored: own has no key"),
        (["region_rules", "save_probabilities"], [], f"{rules} save_probabilities and no key region_rules."),
    ):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        content = {key: value for key, value in config.items() if key not in missing}
        (own / "configs" / "evaluate.json").write_text(json.dumps(content), encoding="utf-8")
        done = CliRunner().invoke(app, [*common, *options])
        assert done.exit_code == 0, done.output
        text = (tmp_path / "out" / "folds.md").read_text(encoding="utf-8")
        assert ("has no key" in text) == (expected is not None)
        assert expected is None or f"\n\n{expected}" in text
