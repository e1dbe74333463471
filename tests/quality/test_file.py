# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from segan_monai.errors import ConfigError, DataError
from segan_monai.quality import fit_quality, has_quality_file, read_evaluations, read_quality, write_quality
from tests.quality.conftest import SETTINGS, evaluation, usual


@pytest.fixture
def file(fitted, tmp_path):
    write_quality(tmp_path / "quality.json", fit_quality(fitted[1]), fitted[0], {"cases": 100})
    return tmp_path / "quality.json"


def test_what_was_written_is_read(file, fitted):
    expected = fit_quality(fitted[1]).estimate(*usual())
    assert read_quality(file, SETTINGS).estimate(*usual()) == expected
    assert file.stat().st_size < 5e6


def test_one_network_beside_the_file_has_a_model(file, tmp_path):
    assert has_quality_file([tmp_path / "model.pt"])
    assert not has_quality_file([tmp_path / "other" / "model.pt"])
    assert not has_quality_file([tmp_path / "model.pt", tmp_path / "model_1.pt"])


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
        read_quality(file, SETTINGS)


def test_other_settings_are_refused(file):
    with pytest.raises(
        ConfigError, match=r"made with slice_axis \[2, 0\]; expected 2 as in this run\. Set --estimate_"
    ):
        read_quality(file, {**SETTINGS, "slice_axis": 2})


def test_a_missing_or_broken_file_says_what_to_do(tmp_path):
    with pytest.raises(
        ConfigError, match=r"does not exist, and estimate_quality is true\. Fit it with segan-monai fit"
    ):
        read_quality(tmp_path / "quality.json", SETTINGS)
    (tmp_path / "quality.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        read_quality(tmp_path / "quality.json", SETTINGS)


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
    other = evaluation(tmp_path / "1", settings={**SETTINGS, "members": 2}, first=50)
    with pytest.raises(ConfigError, match=r"made with members 2; expected 1 as in this run\. Evaluate all folds alike"):
        read_evaluations([first, other])
    with pytest.raises(
        ConfigError, match=r"the network was trained on 1 cases of .*2, such as c3, whose Dice is too high for a fit"
    ):
        read_evaluations([evaluation(tmp_path / "2", trained_on=["c3"])])
    with pytest.raises(DataError, match="there are 5 cases with signals and Dice; expected at least 20"):
        read_evaluations([evaluation(tmp_path / "3", count=5)])
    (first / "signals.json").unlink()
    with pytest.raises(DataError, match=r"0 has no signals\.json; expected the output folder of an evaluation"):
        read_evaluations([first])
