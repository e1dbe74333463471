# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from segan_monai.errors import ConfigError
from segan_monai.reproduce import Plan, RunFailedError, check_rows, find_overlay, load_tables, parse_overrides, run_row
from segan_monai.reproduce.runs import recorded_name

pytestmark = pytest.mark.slow

TABLES = sorted(file.parent.name for file in Path("configs/experiments").glob("*/table.json"))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_whole(name):
    (table,) = load_tables(name)
    assert table.rows
    assert table.metrics
    assert set(table.published) == set(table.rows)


def test_tables_that_are_asked_for():
    assert {"segan_components", "segan_vs_unet"} <= set(TABLES)
    assert list(load_tables("segan-vs-unet")[0].rows) == ["SegAN", "U-Net", "U-Net + Dice", "Dice, no critic"]


def test_an_unknown_table_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no table 'segan-unet'.*Known tables: .*segan-components"):
        load_tables("segan-unet")


def test_an_unknown_bundle_is_named():
    with pytest.raises(ConfigError, match=r"bundles/no_such_bundle/configs/train.json does not exist, but the table"):
        load_tables("segan-components", bundle="no_such_bundle")


def test_rows_are_chosen_by_name():
    tables = load_tables("segan-vs-unet")
    assert check_rows(tables, []) == [list(tables[0].rows)]
    assert check_rows(tables, ["U-Net"]) == [["U-Net"]]
    with pytest.raises(ConfigError, match=r"no row 'Unet' in 'segan_vs_unet'; there are: SegAN, U-Net"):
        check_rows(tables, ["Unet"])


def test_all_tables_of_a_paper_share_their_common_rows():
    tables = load_tables("lsnet")
    assert [table.source for table in tables] == [f"L-SNet paper, Table {number}" for number in (1, 2, 3, 4)]
    methods, components, first_stage, decay = (table.rows for table in tables)
    assert methods["U-Net"] == components["S-Net + loss"]
    assert methods["Coarse-to-fine U-Net"] == first_stage["U-Net"]
    assert components["S-Net + loss + L-Net"] == first_stage["L-Net"]
    assert methods["L-SNet (U-Net)"] == components["S-Net + loss + L-Net + RR"] == decay["decay 0.1"]
    folders = {"+".join(file.stem for file in files) for table in tables for files in table.rows.values()}
    assert len(folders) == len({tuple(files) for table in tables for files in table.rows.values()}) == 12
    assert check_rows(tables, ["decay 1"]) == [[], [], [], ["decay 1"]]


def test_overrides_are_literals_or_text():
    (table,) = load_tables("segan-vs-unet")
    texts = ["epochs=3", "amp=false", "regions={'lesion': [1]}", 'modalities=["FLAIR"]', "output_dir=a=b"]
    assert parse_overrides(texts, table) == {
        "epochs": 3,
        "amp": False,
        "regions": {"lesion": [1]},
        "modalities": ["FLAIR"],
        "output_dir": "a=b",
    }
    with pytest.raises(ConfigError, match=r"unknown key 'epoch'.*Did you mean epochs"):
        parse_overrides(["epoch=3"], table)
    with pytest.raises(ConfigError, match="cannot parse the setting 'epochs'; expected KEY=VALUE"):
        parse_overrides(["epochs"], table)


@pytest.fixture
def plan(phantoms, tmp_path) -> Plan:
    small = {
        "base_channels": 4,
        "slice_size": [32, 32],
        "epochs": 2,
        "batch_size": 4,
        "slices_per_volume": 2,
        "folds": 2,
        "device": "cpu",
        "supervised_weight": 0.5,
    }
    data = tmp_path / "patients #2"  # runs get the folders' names through configs
    data.symlink_to(phantoms)
    return Plan(load_tables("segan-vs-unet")[0], data, tmp_path / "out #1", overrides=small)


def test_a_row_is_trained_evaluated_and_kept(plan):
    result = run_row(plan, "U-Net", 1)
    assert result["row"] == "U-Net"
    assert (result["seed"], result["epochs"], result["training_cases"]) == (1, 2, 2)
    assert list(result["regions"]) == ["whole_tumour", "tumour_core", "enhancing_tumour"]
    assert result["regions"]["whole_tumour"]["cases"] == 2
    assert result["train_seconds"] > 0
    assert result["peak_memory_mib"] > 50
    # base 4, 4 levels, 3 inputs, 4 classes; the critic has no part in it
    assert list(result["parameters"]) == ["network"]
    model = plan.output_dir / "unet" / "seed_1" / "training" / "model.pt"
    written = model.stat().st_mtime_ns
    assert run_row(plan, "U-Net", 1) == result
    assert model.stat().st_mtime_ns == written
    merged = json.loads((model.parent / "run.json").read_text(encoding="utf-8"))["config"]
    assert merged["supervised_weight"] == 1.0  # the row's own, not that of all rows

    # a training that was interrupted goes on from its last epoch
    (model.parent / "trained.txt").unlink()
    shutil.rmtree(model.parent.parent / "evaluation")
    again = run_row(plan, "U-Net", 1)
    assert again["regions"] == result["regions"]
    assert "resumed from" in (model.parent / "log.txt").read_text(encoding="utf-8")

    with pytest.raises(ConfigError, match=r"seed_1 holds a run with other settings \(epochs differ\)"):
        run_row(replace(plan, overrides={**plan.overrides, "epochs": 5}), "U-Net", 1)


def test_equal_time_sets_the_epochs(plan):
    overrides = {key: value for key, value in plan.overrides.items() if key != "epochs"}
    run = run_row(replace(plan, overrides=overrides, train_seconds=1.0), "SegAN", 0)
    found = json.loads((plan.output_dir / "s3_3c" / "epochs.json").read_text(encoding="utf-8"))
    assert found["epochs"] == max(1, round(1.0 / found["seconds_an_epoch"]))
    assert run["epochs"] == found["epochs"]
    assert set(run["parameters"]) == {"network", "critic"}


def test_a_run_that_fails_says_why_and_where(plan):
    broken = replace(plan, overrides={**plan.overrides, "folds": 99})
    with pytest.raises(
        RunFailedError, match=r"row 'SegAN', seed 0: training ended with status 1: error: .*99.*training.log"
    ):
        run_row(broken, "SegAN", 0)


def test_tables_and_overlays_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (table,) = load_tables("segan-vs-unet")
    assert all(file.is_file() for files in table.rows.values() for file in files)
    assert recorded_name(table.rows["SegAN"][0]) == "configs/experiments/segan_components/s3_3c.json"
    assert recorded_name(find_overlay(Path("configs/cpu.json"))) == "configs/cpu.json"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "cpu.json").write_text("{}", encoding="utf-8")
    assert find_overlay(Path("configs/cpu.json")) == Path("configs/cpu.json")  # the user's own comes first
    with pytest.raises(ConfigError, match=r"there is no config mine.json.*or one of configs/axial_slices.json"):
        find_overlay(Path("mine.json"))
