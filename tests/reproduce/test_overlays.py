# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Overlays of a run: the keys that a config has a place for, and their content in its record."""

from __future__ import annotations

import json
from dataclasses import replace
from subprocess import CompletedProcess

import pytest

from segan_monai.bundles_by_name import CONFIGS
from segan_monai.check.config_files import read_config_file
from segan_monai.errors import ConfigError
from segan_monai.reproduce import Plan, check_overrides, load_tables, run_row
from segan_monai.reproduce.overlays import changed_keys, contents_of
from segan_monai.reproduce.plan import config_files_of, overlays_of
from segan_monai.reproduce.runs import _claim as claim_run
from segan_monai.reproduce.runs import _record, evaluate_row
from segan_monai.sweep import Space, Sweep
from segan_monai.sweep.search import _claim


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "own.json").write_text("{}", encoding="utf-8")
    return Plan(load_tables("segan-vs-unet")[0], tmp_path, tmp_path / "out", configs=[tmp_path / "own.json"])


def write(plan, **content):
    plan.configs[0].write_text(json.dumps(content), encoding="utf-8")


def test_keys_of_the_trainer_are_no_part_of_the_evaluation(plan):
    write(plan, **{"+train#handlers": ["@interval"], "interval": 5, "device": "cpu"})
    own, output_dir = plan.configs[0], plan.output_dir / "run" / "evaluation"
    assert overlays_of(plan, "U-Net", "training", output_dir)[0] == (own, None)
    reduced = output_dir.with_name("evaluation_overlay_0.json")
    assert overlays_of(plan, "U-Net", "evaluating", output_dir)[0] == (reduced, {"device": "cpu"})
    assert config_files_of(plan, "U-Net", "evaluating", output_dir)[1] == str(reduced)


@pytest.mark.parametrize(
    ("own", "overrides", "message"),
    [
        ({"+trian#handlers": []}, {}, r"own\.json has the key '\+trian#handlers', .* Did you mean \+train"),
        ({}, {"train#trianer#amp": True}, r"--set has .* 'train#trianer#amp', .* Did you mean train#trainer"),
    ],
)
def test_a_key_without_a_place_is_an_error_before_the_training(plan, own, overrides, message):
    write(plan, **own)
    with pytest.raises(ConfigError, match=message):
        run_row(replace(plan, overrides=overrides), "U-Net", 0)
    assert not plan.output_dir.exists()


def test_a_run_reads_its_overlays_once(plan, monkeypatch):
    write(plan, **{"+train#handlers": [], "device": "cpu"})
    commands, reads = [], []

    def run(command, **options):
        commands.append(command[-1])
        return CompletedProcess(command, 0)

    def read(file):
        reads.append(file)
        return read_config_file(file)

    monkeypatch.setattr("segan_monai.reproduce.runs.subprocess.run", run)
    monkeypatch.setattr("segan_monai.reproduce.plan.read_config_file", read)
    folder = plan.output_dir / "run"
    evaluate_row(plan, "U-Net", folder / "training", folder / "evaluation", {"seed": 0})
    assert reads.count(plan.configs[0]) == 1
    assert commands == [str(config_files_of(plan, "U-Net", "evaluating", folder / "evaluation"))]
    reduced = json.loads((folder / "evaluation_overlay_0.json").read_text(encoding="utf-8"))
    assert reduced == {"device": "cpu"}


def test_the_record_has_what_overlays_say(tmp_path):
    file = tmp_path / "own.json"
    file.write_text('{"_desc_": "mine", "epochs": 2, "regions": {"_desc_": "x", "a": [1]}}', encoding="utf-8")
    before = contents_of({"own.json": file})
    assert before == {"own.json": {"epochs": 2, "regions": {"a": [1]}}}
    file.write_text('{"_desc_": "ours", "epochs": 2, "regions": {"a": [2]}, "amp": null}', encoding="utf-8")
    now = contents_of({"own.json": file})
    assert changed_keys(before, now) == ["amp in own.json", "regions in own.json"]
    assert changed_keys({}, before) == changed_keys(before, {}) == ["own.json"]


def test_comments_may_change_in_all_depths(tmp_path):
    file = tmp_path / "own.json"
    content = {"_note": 1, "train": [{"_desc_": "x", "_desc_2": "y", "_target_": "Adam", "_disabled_": True}]}
    file.write_text(json.dumps(content), encoding="utf-8")
    kept = {"_target_": "Adam", "_disabled_": True}
    assert contents_of({"own.json": file}) == {"own.json": {"train": [kept]}}


def test_a_record_has_the_content_of_the_users_files_alone(plan, tmp_path):
    """A new version of this package keeps the results of an earlier one."""
    packaged = replace(plan, configs=[*plan.configs, CONFIGS / "cpu.json"])
    record = _record(packaged, "SegAN", {})
    own = str(plan.configs[0])
    assert record["contents"] == {own: {}}
    assert record["overlays"] == [own, "configs/cpu.json", "configs/experiments/segan_components/s3_3c.json"]
    bundle = tmp_path / "mine"
    (bundle / "configs").mkdir(parents=True)
    for name in ("train.json", "evaluate.json"):
        (bundle / "configs" / name).write_text("{}", encoding="utf-8")
    record = _record(replace(plan, table=replace(plan.table, bundle=str(bundle))), "SegAN", {})
    assert [*record["contents"]] == [own, *(str(bundle / "configs" / name) for name in ("train.json", "evaluate.json"))]


def test_a_sweep_is_resumed_after_its_overlays_moved(tmp_path):
    files = [tmp_path / name / "own.json" for name in ("a", "b", "c")]
    for file, epochs in zip(files, (2, 2, 3), strict=True):
        file.parent.mkdir()
        file.write_text(json.dumps({"epochs": epochs}), encoding="utf-8")
    space = Space({"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}})
    sweep = Sweep(tmp_path / "bundle", tmp_path, tmp_path / "out", space, 2, overlays=(files[0],))
    _claim(tmp_path / "sweep.json", sweep.record())
    _claim(tmp_path / "sweep.json", replace(sweep, overlays=(files[1],)).record())
    with pytest.raises(ConfigError, match=r"\(contents, epochs in own\.json differ\)"):
        _claim(tmp_path / "sweep.json", replace(sweep, overlays=(files[2],)).record())
    both = replace(sweep, overlays=(files[0], CONFIGS / "cpu.json", files[2])).record()["contents"]
    assert both == {"own.json": {"epochs": 2}, "own.json (1)": {"epochs": 3}}


def test_a_sweep_refuses_an_edited_overlay_too(tmp_path):
    file = tmp_path / "sweep.json"
    record = {"overlays": ["own.json"], "contents": {"own.json": {"epochs": 2}}}
    _claim(file, record)
    _claim(file, record)
    with pytest.raises(ConfigError, match=r"other settings \(contents, epochs in own\.json differ\)"):
        _claim(file, {**record, "contents": {"own.json": {"epochs": 3}}})


@pytest.mark.parametrize("claim", [_claim, lambda file, record: claim_run(file.parent, record)])
def test_a_record_of_an_earlier_version_stays_as_it_is(tmp_path, claim):
    """Which overlays it used is not known, so today's are not recorded as its own."""
    file = tmp_path / "settings.json"
    earlier = {"overlays": ["own.json"], "settings": {"epochs": 3}}
    file.write_text(json.dumps(earlier), encoding="utf-8")
    for epochs in (1, 2):
        claim(file, {**earlier, "contents": {"own.json": {"epochs": epochs}}})
    assert json.loads(file.read_text(encoding="utf-8")) == earlier
    with pytest.raises(ConfigError, match=r"holds a .* with other settings \(.* differ\)"):
        claim(file, {**earlier, "settings": {"epochs": 4}, "contents": {}})


def test_a_setting_that_reaches_no_row_is_refused(tmp_path):
    (table,) = load_tables("semi-supervised")
    refused = Plan(table, tmp_path, tmp_path, overrides={"cases_per_epoch": 3})
    with pytest.raises(ConfigError, match=r"--set cases_per_epoch has no effect.*semi_supervised.*\(few_labels.json\)"):
        check_overrides(refused)
    check_overrides(Plan(table, tmp_path, tmp_path, overrides={"unpaired_weight": 0.5, "epochs": 3}))


def test_a_key_of_a_config_that_reaches_no_row_is_named(tmp_path, caplog):
    (table,) = load_tables("semi-supervised")
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"_desc_": "mine", "cases_per_epoch": 240, "ema_decay": 0.99, "epochs": 3}))
    check_overrides(Plan(table, tmp_path, tmp_path, configs=[own]))
    assert [record.getMessage() for record in caplog.records] == [
        "--config: cases_per_epoch has no effect: each row of 'semi_supervised' sets this key itself (few_labels.json)."
    ]


@pytest.mark.parametrize("name", ["glioma", "skin"])
def test_schedules_for_few_labels_reach_every_row(name, tmp_path, caplog):
    (table,) = load_tables("semi-supervised")
    check_overrides(
        Plan(table, tmp_path, tmp_path, configs=[next(iter(table.rows["unpaired"])).with_name(f"{name}.json")])
    )
    assert not caplog.records
