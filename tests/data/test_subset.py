# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

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
