# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Labels of training cases that a split hides in part, and what a resumed run has of them."""

from __future__ import annotations

import json

import pytest

from segan_monai.data import labelled_training_cases, read_split, split_cases, split_domains
from segan_monai.data.partial_labels import hidden_text
from segan_monai.errors import ConfigError, DataError
from tests.data.test_unlabeled import ids, labelled

REGIONS = ["anterior", "posterior"]
HALF = {"missing_regions": {"posterior": 0.5}, "regions": REGIONS}
CASES = labelled(*map(str, range(20)))


def lacking(split) -> list[str]:
    return [case["case"] for case in split["training"] if case.get("labelled_regions") == ["anterior"]]


def test_a_region_is_missing_in_exactly_half_of_the_training_cases():
    whole, split = split_cases(CASES, folds=5), split_cases(CASES, folds=5, **HALF)
    assert len(lacking(split)) == 8
    assert sum("labelled_regions" in case for case in split["training"]) == 8
    assert ids(split["training"]) == ids(whole["training"])
    assert split["validation"] == whole["validation"], "held-out cases stay complete"
    assert "unlabeled" not in split
    assert lacking(split) == lacking(split_cases(CASES[::-1], folds=5, **HALF))
    assert lacking(split) != lacking(split_cases(CASES, folds=5, labeled_seed=1, **HALF))
    assert not any("labelled_regions" in case for case in CASES), "the list that was given stays as it is"


def test_cases_that_lack_every_region_are_unlabelled():
    """They are those that lack the one region, so the others are the complete cases."""
    both = split_cases(CASES, folds=5, missing_regions=dict.fromkeys(REGIONS, 0.5), regions=REGIONS)
    assert ids(both["unlabeled"]) == lacking(split_cases(CASES, folds=5, **HALF))
    assert not any("label" in case for case in both["unlabeled"])
    assert not any("labelled_regions" in case for case in both["training"])
    assert ids(both["training"]) == ids(split_cases(CASES, folds=5, labeled_cases=8)["training"])
    assert labelled_training_cases(CASES, both) == 16


def test_regions_that_a_datalist_lacks_are_missing_too():
    listed = [{**case, "labelled_regions": ["posterior"]} for case in CASES]
    split = split_cases(listed, folds=5, **HALF)
    assert [case["labelled_regions"] for case in split["training"]] == [["posterior"]] * 8
    assert len(split["unlabeled"]) == 8


def test_shares_of_subjects():
    cases = labelled(*(f"{subject}-{number}" for subject in "abcdef" for number in range(3)))
    split = split_cases(cases, folds=3, labeled_by="subject", **HALF)
    assert len(lacking(split)) == 6
    assert len({name.split("-")[0] for name in lacking(split)}) == 2


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"middle": 0.5}, r"missing_regions names middle; expected some of anterior, posterior\."),
        (
            {"posterior": 0.01},
            r"has 0\.01 for posterior, which is 0 of 16 training cases; expected a share, such as 0\.5",
        ),
        (
            {"posterior": 1.0},
            r"has 1\.0 for posterior, which is 16 of 16 training cases; .* at least one .* and not all",
        ),
        ({"posterior": -0.5}, r"has -0\.5 for posterior"),
    ],
)
def test_regions_that_cannot_be_missing(missing, message):
    with pytest.raises(ConfigError, match=message):
        split_cases(CASES, folds=5, missing_regions=missing, regions=REGIONS)


def test_training_cases_alone_get_annotated_slices():
    split = split_cases(CASES, folds=5, annotated_slices=2, labeled_seed=3)
    assert [case["annotated_slices"] for case in split["training"]] == [{"number": 2, "seed": 3}] * 16
    assert split["validation"] == split_cases(CASES, folds=5)["validation"]
    both = split_cases(CASES, held_out=0, annotated_slices=1)
    assert not any("annotated_slices" in case for case in both["validation"]), "of the same cases"
    with pytest.raises(ConfigError, match=r"annotated_slices is 0; expected at least 1, or null"):
        split_cases(CASES, folds=5, annotated_slices=0)


def test_a_resumed_run_hides_the_same(tmp_path):
    settings = {"folds": 5, "file": tmp_path / "split.json", "annotated_slices": 1, **HALF}
    settings["missing_regions"] = {"anterior": 0.25, "posterior": 0.5}
    split = split_cases(CASES, **settings)
    assert len(split["unlabeled"]) == 4
    assert len(lacking(split)) == 4
    record = read_split(tmp_path / "split.json")
    assert record["labelled_regions"] == {case: ["anterior"] for case in lacking(split)}
    assert (record["annotated_slices"], record["labeled_seed"]) == (1, 0)
    assert split_cases([*CASES, *labelled("new")], resume=True, **settings) == split
    with pytest.raises(ConfigError, match=r"annotated_slices 1, missing_regions .*pass --annotated_slices 1"):
        split_cases(CASES, resume=True, **{**settings, "annotated_slices": 2})
    with pytest.raises(ConfigError, match=r"pass --missing_regions \{'anterior': 0\.25, 'posterior': 0\.5\}"):
        split_cases(CASES, resume=True, folds=5, file=tmp_path / "split.json", annotated_slices=1)


def test_new_cases_get_annotated_slices(tmp_path):
    settings = {"folds": 5, "file": tmp_path / "split.json", "annotated_slices": 1, "new_cases": "training"}
    split_cases(CASES, **settings)
    added = split_cases([*CASES, *labelled("new")], resume=True, **settings)["training"]
    assert added[-1]["case"] == "new"
    assert all(case["annotated_slices"] == {"number": 1, "seed": 0} for case in added)


def test_a_damaged_record(tmp_path):
    file = tmp_path / "split.json"
    split_cases(CASES, folds=5, file=file, **HALF)
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**record, "labelled_regions": {"1": "anterior"}}), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"'labelled_regions' is .*expected names of cases, each with a list of regions"
    ):
        read_split(file)


def test_cases_labelled_in_part_are_enough_where_unlabelled_ones_are_required():
    split = split_cases(CASES, folds=5, require_unlabeled=True, annotated_slices=1)
    assert "unlabeled" not in split
    with pytest.raises(DataError, match="no unlabelled cases to train on, besides 16 labelled ones"):
        split_cases(CASES, folds=5, require_unlabeled=True)


def test_a_case_that_lists_all_regions_is_fully_labelled(caplog):
    """In any order; without the names of the regions nobody can know."""
    cases = [{**CASES[0], "labelled_regions": ["anterior"]}]
    cases += [{**case, "labelled_regions": ["posterior", "anterior"]} for case in CASES[1:]]
    with caplog.at_level("INFO"):
        split = split_cases(cases, held_out=0, regions=REGIONS)
    assert caplog.messages == ["1 training cases are labelled in part"]
    for part in ("training", "validation"):
        assert [case["case"] for case in split[part] if "labelled_regions" in case] == ["0"]
    of_domains = split_domains(cases, folds=2, regions=REGIONS).values()
    assert [case["case"] for part in of_domains for case in part if "labelled_regions" in case] == ["0"]
    assert all("labelled_regions" in case for case in split_cases(cases, held_out=0)["training"])
    with pytest.raises(DataError, match="no unlabelled cases to train on, besides 19 labelled ones"):
        split_cases(cases[1:], held_out=0, regions=REGIONS, require_unlabeled=True)


def test_what_is_hidden_in_words():
    assert hidden_text({}) == ""
    assert hidden_text({"annotated_slices": 1}) == "1 annotated slice per case"
    both = {"annotated_slices": 3, "missing_regions": {"posterior": 0.25}}
    assert hidden_text(both) == "3 annotated slices per case, posterior missing in 25%"
