# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Unlabelled cases in every layout, and in splits: never held out, and never of a held-out patient."""

from __future__ import annotations

import json
import logging
import shutil

import pytest

from segan_monai.data import (
    find_cases,
    held_out,
    isic_cases,
    labelled_training_cases,
    nnunet_cases,
    read_split,
    split_cases,
    split_domains,
)
from segan_monai.errors import ConfigError, DataError

MODALITIES = ("t1", "t1c", "flair")


def ids(cases) -> list[str]:
    return [case["case"] for case in cases]


def labelled(*names: str, **fields) -> list[dict]:
    """Cases with a label; ``p1-2`` is the second case of subject ``p1``."""
    return [
        {"case": name, "subject": name.split("-")[0], "image": "", "label": f"{name}_seg.nii", **fields}
        for name in names
    ]


def unlabelled(*names: str, **fields) -> list[dict]:
    return [{key: value for key, value in case.items() if key != "label"} for case in labelled(*names, **fields)]


def write(folder, *names: str, content: str = "") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content or name, encoding="utf-8")


@pytest.fixture
def lgg(tmp_path, data_dir):
    """Six real patients as links; the last two have no label map."""
    for number, case in enumerate(sorted((data_dir / "lgg_brain_tumour").iterdir())[:6]):
        (tmp_path / "lgg" / case.name).mkdir(parents=True)
        for file in case.iterdir():
            if number < 4 or "_seg" not in file.name:
                (tmp_path / "lgg" / case.name / file.name).symlink_to(file)
    return tmp_path / "lgg"


def test_case_folders_without_label_map(lgg, caplog):
    with caplog.at_level(logging.INFO):
        cases = find_cases(lgg, modalities=MODALITIES, require_labels=True, keep_unlabeled=True)
    assert ["label" in case for case in cases] == [True] * 4 + [False] * 2
    assert "6 cases, 4 labelled, 2 unlabelled" in caplog.text
    assert len(find_cases(lgg, modalities=MODALITIES, require_labels=True)) == 4
    assert "omitted 2 cases without label map" in caplog.text
    split = split_cases(cases, folds=4)
    assert [len(split[part]) for part in ("training", "validation", "unlabeled")] == [3, 1, 2]
    assert ids(split["unlabeled"]) == ids(cases)[4:]


def test_photographs_without_mask(data_dir):
    cases = isic_cases(data_dir / "isic2017_256")
    split = split_cases(cases, held_out=5)
    assert [len(split[part]) for part in ("training", "validation", "unlabeled")] == [10, 5, 2730]
    assert all("label" not in case for case in split["unlabeled"])


def test_a_list_unlabeled_in_a_datalist(tmp_path):
    write(tmp_path, "a.nii", "a_seg.nii", "b.nii", "c.nii")
    datalist = {"training": [{"image": "a.nii", "label": "a_seg.nii"}], "unlabeled": ["b.nii", {"image": "c.nii"}]}
    file = tmp_path / "list.json"
    file.write_text(json.dumps(datalist), encoding="utf-8")
    cases = find_cases(None, file, require_labels=True, keep_unlabeled=True)
    assert [(case["case"], case["section"], "label" in case) for case in cases] == [
        ("a", "training", True),
        ("b", "unlabeled", False),
        ("c", "unlabeled", False),
    ]
    assert ids(find_cases(None, file, require_labels=True)) == ["a"]
    datalist["unlabeled"][1]["label"] = "a_seg.nii"
    file.write_text(json.dumps(datalist), encoding="utf-8")
    with pytest.raises(DataError, match=r"entry 1 of 'unlabeled' has a label, a_seg.nii. Move it to 'training'"):
        find_cases(None, file)


def test_a_data_set_lists_unlabelled_images(data_dir):
    cases = find_cases(data_dir / "brain_tissue_domains", require_labels=True, keep_unlabeled=True)
    assert ids(case for case in cases if "label" not in case) == ["IBSR_02", "IBSR_10", "IBSR_15"]


def test_nnunet_images_without_label_map(tmp_path):
    write(tmp_path, *(f"imagesTr/{case}_0000.nii.gz" for case in "abcd"), "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    split = split_cases(nnunet_cases(tmp_path), folds=2)
    assert ids(split["unlabeled"]) == ["c", "d"]
    assert sorted(ids(split["training"]) + ids(split["validation"])) == ["a", "b"]
    folds = [{"train": ["a", "d"], "val": ["b", "c"]}, {"train": ["b", "c"], "val": ["a", "d"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    assert ids(split_cases(nnunet_cases(tmp_path), fold=0)["unlabeled"]) == ["d"], "c is in the fold that is held out"


def test_without_any_label_nothing_is_required_of_the_cases():
    split = split_cases([{"case": str(n), "subject": str(n)} for n in range(4)], folds=2)
    assert set(split) == {"training", "validation"}


@pytest.mark.parametrize("fold", range(4))
def test_no_image_of_a_held_out_patient_is_trained_on(tmp_path, fold, caplog):
    """Each patient has a labelled and an unlabelled time point; some images are there twice, under another name."""
    write(tmp_path, *(f"p{n}-{point}.nii" for n in range(4) for point in "12"))
    shutil.copy(tmp_path / "p0-1.nii", tmp_path / "copy.nii")  # of another patient, by its name
    cases = [*labelled(*(f"p{n}-1" for n in range(4))), *unlabelled(*(f"p{n}-2" for n in range(4)), "copy", "q")]
    for case in cases:
        case["image"] = str(tmp_path / f"{case['case']}.nii")
    with caplog.at_level(logging.INFO):
        split = split_cases(cases, folds=4, fold=fold)
    (judged,) = split["validation"]
    assert "label" in judged
    expected = {"q", *(f"p{n}-2" for n in range(4) if f"p{n}" != judged["subject"])}
    expected |= set() if judged["subject"] == "p0" else {"copy"}
    assert set(ids(split["unlabeled"])) == expected
    assert "unlabelled cases are of held-out patients and stay unused, such as" in caplog.text
    assert "training cases: 3 labelled, " in caplog.text


def test_nor_one_of_the_sections_validation_and_test():
    cases = [
        *labelled("a-1", section="training"),
        *labelled("b-1", section="validation"),
        *labelled("c-1", section="test"),
        *unlabelled("a-2", "b-2", "c-2", "d", section="unlabeled"),
        *unlabelled("e", section="validation"),
        *unlabelled("f", section="test"),
    ]
    split = split_cases(cases)
    assert {part: ids(split[part]) for part in split} == {
        "training": ["a-1"],
        "validation": ["b-1"],
        "unlabeled": ["a-2", "d"],
    }


def test_max_cases_limits_both_kinds():
    cases = [*labelled(*map(str, range(10))), *unlabelled(*(f"u{n}" for n in range(10)))]
    split = split_cases(cases, folds=2, max_cases=4)
    assert [len(split[part]) for part in ("training", "validation", "unlabeled")] == [2, 2, 4]
    without = split_cases(labelled(*map(str, range(10))), folds=2, max_cases=4)
    assert ids(split["training"]) == ids(without["training"]), "labelled cases are drawn as without the others"


def test_a_limit_above_the_number_of_labelled_cases_limits_the_others(tmp_path):
    """Few labelled cases beside many images, the usual case of few labels."""
    cases = [*labelled(*map(str, range(4))), *unlabelled(*(f"u{n}" for n in range(10)))]
    split = split_cases(cases, folds=2, max_cases=6, file=tmp_path / "split.json")
    assert [len(split[part]) for part in ("training", "validation", "unlabeled")] == [2, 2, 6]
    assert read_split(tmp_path / "split.json")["max_cases"] == 6
    assert split_cases(cases, folds=2, max_cases=10) == split_cases(cases, folds=2)


def test_a_limit_above_the_labelled_cases_of_each_domain_too():
    cases = [*labelled(*map(str, range(4))), *unlabelled(*(f"u{n}" for n in range(10)))]
    split = split_domains([{**case, "domain": "a"} for case in cases], folds=2, max_cases=6)
    assert [len(split[part]) for part in ("training", "validation", "unlabeled")] == [2, 2, 6]


def test_labels_are_hidden_by_number_and_seed(tmp_path):
    cases = labelled(*(f"p{n:02d}" for n in range(20)))
    whole = split_cases(cases, folds=4)
    draws = {n: split_cases(cases, folds=4, labeled_cases=n, file=tmp_path / f"{n}/split.json") for n in (2, 4, 15)}
    for number, split in draws.items():
        assert len(split["training"]) == number
        assert split["validation"] == whole["validation"]
        assert sorted(ids(split["training"]) + ids(split.get("unlabeled", []))) == ids(whole["training"])
        assert not any("label" in case for case in split.get("unlabeled", []))
    assert set(ids(draws[2]["training"])) < set(ids(draws[4]["training"])), "smaller draws are parts of larger ones"
    assert ids(draws[4]["training"]) != ids(split_cases(cases, folds=4, labeled_cases=4, labeled_seed=1)["training"])
    record = read_split(tmp_path / "4/split.json")
    assert record["unlabeled"] == ids(draws[4]["unlabeled"])
    assert (record["labeled_cases"], record["labeled_seed"]) == (4, 0)
    assert "label" in cases[0], "the list that was given stays as it is"


@pytest.mark.parametrize("number", [0, 16])
def test_a_number_of_labels_that_is_not_there(number):
    message = rf"labeled_cases is {number}, but 15 training cases have a label. Pass a number from 1 to 15, or null"
    with pytest.raises(ConfigError, match=message):
        split_cases(labelled(*map(str, range(20))), folds=4, labeled_cases=number)


@pytest.mark.parametrize("given", [[], "abc"])
def test_no_names(given):
    with pytest.raises(ConfigError, match=r"labeled_cases is .*; expected a number, or a list of one or more names"):
        split_cases(labelled(*map(str, range(20))), folds=4, labeled_cases=given)


def test_names_keep_their_labels():
    cases = labelled(*map(str, range(10)))
    every = split_cases(cases, folds=5)["training"]
    names = ids(every)[2:4]
    split = split_cases(cases, folds=5, labeled_cases=names)
    assert ids(split["training"]) == names
    assert sorted([*names, *ids(split["unlabeled"])]) == ids(every)
    held = next(str(number) for number in range(10) if str(number) not in ids(every))
    with pytest.raises(ConfigError, match=rf"names 1 cases that are not in training or have no label, such as {held}"):
        split_cases(cases, folds=5, labeled_cases=[names[0], held])


def test_hidden_labels_can_be_evaluated_alone(tmp_path):
    cases = labelled(*map(str, range(10)))
    file = tmp_path / "split.json"
    split = split_cases(cases, folds=5, labeled_cases=3, file=file)
    chosen = held_out(cases, file, "unlabeled")
    assert ids(chosen) == ids(split["unlabeled"])
    assert all("label" in case for case in chosen)
    with pytest.raises(ConfigError, match="--subset unlabeled with 2 weights: expected one"):
        held_out(cases, [str(file), str(file)], "unlabeled")


def test_unlabelled_cases_may_be_required():
    cases = labelled("a", "b")
    with pytest.raises(DataError, match=r"no unlabelled cases to train on, besides 1 labelled ones. List images under"):
        split_cases(cases, folds=2, require_unlabeled=True)
    assert ids(split_cases([*cases, *unlabelled("c")], folds=2, require_unlabeled=True)["unlabeled"]) == ["c"]


def test_what_was_trained_on_without_its_label_is_not_held_out(tmp_path):
    write(tmp_path, *(f"{n}.nii" for n in range(8)))
    cases = [{**case, "image": str(tmp_path / f"{case['case']}.nii")} for case in labelled(*map(str, range(8)))]
    file = tmp_path / "run/split.json"
    split = split_cases(cases, folds=4, labeled_cases=2, file=file)
    assert ids(held_out(cases, file)) == ids(split["validation"])
    hidden = split["unlabeled"][0]["case"]
    (tmp_path / f"{hidden}.nii").rename(tmp_path / "renamed.nii")
    renamed = [c if c["case"] != hidden else {**c, "case": "x", "image": str(tmp_path / "renamed.nii")} for c in cases]
    assert ids(held_out(renamed, file)) == ids(split["validation"])


def test_a_resumed_run_has_the_same_unlabelled_cases(tmp_path):
    file = tmp_path / "split.json"
    cases = [*labelled(*map(str, range(8))), *unlabelled("u", "v")]
    settings = {"folds": 4, "labeled_cases": 3, "file": file}
    split = split_cases(cases, **settings)
    assert split_cases([*cases, *unlabelled("w"), *labelled("x")], resume=True, **settings) == split
    with pytest.raises(
        ConfigError, match=r"labeled_cases 3, labeled_seed 0, but the command asks for .*labeled_cases 4"
    ):
        split_cases(cases, resume=True, **{**settings, "labeled_cases": 4})
    with pytest.raises(ConfigError, match=r"pass --labeled_cases 3 and pass --labeled_seed 0"):
        split_cases(cases, resume=True, folds=4, file=file)
    with pytest.raises(DataError, match=r"1 unlabelled cases of .* such as u\. Pass --unlabeled use"):
        split_cases([case for case in cases if case["case"] != "u"], resume=True, **settings)


def test_a_resumed_run_uses_what_was_added_and_labelled_since(tmp_path):
    file = tmp_path / "split.json"
    split = split_cases([*labelled("a", "b"), *unlabelled("u", "v")], folds=2, file=file)
    (trained,), (judged,) = ids(split["training"]), ids(split["validation"])
    now = [*labelled("a", "b", "u"), *unlabelled("v", "w", f"{judged}-2")]
    unused = split_cases(now, folds=2, file=file, resume=True)
    assert {part: ids(unused[part]) for part in unused} == {
        "training": [trained],
        "validation": [judged],
        "unlabeled": ["u", "v"],
    }
    assert all("label" not in case for case in unused["unlabeled"])
    added = split_cases(now, folds=2, file=file, resume=True, new_cases="training")
    assert {part: ids(added[part]) for part in added} == {
        "training": [trained, "u"],
        "validation": [judged],
        "unlabeled": ["v", "w"],
    }
    assert "label" in added["training"][1]
    assert read_split(file)["unlabeled"] == ["v", "w"]


def test_a_training_case_whose_label_map_is_gone(tmp_path):
    file = tmp_path / "split.json"
    split = split_cases([*labelled("a", "b"), *unlabelled("u")], folds=2, file=file)
    (trained,), (judged,) = ids(split["training"]), ids(split["validation"])
    with pytest.raises(DataError, match=rf"have no label map now, such as {trained}"):
        split_cases([*labelled(judged), *unlabelled(trained, "u")], folds=2, file=file, resume=True)


@pytest.mark.parametrize("value", ["core", [], [1]])
def test_labelled_regions_that_are_no_list_of_names(tmp_path, value):
    write(tmp_path, "a.nii", "a_seg.nii")
    entry = {"image": "a.nii", "label": "a_seg.nii", "labelled_regions": value}
    (tmp_path / "list.json").write_text(json.dumps({"training": [entry]}), encoding="utf-8")
    with pytest.raises(DataError, match=r"entry 0 of 'training' has labelled_regions .*Expected \[\"region\"\]"):
        find_cases(None, tmp_path / "list.json")


def test_an_epoch_has_as_many_cases_whatever_number_keeps_its_label():
    cases = [*labelled(*"abcdefgh"), *unlabelled("u", "v")]
    lengths = []
    for number in (None, 2, 5):
        split = split_cases(cases, folds=4, labeled_cases=number)
        lengths.append(labelled_training_cases(cases, split))
    assert lengths == [6, 6, 6]
    assert labelled_training_cases(labelled(*"abcd"), split_cases(labelled(*"abcd"), folds=4)) == 3
