# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import random

import numpy as np
import pytest

from segan_monai.data import held_out, read_split, split_cases
from segan_monai.errors import ConfigError, DataError


def brats2015() -> list[dict]:
    """220 high-grade and 54 low-grade cases, one a subject, as in the paper."""
    return [
        {"case": f"{grade}{number}", "subject": f"{grade}{number}", "grade": grade}
        for grade, count in (("HGG", 220), ("LGG", 54))
        for number in range(count)
    ]


def ids(cases) -> list[str]:
    return [case["case"] for case in cases]


def test_nine_to_one_within_each_grade():
    for fold in range(10):
        split = split_cases(brats2015(), fold=fold)
        validation = [case["grade"] for case in split["validation"]]
        assert validation.count("HGG") == 22
        assert validation.count("LGG") in (5, 6)
        assert len(validation) in (27, 28)
        assert len(split["training"]) + len(validation) == 274


def test_folds_are_a_partition():
    validation = [name for fold in range(10) for name in ids(split_cases(brats2015(), fold=fold)["validation"])]
    assert sorted(validation) == sorted(ids(brats2015()))


def test_seed_and_nothing_else_decides():
    cases = brats2015()
    first = ids(split_cases(cases)["validation"])
    shuffled = random.Random(1).sample(cases, len(cases))
    random.seed(3)
    np.random.seed(3)
    assert ids(split_cases(shuffled)["validation"]) == first
    assert ids(split_cases(cases, seed=1)["validation"]) != first


def test_does_not_touch_the_global_random_state():
    state = random.getstate()
    split_cases(brats2015())
    assert random.getstate() == state


def test_time_points_stay_together():
    cases = [
        {"case": f"{subject}-{point}", "subject": f"{subject}", "grade": "HGG" if point else "LGG"}
        for subject in range(6)
        for point in range(3)
    ]
    split = split_cases(cases, folds=3)
    subjects = [{case["subject"] for case in split[part]} for part in ("training", "validation")]
    assert not subjects[0] & subjects[1]
    assert len(split["validation"]) == 6


def test_validation_section_is_honoured_and_test_left_out(tmp_path):
    cases = [
        {"case": "a", "subject": "a", "section": "training"},
        {"case": "b", "subject": "b", "section": "validation"},
        {"case": "c", "subject": "c", "section": "test"},
    ]
    split = split_cases(cases, file=tmp_path / "split.json")
    assert (ids(split["training"]), ids(split["validation"])) == (["a"], ["b"])
    assert read_split(tmp_path / "split.json")["folds"] is None
    assert ids(held_out(cases, tmp_path / "split.json")) == ["b", "c"]


def test_subject_in_both_sections():
    cases = [
        {"case": "a1", "subject": "a", "section": "training"},
        {"case": "a2", "subject": "a", "section": "validation"},
    ]
    with pytest.raises(DataError, match=r"1 subjects are in both sections .* such as a"):
        split_cases(cases)


def test_test_section_is_never_dealt():
    cases = [{"case": str(n), "subject": str(n), "section": "test" if n > 3 else "training"} for n in range(8)]
    split = split_cases(cases, folds=2)
    assert sorted(ids(split["training"]) + ids(split["validation"])) == ["0", "1", "2", "3"]


def test_file(tmp_path):
    file = tmp_path / "out/split.json"
    split = split_cases(brats2015(), folds=5, fold=2, seed=7, file=file)
    record = json.loads(file.read_text(encoding="utf-8"))
    assert (record["seed"], record["folds"], record["fold"], record["stratified_by"]) == (7, 5, 2, "grade")
    assert record["counts"]["HGG"] == {"training": 176, "validation": 44}
    assert record["training"] == ids(split["training"])
    assert list(file.parent.iterdir()) == [file]
    assert read_split(file) == {**record, "unlabeled": [], "subjects": {}, "labelled_regions": {}}


def test_fewer_subjects_than_folds():
    with pytest.raises(DataError, match=r"4 subjects cannot be split into 10 folds\. Pass --folds 4"):
        split_cases(brats2015()[:4])


def test_empty():
    with pytest.raises(DataError, match="0 subjects cannot be split"):
        split_cases([])
    with pytest.raises(DataError, match="no cases for training among 1"):
        split_cases([{"case": "b", "subject": "b", "section": "validation"}])


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (5, 5), (5, -1)])
def test_fold_out_of_range(folds, fold):
    with pytest.raises(ConfigError, match=f"folds={folds}, fold={fold}: folds must be at least 2"):
        split_cases(brats2015(), folds=folds, fold=fold)


def test_a_quick_look_uses_some_cases_only():
    cases = [{"case": f"c{i:02}", "subject": f"c{i:02}", "image": "", "label": ""} for i in range(40)]
    split = split_cases(cases, folds=4, seed=1, max_cases=12)
    assert len(split["training"]) == 9
    assert len(split["validation"]) == 3
    assert split == split_cases(cases[::-1], folds=4, seed=1, max_cases=12)
    assert split != split_cases(cases, folds=4, seed=2, max_cases=12)


def photographs(count, section=None):
    apart = {"section": section} if section else {}
    return [{"case": f"{section}{n:04}", "subject": f"{section}{n:04}", **apart} for n in range(count)]


def test_a_number_of_cases_is_kept_out_instead_of_folds(tmp_path):
    cases = photographs(2000)
    split = split_cases(cases, seed=3, held_out=500, file=tmp_path / "split.json")
    assert [len(split[part]) for part in ("training", "validation")] == [1500, 500]
    assert not set(ids(split["training"])) & set(ids(split["validation"]))
    record = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert (record["seed"], record["held_out"], record["folds"]) == (3, 500, None)
    assert split == split_cases(cases[::-1], seed=3, held_out=500) == split_cases(cases, seed=3, held_out=0.25)
    assert ids(split["validation"]) != ids(split_cases(cases, seed=4, held_out=500)["validation"])


def test_the_data_sets_own_sections_or_its_training_section_alone(tmp_path):
    cases = [*photographs(20, "training"), *photographs(3, "validation"), *photographs(6, "test")]
    own = split_cases(cases, held_out=5, file=tmp_path / "own.json")
    assert [len(own[part]) for part in ("training", "validation")] == [20, 3]
    assert json.loads((tmp_path / "own.json").read_text(encoding="utf-8"))["seed"] is None
    split = split_cases(cases, held_out=5, use_sections=False, file=tmp_path / "split.json")
    assert [len(split[part]) for part in ("training", "validation")] == [15, 5]
    assert len(held_out(cases, tmp_path / "split.json", "validation")) == 5
    assert held_out(cases, tmp_path / "split.json", "test") == cases[-6:]
    assert len(held_out(cases, tmp_path / "split.json")) == 14


def test_a_share_is_kept_out_of_few_cases_too():
    assert [len(part) for part in split_cases(photographs(6), held_out=0.25).values()] == [4, 2]
    assert [len(part) for part in split_cases(photographs(6), held_out=0.01).values()] == [5, 1]


def test_nothing_kept_out_is_all_on_both_sides():
    split = split_cases(photographs(4), held_out=0)
    assert split["training"] == split["validation"] == photographs(4)


def test_held_out_out_of_range():
    with pytest.raises(DataError, match=r"held_out=4 of 4 subjects leaves none .*fewer than 4, or null"):
        split_cases(photographs(4), held_out=4)
    with pytest.raises(DataError, match=r"held_out=0\.9 of 2 subjects leaves none for training"):
        split_cases(photographs(2), held_out=0.9)
    for wrong in (-1, 1.5):
        with pytest.raises(ConfigError, match=f"held_out={wrong}: expected a number of subjects, or a fraction"):
            split_cases(photographs(4), held_out=wrong)


def with_folds(*folds):
    """Two cases per subject, the folds by subject."""
    return [
        {"case": f"s{n}-{point}", "subject": f"s{n}", **({} if fold is None else {"fold": fold})}
        for n, fold in enumerate(folds)
        for point in range(2)
    ]


@pytest.mark.parametrize("fold", [0, 1, 4])
def test_the_folds_of_the_data_set_are_the_folds(tmp_path, caplog, fold):
    cases = with_folds(0, 1, 4, 1, 0, 0)
    with caplog.at_level(logging.INFO):
        split = split_cases(cases, folds=2, fold=fold, file=tmp_path / "split.json")
    assert split["validation"] == [case for case in cases if case["fold"] == fold]
    assert split["training"] == [case for case in cases if case["fold"] != fold]
    assert f"the data set names its 3 folds, which are used whatever --folds is; fold {fold} is held out" in caplog.text
    record = read_split(tmp_path / "split.json")
    assert [record[key] for key in ("seed", "folds", "fold", "stratified_by")] == [None, None, fold, None]


def test_a_case_of_fold_minus_1_is_in_every_training_set():
    cases = with_folds(-1, 0, 1)
    assert [ids(split_cases(cases, fold=fold)["training"])[:2] for fold in (0, 1)] == [["s0-0", "s0-1"]] * 2


def test_folds_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"--fold 3: the data set names folds 0, 1, 4\. Choose one of them"):
        split_cases(with_folds(0, 1, 4), folds=5, fold=3)
    with pytest.raises(ConfigError, match="--fold -1: the data set names folds 0, 1"):
        split_cases(with_folds(0, 1, -1), fold=-1)
    with pytest.raises(DataError, match="2 of 6 cases are in no fold, such as s1-0, while"):
        split_cases(with_folds(0, None, 1), fold=0)
    cases = with_folds(0, 1)
    cases[1]["fold"] = 1
    with pytest.raises(DataError, match=r"subject s0 is in folds 0 and 1 of the data set \(case s0-1\)"):
        split_cases(cases, fold=0)
    with pytest.raises(DataError, match="no cases for training among 2"):
        split_cases(with_folds(0), fold=0)


def test_a_resumed_run_goes_on_with_its_fold_of_the_data_set(tmp_path):
    settings = {"file": tmp_path / "split.json", "resume": True, "new_cases": "training"}
    first = split_cases(with_folds(0, 1, 2), fold=1, **settings)
    split = split_cases(with_folds(0, 1, 2, 1, 2), fold=1, **settings)
    assert split["validation"] == first["validation"]
    assert ids(split["training"]) == [*ids(first["training"]), "s4-0", "s4-1"], "and none of fold 1"
    with pytest.raises(ConfigError, match=r"split with fold 1, but the command asks for fold 2.* pass --fold 1"):
        split_cases(with_folds(0, 1, 2), fold=2, **settings)


def test_a_number_held_out_or_a_validation_section_goes_before_folds():
    cases = with_folds(0, 1, 1)
    assert len(split_cases(cases, held_out=1, fold=7)["validation"]) == 2
    cases[0]["section"] = cases[1]["section"] = "validation"
    assert split_cases(cases, fold=1)["validation"] == cases[:2]


def test_folds_of_the_data_set_are_ignored_on_request():
    cases = [{"case": name, "subject": name, "fold": number % 2} for number, name in enumerate("abcdefgh")]
    assert [case["case"] for case in split_cases(cases, fold=1)["validation"]] == list("bdfh")
    assert len(split_cases(cases, folds=4, fold=3, use_sections=False)["validation"]) == 2
