# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import pytest

from segan_monai.cli.quality import fit_quality as fit_command
from segan_monai.errors import ConfigError, DataError
from segan_monai.quality import (
    can_estimate_quality,
    fit_quality,
    has_quality_file,
    quality_file,
    read_evaluations,
    read_quality,
    write_quality,
    write_signals,
)
from tests.quality.conftest import SETTINGS, evaluation, usual


@pytest.fixture
def file(fitted, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    return write_quality(tmp_path / "model.pt", fit_quality(fitted[1]), fitted[0], {"cases": 100})


def test_what_was_written_is_read(file, fitted):
    expected = fit_quality(fitted[1]).estimate(*usual())
    assert read_quality([file.with_name("model.pt")], SETTINGS).estimate(*usual()) == expected
    assert file.name == "quality.json"
    assert file.stat().st_size < 5e6


def test_one_network_beside_the_file_has_a_model(file, tmp_path):
    assert has_quality_file([tmp_path / "model.pt"])
    assert not has_quality_file([tmp_path / "other" / "model.pt"])
    assert not has_quality_file([tmp_path / "model.pt", tmp_path / "model_1.pt"]), "it is for one of them"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, r"quality\.json has version 9; expected 1\. Fit it again"),
        ({"settings": None}, "has no 'settings'; expected an object"),
        ({"model": {"signals": []}}, r"has no complete 'model' \(KeyError: 'regions'\)"),
    ],
)
def test_a_damaged_file_is_refused(file, change, message):
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_quality([file.with_name("model.pt")], SETTINGS)


def test_other_settings_are_refused(file):
    with pytest.raises(
        ConfigError, match=r"made with slice_axis \[2, 0\]; expected 2 as in this run\. Set --estimate_"
    ):
        read_quality([file.with_name("model.pt")], {**SETTINGS, "slice_axis": 2})


def test_other_settings_omit_an_estimate_that_was_not_asked_for(file, caplog):
    weights = [file.with_name("model.pt")]
    assert can_estimate_quality(weights, SETTINGS)
    assert can_estimate_quality(weights, {**SETTINGS, "members": 2})
    assert not caplog.records
    assert not can_estimate_quality(weights, {**SETTINGS, "slice_axis": 2})
    assert "made with slice_axis [2, 0]; expected 2 as in this run. Results have no estimate" in caplog.text
    assert not can_estimate_quality([file.parent / "other" / "model.pt"], SETTINGS)


def test_a_file_of_an_earlier_version_lacks_a_setting(file):
    weights = [file.with_name("model.pt")]
    assert read_quality(weights, {**SETTINGS, "case_statistics": 0.0, "region_rules": None})
    with pytest.raises(ConfigError, match=r"made with case_statistics 0\.0; expected 0\.5 as in this run"):
        read_quality(weights, {**SETTINGS, "case_statistics": 0.5})


def test_other_weights_are_refused(file):
    file.with_name("model.pt").write_bytes(b"trained again")
    with pytest.raises(
        ConfigError, match=r"quality\.json was fitted for other weights than model\.pt; expected those of the fit \(SHA"
    ):
        read_quality([file.with_name("model.pt")], SETTINGS)


@pytest.fixture
def members(fitted, tmp_path):
    """Weights of an ensemble, each with the same model beside it."""
    files = [tmp_path / f"fold_{number}" / "model.pt" for number in range(2)]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(file.parent.name.encode())
        write_quality(file, fit_quality(fitted[1]), fitted[0], {"cases": 100})
    return files


def test_an_ensemble_has_the_model_that_lies_beside_each_member(members, fitted):
    assert has_quality_file(members)
    model = read_quality(members, {**SETTINGS, "members": 2})
    assert model.estimate(*usual()) == fit_quality(fitted[1]).estimate(*usual())
    with pytest.raises(ConfigError, match=r"fold_0.quality\.json was made with slice_axis \[2, 0\]; expected 2 as in"):
        read_quality(members, {**SETTINGS, "members": 2, "slice_axis": 2})


def test_a_member_without_a_model(members):
    quality_file(members[1]).unlink()
    assert not has_quality_file(members)
    found = (
        r"fold_1.quality\.json does not exist; .* with --output-dir for the folder of every member of the ensemble, or"
    )
    with pytest.raises(ConfigError, match=found):
        read_quality(members, SETTINGS)


def test_a_run_warns_of_a_member_without_a_model_if_another_has_one(members, caplog):
    assert can_estimate_quality(members, SETTINGS)
    quality_file(members[1]).unlink()
    assert not can_estimate_quality([members[1]], SETTINGS)
    assert not caplog.records, "nobody expects an estimate"
    assert not can_estimate_quality(members, SETTINGS)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"no quality.json in {members[1].parent}, but beside other members of the ensemble. Results have no estimate "
        "of their quality. Fit it with segan-monai fit-quality, with --output-dir for the folder of every member, see "
        "docs/quality.md."
    )
    quality_file(members[0]).unlink()
    assert not can_estimate_quality(members, SETTINGS)
    assert caplog.records == [record]


@pytest.mark.parametrize("change", ["model", "settings"])
def test_members_of_two_fits(members, fitted, change):
    settings = {**SETTINGS, "slice_axis": 2} if change == "settings" else SETTINGS
    write_quality(members[1], fit_quality(fitted[1][change == "model" :]), settings, {"cases": 100})
    assert not has_quality_file(members)
    found = r"fold_1.quality\.json has another model or other settings than .*fold_0.quality\.json; expected"
    with pytest.raises(ConfigError, match=found):
        read_quality(members, SETTINGS)


def test_a_member_that_was_trained_again_or_has_a_damaged_model_is_refused(members):
    members[1].write_bytes(b"trained again")
    assert has_quality_file(members), "the run stops, as that of one network"
    with pytest.raises(ConfigError, match=r"fold_1.quality\.json was fitted for other weights than model\.pt"):
        read_quality(members, SETTINGS)
    quality_file(members[1]).write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"fold_1.quality\.json is not valid JSON"):
        has_quality_file(members)


def test_numbers_that_are_no_json_are_not_written(fitted, tmp_path):
    with pytest.raises(ValueError, match="Out of range float values"):
        write_quality(tmp_path / "model.pt", fit_quality(fitted[1]), fitted[0], {"aurc": math.inf})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_signals(tmp_path, SETTINGS, {"a": {"image": {"T1": math.nan}}})
    assert not list(tmp_path.glob("*.json"))


def test_a_folder_without_weights_is_refused(tmp_path):
    folder = evaluation(tmp_path / "0")
    with pytest.raises(ConfigError, match=r"weights has no model\.pt; expected the folder of the weights that predict"):
        fit_command([folder], [tmp_path / "weights"])


def test_a_missing_or_broken_file_says_what_to_do(tmp_path):
    with pytest.raises(
        ConfigError, match=r"does not exist; an estimate of quality needs it\. Fit it with segan-monai fit-quality, or"
    ):
        read_quality([tmp_path / "model.pt"], SETTINGS)
    (tmp_path / "quality.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        read_quality([tmp_path / "model.pt"], SETTINGS)


def test_cases_of_a_patient_share_a_group(tmp_path):
    settings, cases = read_evaluations([evaluation(tmp_path / "0", count=24)])
    assert settings == SETTINGS
    groups = [case.group for case in cases]
    assert groups[::2] == groups[1::2]
    assert len(set(groups)) == 10


def test_evaluations_that_cannot_be_joined_are_refused(tmp_path):
    first = evaluation(tmp_path / "0")
    with pytest.raises(ConfigError, match="case c0 is in two evaluations"):
        read_evaluations([first, first])
    other = evaluation(tmp_path / "1", settings={**SETTINGS, "slice_axis": 2}, first=50)
    with pytest.raises(
        ConfigError,
        match=r"1.signals\.json was made with slice_axis 2; expected \[2, 0\] as in .*0\. Evaluate all",
    ):
        read_evaluations([first, other])
    (first / "signals.json").unlink()
    with pytest.raises(DataError, match=r"0 has no signals\.json; expected the output folder of an evaluation"):
        read_evaluations([first])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trained_on": ["c3"]},
            r"was trained on 1 cases of .*0 or on their patients, such as c3: their Dice is too h",
        ),
        ({"trained_on": None}, r"signals\.json has trained_on null: .* Evaluate again with --split_file"),
        ({"settings": {**SETTINGS, "members": 2}}, r"is of an ensemble of 2 networks; expected one network"),
        ({"count": 5}, r"there are 5 cases with signals and Dice in .*0; expected at least 20"),
        ({"per_patient": 6}, r"region lesion has a Dice in 50 cases of 9 patients in .*0; expected .* of 10 patients"),
    ],
)
def test_an_evaluation_that_serves_no_fit_is_refused(tmp_path, changes, message):
    folder = evaluation(tmp_path / "0", **changes)
    with pytest.raises((ConfigError, DataError), match=message):
        read_evaluations([folder])


def test_metrics_of_another_evaluation_are_refused(tmp_path):
    folder = evaluation(tmp_path / "0")
    content = json.loads((folder / "signals.json").read_text(encoding="utf-8"))
    write_signals(folder, content["settings"], content["cases"])
    assert len(read_evaluations([folder])[1]) == 50
    with (folder / "metrics.csv").open("a", encoding="utf-8") as file:
        file.write("other,lesion,0.5\n")
    with pytest.raises(DataError, match=r"metrics\.csv has changed since signals\.json was written beside it, .*"):
        read_evaluations([folder])


def test_results_that_are_all_alike_are_refused(tmp_path):
    """A network that never found the region: the fit would promise a Dice of 0, and flag nothing."""
    folder = evaluation(tmp_path / "0")
    lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    lines[1:] = [line.rpartition(",")[0] + ",0.0" for line in lines[1:]]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"region lesion has a Dice of 0 in all 50 cases in .*0, so .* expected diff"):
        read_evaluations([folder])


def test_a_region_with_few_labels_is_refused(tmp_path):
    folder = evaluation(tmp_path / "0")
    lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    lines[20:] = [line.rpartition(",")[0] + "," for line in lines[20:]]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"region lesion has a Dice in 19 cases of 10 patients in .*; expected at least 20"
    ):
        read_evaluations([folder])
