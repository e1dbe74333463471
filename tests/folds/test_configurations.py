# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pytest

from segan_monai.bundles_by_name import BUNDLES, CONFIGS
from segan_monai.errors import ConfigError
from segan_monai.folds import bundle_folds, configurations
from segan_monai.reproduce import parse_overrides


def test_rows_are_overlays_of_a_bundle():
    table = configurations("hippocampus", ["2-D=axial_slices,cpu.json", "2.5-D="])
    assert table.bundle == str(BUNDLES / "hippocampus_mri_segan_segmentation")
    assert table.rows == {"2-D": [CONFIGS / "axial_slices.json", CONFIGS / "cpu.json"], "2.5-D": []}
    assert bundle_folds(table, {}) == [0, 1, 2, 3, 4]
    assert bundle_folds(table, parse_overrides(["folds=3"], table)) == [0, 1, 2]
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


def test_a_number_of_folds_that_is_none():
    with pytest.raises(ConfigError, match="folds is 1; expected a number of at least 2"):
        bundle_folds(configurations("hippocampus", []), {"folds": 1})
