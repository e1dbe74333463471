# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Files of weights that a run loads."""

from __future__ import annotations

import pytest

from segan_monai.errors import ConfigError
from segan_monai.member_weights import split_files, weight_files


def test_files_and_folders_of_trainings(tmp_path):
    for name in ("run/model.pt", "models/fold0.pt", "models/split_fold0.json", "models/fold1.pt", "models/split.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    given = [tmp_path / "run", tmp_path / "models/fold0.pt", tmp_path / "models/fold1.pt"]
    assert weight_files(given, "unused") == [tmp_path / "run/model.pt", *given[1:]]
    assert split_files(given, "unused") == [
        str(tmp_path / name) for name in ("run/split.json", "models/split_fold0.json", "models/split.json")
    ]
    assert weight_files(str(tmp_path / "run"), "unused") == [tmp_path / "run/model.pt"]


def test_without_members_the_folder_of_the_weights_decides():
    assert [str(file) for file in weight_files(None, "a")] == ["a/model.pt"]
    assert split_files(None, "a") == "a/split.json"


def test_a_folder_of_folds_is_an_ensemble_unless_it_has_weights_of_its_own(tmp_path):
    for name in ("fold_1", "fold_0", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").touch()
        (tmp_path / name / "split.json").touch()
    folds = [tmp_path / "fold_0", tmp_path / "fold_1"]
    assert weight_files(None, tmp_path) == [folder / "model.pt" for folder in folds]
    assert split_files(None, tmp_path) == [str(folder / "split.json") for folder in folds]
    (tmp_path / "model.pt").touch()
    assert weight_files(None, tmp_path) == [tmp_path / "model.pt"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"--weights \[\]: expected one or more"),
        (["none"], r"--weights: none does not exist. Expected files of weights, or output folders"),
        (["."], r"--weights: \. has no model\.pt"),
    ],
)
def test_what_is_missing_is_named(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        weight_files(given, "unused")
