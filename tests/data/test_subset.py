# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from segan_monai.data import held_out, patches_of_split, split_cases
from segan_monai.errors import ConfigError, DataError

CASES = [{"case": f"{number:02}", "subject": f"{number:02}"} for number in range(30)]


@pytest.fixture
def split_file(tmp_path):
    split_cases(CASES, file=tmp_path / "split.json")  # ten folds
    return tmp_path / "split.json"


@pytest.mark.parametrize(("subset", "count"), [("validation", 3), ("training", 27), ("held_out", 4), ("all", 31)])
def test_held_out(split_file, subset, count):
    assert len(held_out([*CASES, {"case": "new", "subject": "new"}], split_file, subset)) == count


def test_held_out_without_split_file(tmp_path, caplog):
    assert held_out(CASES, tmp_path / "none.json") == CASES
    assert "none.json: taking all 30 cases, which may have been trained on" in caplog.text


def test_further_cases_of_trained_patients_are_not_held_out(tmp_path, caplog):
    """Of 30 slices of ten patients, ``max_cases`` uses eight: the others of a trained patient are of no new patient."""
    slices = [{"case": f"p{patient}-{n}", "subject": f"p{patient}"} for patient in range(10) for n in range(3)]
    split = split_cases(slices, folds=2, file=tmp_path / "split.json", max_cases=8)
    trained = {case["subject"] for case in split["training"]}
    assert 1 < len(trained) < 8, "what follows would say nothing"
    expected = [case for case in slices if case["subject"] not in trained]
    of_trained = 3 * len(trained) - len(split["training"])
    later = {"case": "p0 again", "subject": min(trained)}
    assert held_out([*slices, later], tmp_path / "split.json") == expected
    message = f"{of_trained + 1} cases are not held out, although none of them was trained on: other cases of their"
    assert message in caplog.text
    assert held_out([*slices, later], [str(tmp_path / "split.json")] * 2) == expected
    assert held_out([later, slices[-1]], tmp_path / "split.json", "all") == [later, slices[-1]]


def test_a_patient_is_known_by_the_record_where_its_cases_are_elsewhere(tmp_path):
    split_cases(
        [{"case": f"{name}-1", "subject": name} for name in "abcd"], folds=2, file=tmp_path / "split.json", seed=1
    )
    validated = {name[0] for name in json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))["validation"]}
    others = [{"case": f"{name}-2", "subject": name} for name in "abcde"]
    assert {case["subject"] for case in held_out(others, tmp_path / "split.json")} == {*validated, "e"}


def test_a_warning_of_test_cases_that_were_trained_on(tmp_path, caplog):
    """Of the test cases, ``a-2`` is of a patient in training, ``b-2`` of one in validation; ``c`` was trained on."""
    file = tmp_path / "split.json"
    training = [{"case": name, "subject": name[0], "section": "training"} for name in ("a-1", "c")]
    validation = {"case": "b-1", "subject": "b", "section": "validation"}
    test = [{"case": name, "subject": name[0], "section": "test"} for name in ("a-2", "b-2", "c", "d")]
    split_cases([*training, validation], file=file)
    assert held_out([validation, *test], file, "test") == test
    assert "trained on 2 of 4 cases or on other cases of their patients, such as a-2. Their results" in caplog.text
    caplog.clear()
    assert held_out([validation, test[1], test[3]], file, "test") == [test[1], test[3]]
    assert held_out(test, tmp_path / "none.json", "test") == test
    assert not caplog.text


def test_held_out_errors(split_file, tmp_path):
    with pytest.raises(ConfigError, match="subset='unseen': choose held_out"):
        held_out(CASES, split_file, "unseen")
    with pytest.raises(DataError, match="no case is left in subset 'test' of 30 cases"):
        held_out(CASES, split_file, "test")
    with pytest.raises(DataError, match="no split file"):
        held_out(CASES, tmp_path / "none.json", "training")
    with pytest.raises(DataError, match="no case is left in subset 'validation' of 1 cases"):
        held_out([{"case": "other", "subject": "other"}], split_file, "validation")
    with pytest.raises(ConfigError, match="has no record of the patches of a training by patch"):
        patches_of_split(split_file, "held_out", "patch")
