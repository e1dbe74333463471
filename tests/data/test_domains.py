# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import re

import pytest

from segan_monai.data import find_domains, held_out, in_domains, patches_of_split, read_split, split_domains
from segan_monai.data.split_file import counts_of_parts
from segan_monai.errors import ConfigError, DataError


def cases(**counts):
    return [
        {"case": f"{domain}{number}", "subject": f"{domain}{number}", "domain": domain}
        for domain, count in counts.items()
        for number in range(count)
    ]


def test_names_are_sorted_and_one_domain_needs_no_name():
    assert find_domains(cases(b=1, a=2, c=1)) == ["a", "b", "c"]
    assert find_domains([{"case": "x"}]) == ["all"]
    assert find_domains(cases(only=3)) == ["only"]


def test_a_case_without_domain_beside_others():
    given = [*cases(a=2, b=1), {"case": "x", "subject": "x"}]
    with pytest.raises(DataError, match=r"1 of 4 cases have no domain, such as x, while others belong to a, b\. Give"):
        find_domains(given)


def test_a_domain_that_is_no_name():
    with pytest.raises(DataError, match="case x: domain 3 is not a name"):
        find_domains([{"case": "x", "domain": 3}])


def test_some_domains():
    assert [c["case"] for c in in_domains(cases(a=1, b=1, c=1), ["a", "c"])] == ["a0", "c0"]
    assert in_domains([{"case": "x"}], None) == [{"case": "x"}]
    assert in_domains([{"case": "x"}], ["all"]) == [{"case": "x"}]
    with pytest.raises(ConfigError, match="no case is of domain z; the cases' domains are a, b"):
        in_domains(cases(a=1, b=1), ["z"])


def test_each_fold_has_every_domain_on_both_sides_and_folds_are_a_partition():
    given = cases(a=7, b=3)
    validation = []
    for fold in range(3):
        split = split_domains(given, folds=3, fold=fold)
        assert find_domains(split["training"]) == find_domains(split["validation"]) == ["a", "b"]
        assert len(split["training"]) + len(split["validation"]) == 10
        validation += [c["case"] for c in split["validation"]]
    assert sorted(validation) == sorted(c["case"] for c in given)


def test_subjects_stay_together():
    given = [dict(c, case=f"{c['case']}-{scan}") for c in cases(a=4, b=4) for scan in range(2)]
    split = split_domains(given, folds=2)
    sides = [{c["subject"] for c in split[part]} for part in ("training", "validation")]
    assert not sides[0] & sides[1]


def test_a_subject_of_several_domains_is_on_one_side(tmp_path):
    """Ten people are scanned at two sites, four of them at a third one; two at one site only."""
    sites = {"a": range(10), "b": range(12), "c": range(4)}
    given = [{"case": f"{d}{n}", "subject": f"P{n:02}", "domain": d} for d, numbers in sites.items() for n in numbers]
    for seed in range(4):
        validation = []
        for fold in range(4):
            split = split_domains(given, 4, fold, seed)
            sides = [{case["subject"] for case in split[part]} for part in ("training", "validation")]
            assert not sides[0] & sides[1]
            assert find_domains(split["training"]) == ["a", "b", "c"]
            assert {"a", "b"} <= set(find_domains(split["validation"]))
            validation += [case["case"] for case in split["validation"]]
        assert sorted(validation) == sorted(case["case"] for case in given)


@pytest.mark.parametrize("count", [1, 3])
def test_a_domain_with_fewer_subjects_than_folds(count):
    with pytest.raises(DataError, match=rf"domain b: {count} subjects cannot be split into 4 folds\. Pass --folds"):
        split_domains(cases(a=9, b=count), folds=4)


def test_sections_of_a_datalist_that_leave_a_domain_out():
    given = [{**c, "section": "validation" if c["case"] == "a0" else "training"} for c in cases(a=3, b=2)]
    with pytest.raises(DataError, match=r"domain b has 2 cases in .*'training' and 0 in 'validation'"):
        split_domains(given)
    given[3]["section"] = "validation"
    assert [c["case"] for c in split_domains(given)["validation"]] == ["a0", "b0"]


def test_training_on_one_domain_leaves_the_file_as_it_is(tmp_path):
    given = cases(a=4, b=4)
    alone = split_domains(given, folds=2, train_domains=["a"], file=tmp_path / "alone.json")
    both = split_domains(given, folds=2, file=tmp_path / "both.json")
    assert find_domains(alone["training"]) == find_domains(alone["validation"]) == ["a"]
    assert read_split(tmp_path / "alone.json") == read_split(tmp_path / "both.json")
    record = json.loads((tmp_path / "both.json").read_text(encoding="utf-8"))
    assert record["stratified_by"] == "domain"
    assert record["counts"] == {name: {"training": 2, "validation": 2} for name in "ab"}
    assert record["training"] == [c["case"] for c in both["training"]]


def test_a_split_by_patch_says_that_it_leaks(caplog):
    with caplog.at_level(logging.WARNING):
        split = split_domains(cases(a=1, b=1), by="patch")
    assert split["training"] == split["validation"] == cases(a=1, b=1)
    assert "validation figures are too good" in caplog.text
    with pytest.raises(ConfigError, match="split_by is 'slice'; expected 'subject' or 'patch'"):
        split_domains(cases(a=2), by="slice")


def test_a_quick_look_at_as_many_of_each():
    split = split_domains(cases(a=9, b=5), folds=2, max_cases=4)
    assert sum(len(part) for part in split.values()) == 8


def test_the_cases_of_the_domains_that_a_run_trains_on_are_counted(tmp_path):
    file = tmp_path / "split.json"
    given = [{**case, "image": "", "label": ""} for case in cases(a=4, b=6, c=8)]
    split = split_domains(given, 2, file=file, train_domains=["a", "b"], unlabeled_domains=["b"])
    assert {part: len(of_part) for part, of_part in split.items()} == {"training": 2, "validation": 5, "unlabeled": 3}
    record = read_split(file)
    assert counts_of_parts(record, ["a", "b"]) == {"training": 2, "validation": 5, "unlabeled": 3}
    assert counts_of_parts(record) == {"training": 6, "validation": 9, "unlabeled": 3}, "of c, too"
    without_names = [{"case": name, "subject": name, "image": "", "label": ""} for name in "xyz"]
    split_domains(without_names, 3, file=file, train_domains=["all"])
    assert counts_of_parts(read_split(file), ["all"]) == {"training": 2, "validation": 1, "unlabeled": 0}


def test_a_split_by_patch_records_how_to_find_its_patches(tmp_path):
    cases = [
        {"case": f"c{n}", "subject": f"c{n}", "domain": "a", "image": f"c{n}.nii.gz", "label": "l"} for n in range(4)
    ]
    by_patch, by_subject, old = (tmp_path / f"{name}.json" for name in ("patch", "subject", "old"))
    split_domains(cases, 2, seed=5, file=by_patch, by="patch", patch_stride=(4, 4, 8))
    split_domains(cases, 2, seed=5, file=by_subject, patch_stride=(4, 4, 8))
    split_domains(cases, 2, seed=5, file=old, by="patch")
    assert patches_of_split(by_patch, "held_out", "patch") == {"stride": [4, 4, 8], "seed": 5, "part": "test"}
    assert patches_of_split(by_patch, "validation", "patch")["part"] == "validation"
    assert patches_of_split(by_patch, "all", "patch")["part"] is None
    assert patches_of_split(None, "held_out", "subject")["part"] is None
    assert [case["case"] for case in held_out(cases, by_patch, "held_out", "patch")] == ["c0", "c1", "c2", "c3"]
    with pytest.raises(ConfigError, match=r"split by patch: every case has training patches.*Pass --split_by patch"):
        held_out(cases, by_patch)
    record = json.loads(by_patch.read_text(encoding="utf-8"))
    for stride in (None, 4, [4, 4], [4, 4, "8"], [4, 4, 0]):
        (tmp_path / "damaged.json").write_text(json.dumps({**record, "patch_stride": stride}), encoding="utf-8")
        with pytest.raises(DataError, match=rf"'patch_stride' {re.escape(repr(stride))}; expected a whole number, and"):
            patches_of_split(tmp_path / "damaged.json", "held_out", "patch")
    for file in (by_subject, old):
        with pytest.raises(ConfigError, match=r"no record of the patches of a training by patch. Omit --split_by"):
            held_out(cases, file, "held_out", "patch")


def labelled(**counts):
    return [{**case, "image": f"{case['case']}.nii.gz", "label": "l.nii.gz"} for case in cases(**counts)]


def test_labels_of_a_domain_are_hidden_in_training_alone(tmp_path):
    file = tmp_path / "split.json"
    given = labelled(a=4, b=4)
    whole = split_domains(given, 2, seed=1)
    split = split_domains(given, 2, seed=1, unlabeled_domains=["b"], file=file)
    assert [case["case"] for case in split["validation"]] == [case["case"] for case in whole["validation"]]
    assert {case["domain"] for case in split["training"]} == {"a"}
    names = [case["case"] for case in whole["training"] if case["domain"] == "b"]
    assert [case["case"] for case in split["unlabeled"]] == names
    assert not any("label" in case for case in split["unlabeled"])
    assert all("label" in case for case in (*split["training"], *split["validation"]))
    assert [case["case"] for case in held_out(given, file)] == [case["case"] for case in split["validation"]]
    again = split_domains(given, 2, seed=1, unlabeled_domains=["b"], file=file, resume=True)
    assert again == split
    with pytest.raises(ConfigError, match="unlabeled_domains"):
        split_domains(given, 2, seed=1, unlabeled_domains=["a"], file=file, resume=True)


def test_a_domain_without_any_label():
    target = [{key: value for key, value in case.items() if key != "label"} for case in labelled(c=2)]
    split = split_domains([*labelled(a=4), *target], 2)
    assert [case["case"] for case in split["unlabeled"]] == ["c0", "c1"]
    assert {case["domain"] for case in (*split["training"], *split["validation"])} == {"a"}
    assert "unlabeled" not in split_domains(labelled(a=4), 2)


def test_which_labels_cannot_be_hidden():
    with pytest.raises(ConfigError, match=r"unlabeled_domains names x; the domains of labelled cases are a, b\. A"):
        split_domains(labelled(a=2, b=2), 2, unlabeled_domains=["x"])
    with pytest.raises(ConfigError, match=r"unlabeled_domains b leaves no labelled domain"):
        split_domains(labelled(a=2, b=2), 2, unlabeled_domains=["b"], train_domains=["b"])
    with pytest.raises(DataError, match="there are no unlabelled cases to train on"):
        split_domains(labelled(a=2, b=2), 2, require_unlabeled=True)
