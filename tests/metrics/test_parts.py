# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from segan_monai.metrics import case_metrics, evaluate_case, format_table, label_map, summarize, write_evaluation
from segan_monai.metrics.parts import are_parts
from segan_monai.metrics.summary import evaluation_table

REGIONS = {"anterior": [1], "posterior": [2]}
TRUE = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]])
FOUND = np.array([[0, 1, 1, 2, 2, 2, 2, 2, 2, 0]])
"""One voxel missed at the outline, one taken for the other part, one too many at the other end."""


def table(found=FOUND, true=TRUE, case="a"):
    return evaluation_table({"case": case, **row} for row in case_metrics(found, true, [1, 1], REGIONS))


def test_outline_and_confusion_of_a_case():
    anterior, posterior = table().to_dict("records")
    # the union: 8 true, 8 found, 7 in common
    assert anterior["union_dice"] == posterior["union_dice"] == 14 / 16
    assert (anterior["wrong_voxels"], anterior["confused_voxels"]) == (2, 1)  # voxels 0 and 3
    assert (posterior["wrong_voxels"], posterior["confused_voxels"]) == (2, 1)  # voxels 3 and 8
    assert (anterior["dice"], posterior["dice"]) == (4 / 6, 8 / 10)


def test_summary_counts_a_confused_voxel_once(tmp_path):
    both = pd.concat([table(), table(TRUE, case="b")])
    union = summarize(both)["union"]
    assert union["regions"] == ["anterior", "posterior"]
    assert (union["dice"]["mean"], union["wrong_voxels"]) == ((14 / 16 + 1) / 2, 3)  # voxels 0, 3 and 8
    assert (union["at_outline"], union["between_regions"]) == (2 / 3, 1 / 3)
    assert (
        "All regions together (anterior, posterior): Dice 0.938. Of the wrong voxels, 67% are background in one "
        "of the two label maps, and 33% are in another region."
    ) in format_table(both)
    write_evaluation(both, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["union"] == union
    written = pd.read_csv(tmp_path / "metrics.csv")
    assert written["union_dice"].tolist() == [0.875, 0.875, 1, 1]
    assert written["confused_voxels"].tolist() == [1, 1, 0, 0]


def test_perfect_label_maps_have_no_shares():
    perfect = table(TRUE)
    union = summarize(perfect)["union"]
    assert (union["wrong_voxels"], union["at_outline"], union["between_regions"]) == (0, None, None)
    assert "No voxel is wrong." in format_table(perfect)


@pytest.mark.parametrize("regions", [{"tumour": [1]}, {"WT": [1, 2], "TC": [2]}])
def test_single_and_nested_regions_have_no_parts(regions, tmp_path):
    assert not are_parts(regions)
    nested = evaluation_table({"case": "a", **row} for row in case_metrics(FOUND, TRUE, [1, 1], regions))
    assert "union" not in summarize(nested)
    write_evaluation(nested, tmp_path)
    assert "union_dice" not in pd.read_csv(tmp_path / "metrics.csv")


def test_a_case_without_the_label_of_a_region_has_no_union():
    maps = [
        label_map(name, values, np.eye(4)) for name, values in (("found", FOUND[..., None]), ("true", TRUE[..., None]))
    ]
    rows = evaluate_case("a", *maps, REGIONS, labelled_regions=["anterior"])
    assert [row["region"] for row in rows] == ["anterior"]
    assert "union_dice" not in rows[0]
    mixed = pd.concat([evaluation_table(rows), table(TRUE, case="b")])
    assert summarize(mixed)["union"]["dice"]["mean"] == 1
