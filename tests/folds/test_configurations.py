# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segan_monai.bundles_by_name import BUNDLES, CONFIGS
from segan_monai.errors import ConfigError
from segan_monai.folds import configurations, folds_of
from segan_monai.reproduce import Plan, parse_overrides


def test_rows_are_overlays_of_a_bundle():
    table = configurations("hippocampus", ["2-D=axial_slices,cpu.json", "2.5-D="])
    assert table.bundle == str(BUNDLES / "hippocampus_mri_segan_segmentation")
    assert table.rows == {"2-D": [CONFIGS / "axial_slices.json", CONFIGS / "cpu.json"], "2.5-D": []}
    assert configurations("hippocampus", []).rows == {"bundle": []}


def test_a_bundle_of_ones_own(tmp_path):
    own = tmp_path / "own"
    shutil.copytree(BUNDLES / "hippocampus_mri_segan_segmentation" / "configs", own / "configs")
    (own / "configs" / "mine.json").write_text("{}", encoding="utf-8")
    table = configurations(str(own), ["mine=mine"])
    assert (table.bundle, table.rows) == (str(own), {"mine": [own / "configs" / "mine.json"]})
    settings = json.loads((own / "configs" / "train.json").read_text(encoding="utf-8"))
    del settings["fold"]
    (own / "configs" / "train.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"own cannot be cross-validated: its train\.json has no keys folds and fold"):
        configurations(str(own), [])
    (own / "configs" / "evaluate.json").unlink()
    with pytest.raises(ConfigError, match=r"own cannot be cross-validated: it has no configs/evaluate\.json"):
        configurations(str(own), [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["axial_slices"], "cannot parse the row 'axial_slices'; expected NAME=OVERLAY"),
        (["=cpu"], "cannot parse the row '=cpu'"),
        (["a/b="], "cannot use the row name 'a/b'"),
        (["a=", "a=cpu"], "two rows are named 'a'"),
        (["a=cpu", "b=cpu.json"], "the rows 'a' and 'b' have the same overlays"),
        (["a=no_such"], "there is no config no_such"),
    ],
)
def test_rows_that_cannot_be_read(rows, message):
    with pytest.raises(ConfigError, match=message):
        configurations("hippocampus", rows)


def plan_of(rows, configs=(), settings=()):
    table = configurations("hippocampus", rows)
    return Plan(table, Path("data"), Path("out"), None, list(configs), parse_overrides(settings, table))


@pytest.fixture
def overlay(tmp_path):
    def write(name, **content):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
        return tmp_path / name

    return write


def test_numbers_of_folds(overlay):
    """The bundle has five; a setting wins over an overlay for all rows, and the overlay of a row over both."""
    four = overlay("four.json", folds=4)
    assert folds_of(plan_of([])) == [0, 1, 2, 3, 4]
    assert folds_of(plan_of([], [four])) == [0, 1, 2, 3]
    assert folds_of(plan_of([], [four], ["folds=3"])) == [0, 1, 2]
    assert folds_of(plan_of([f"mine={overlay('two.json', folds=2)}"], [four], ["folds=3"])) == [0, 1]


def test_rows_with_different_numbers_of_folds(overlay):
    with pytest.raises(ConfigError, match=r"different numbers of folds \(5 in 'a', 2 in 'b'\).*Remove the key 'folds'"):
        folds_of(plan_of(["a=", f"b={overlay('two.json', folds=2)}"]))


def test_a_number_of_folds_that_is_none():
    with pytest.raises(ConfigError, match="folds is 1; expected a number of at least 2"):
        folds_of(plan_of([], settings=["folds=1"]))
