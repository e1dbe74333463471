# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import pytest

from segan_monai.data import read_split, split_cases, split_domains
from segan_monai.errors import ConfigError, DataError


@pytest.fixture
def data(tmp_path):
    """Make cases with an image each; the image's content is that of the first name it had."""

    def cases(*names, **fields):
        made = []
        for name in names:
            file = tmp_path / "data" / f"{name}.nii"
            file.parent.mkdir(exist_ok=True)
            if not file.exists():
                file.write_text(f"voxels of {name}", encoding="utf-8")
            made.append({"case": name, "subject": name.split("-")[0], "image": str(file), **fields})
        return made

    return cases


@pytest.fixture
def run(data, tmp_path):
    """Draw, or go on with, the split of a run of twelve cases."""

    def split(*more, names=tuple(f"c{n:02}" for n in range(12)), **settings):
        settings = {"folds": 4, "file": tmp_path / "split.json", **settings}
        return split_cases([*data(*names), *more], **settings)

    return split


def ids(cases):
    return [case["case"] for case in cases]


def test_new_cases_stay_unused_and_are_named(run, data, tmp_path, caplog):
    first = run()
    written = (tmp_path / "split.json").read_bytes()
    assert run(*data("a", "b", "d")) != first, "drawn anew"
    (tmp_path / "split.json").write_bytes(written)
    assert run(*data("a", "b", "d"), resume=True) == first
    assert "3 cases were added since the run started and stay unused: a, b, d. --new_cases training adds" in caplog.text
    assert (tmp_path / "split.json").read_bytes() == written


def test_new_cases_go_to_the_training_set_if_asked_and_stay_there(run, data, tmp_path, caplog):
    first = run()
    with caplog.at_level(logging.INFO):
        second = run(*data("a", "b"), resume=True, new_cases="training")
    assert ids(second["training"]) == [*ids(first["training"]), "a", "b"]
    assert second["validation"] == first["validation"]
    assert "2 new cases are added to the training set: a, b" in caplog.text
    record = read_split(tmp_path / "split.json")
    assert (record["training"], record["fold"], record["folds"]) == (ids(second["training"]), 0, 4)
    assert record["digests"].keys() == set(ids(second["training"])) | set(ids(second["validation"]))
    assert run(*data("a", "b"), resume=True) == second


def test_what_belongs_to_the_validation_set_never_joins_the_training_set(run, data, tmp_path, caplog):
    """A second time point of a patient that is validated on, and a copy of such an image."""
    judged = ids(run()["validation"])
    copy, other = data("copy", "other")
    shutil.copy(tmp_path / "data" / f"{judged[0]}.nii", copy["image"])
    split = run(copy, other, *data(f"{judged[1]}-2"), resume=True, new_cases="training")
    assert ids(split["training"])[-1] == "other"
    assert len(split["training"]) == 10
    assert f"stay unused: {judged[1]}-2, copy. They belong to the validation set" in caplog.text


def test_what_belongs_to_the_test_set_never_joins_the_training_set(data, tmp_path, caplog):
    """Of a section ``test``: a second time point of its patient, and a copy of its image."""
    cases = [*data("a", "b", "c", "d", domain="x"), *data("t-1", section="test", domain="x")]
    copy, other = data("copy", "other", domain="x")
    shutil.copy(tmp_path / "data" / "t-1.nii", copy["image"])
    more = [*cases, copy, other, *data("t-2", domain="x")]
    for split in (split_cases, split_domains):
        settings = {"folds": 2, "file": tmp_path / f"{split.__name__}.json"}
        first = split(cases, **settings)
        added = split(more, resume=True, new_cases="training", **settings)
        assert ids(added["training"]) == [*ids(first["training"]), "other"]
        assert read_split(settings["file"])["subjects"]["t-1"] == "t", "the test patients remain known"
    assert (
        caplog.text.count("stay unused: copy, t-2. They belong to the validation set, which stays as it was, or") == 2
    )


def test_the_validation_section_of_a_datalist_stays_as_it_was(data, tmp_path, caplog):
    settings = {"file": tmp_path / "split.json", "resume": True, "new_cases": "training"}
    cases = [*data("a", "b", section="training"), *data("c", section="validation"), *data("t", section="test")]
    split_cases(cases, **settings)
    more = [*data("d", section="validation"), *data("e", section="training")]
    split = split_cases([*cases, *more], **settings)
    assert (ids(split["training"]), ids(split["validation"])) == (["a", "b", "e"], ["c"])
    assert "1 cases were added since the run started and stay unused: d." in caplog.text


def test_of_a_part_of_the_cases_the_rest_is_not_new(run, caplog):
    first = run(max_cases=8)
    assert run(max_cases=8, resume=True, new_cases="training") == first
    assert "new" not in caplog.text


def test_all_cases_on_both_sides_learns_from_new_ones_too(run, data):
    first = run(held_out=0)
    split = run(*data("a"), held_out=0, resume=True, new_cases="training")
    assert ids(split["training"]) == [*ids(first["training"]), "a"]
    assert split["validation"] == first["validation"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"fold": 1},
            "split with seed 0, folds 4, fold 0, but the command asks for seed 0, folds 4, fold 1. .* pass --fold 0",
        ),
        ({"folds": 3}, "pass --folds 4; for another split, train in another --output_dir"),
        ({"seed": 5}, "pass --seed 0; "),
        ({"max_cases": 6}, "omit --max_cases; "),
        ({"held_out": 0.25}, "pass --folds 4 and pass --fold 0 and omit --held_out; "),
    ],
)
def test_another_split_is_refused(run, tmp_path, asked, message):
    run()
    written = (tmp_path / "split.json").read_bytes()
    with pytest.raises(ConfigError, match=message):
        run(resume=True, **asked)
    assert (tmp_path / "split.json").read_bytes() == written


def test_a_split_by_sections_is_not_drawn_anew_without_them(data, tmp_path):
    settings = {"file": tmp_path / "split.json", "folds": 2}
    split_cases([*data("a", section="training"), *data("b", section="validation")], **settings)
    with pytest.raises(ConfigError, match=r"split with the data set's own sections, but .* give the data set its sec"):
        split_cases(data("a", "b"), resume=True, **settings)


def test_files_of_earlier_versions_have_no_digests_and_fewer_settings(run, data, tmp_path):
    first = run()
    record = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    (tmp_path / "split.json").write_text(
        json.dumps({key: value for key, value in record.items() if key not in ("digests", "max_cases")}),
        encoding="utf-8",
    )
    assert run(*data("a"), resume=True) == first
    with pytest.raises(ConfigError, match="pass --fold 0"):
        run(resume=True, fold=1)


def test_a_case_that_is_gone(run):
    run()
    with pytest.raises(
        DataError, match=r"1 cases of the run's split\.json are not in the data set.*such as c03\. Check"
    ):
        run(names=[f"c{n:02}" for n in range(12) if n != 3], resume=True)


def test_a_case_that_was_renamed(run, data, tmp_path):
    run()
    (tmp_path / "data" / "c03.nii").rename(tmp_path / "data" / "x.nii")
    with pytest.raises(
        DataError, match=r"case c03 of the run's split\.json is now called x\. Rename it to c03, or train"
    ):
        run(*data("x"), names=[f"c{n:02}" for n in range(12) if n != 3], resume=True)


def test_a_case_that_holds_another_image(run, tmp_path):
    run()
    file = tmp_path / "data" / "c03.nii"
    file.write_text("voxels of another", encoding="utf-8")
    with pytest.raises(DataError, match=f"case c03 does not hold the image .*{re.escape(str(file))}"):
        run(resume=True)


def test_without_a_split_it_is_drawn(run, tmp_path):
    resumed = run(resume=True)
    Path(tmp_path / "split.json").unlink()
    assert resumed == run()
    with pytest.raises(ConfigError, match="new_cases='validation': choose unused or training"):
        run(resume=True, new_cases="validation")


def test_domains_go_on_with_their_split_too(data, tmp_path, caplog):
    cases = [*data("a0", "a1", "a2", domain="a"), *data("b0", "b1", domain="b")]
    settings = {"folds": 2, "file": tmp_path / "split.json"}
    first = split_domains(cases, **settings)
    more = [*cases, *data("a3", domain="a")]
    assert split_domains(more, resume=True, **settings) == first
    assert "stay unused: a3. --new_cases training" in caplog.text
    alone = split_domains(more, resume=True, train_domains=["b"], **settings)
    assert alone["validation"] == [case for case in first["validation"] if case["domain"] == "b"]
    added = split_domains(more, resume=True, new_cases="training", **settings)
    assert ids(added["training"]) == [*ids(first["training"]), "a3"]
    counts = read_split(tmp_path / "split.json")["counts"]
    assert sum(counts["a"].values()) == 4
    assert sum(counts["b"].values()) == 2
    with pytest.raises(ConfigError, match="pass --fold 0; "):
        split_domains(cases, resume=True, fold=1, **settings)
    with pytest.raises(ConfigError, match="pass --split_by subject; "):
        split_domains(cases, resume=True, by="patch", **settings)


def test_hidden_labels_of_a_domain_stay_hidden(data, tmp_path, caplog):
    cases = [*data("a0", "a1", "a2", "a3", domain="a", label="l"), *data("b0", "b1", "b2", "b3", domain="b", label="l")]
    settings = {"folds": 2, "file": tmp_path / "split.json", "unlabeled_domains": ["b"]}
    first = split_domains(cases, **settings)
    assert split_domains(cases, resume=True, **settings) == first
    assert split_domains(cases, resume=True, new_cases="training", **settings) == first
    assert "added" not in caplog.text
    more = [*cases, *data("a4", domain="a", label="l"), *data("b4", domain="b", label="l")]
    split = split_domains(more, resume=True, new_cases="training", **settings)
    assert ids(split["training"]) == [*ids(first["training"]), "a4"]
    assert ids(split["unlabeled"]) == [*ids(first["unlabeled"]), "b4"]
    assert not any("label" in case for case in split["unlabeled"])
    assert all("label" in case for case in split["validation"])
    with pytest.raises(ConfigError, match=r"but the command asks for .* pass --unlabeled_domains \['b'\]"):
        split_domains(more, resume=True, new_cases="training", **{**settings, "unlabeled_domains": None})


def test_a_checkpoint_without_its_split_is_not_resumed(run, tmp_path):
    run(resume=True)  # nothing was trained: the split is drawn
    (tmp_path / "split.json").unlink()
    (tmp_path / "last.pt").touch()
    with pytest.raises(ConfigError, match=r"split.json is missing, so the training and validation cases of .*last.pt"):
        run(resume=True)


def test_a_limit_above_the_number_of_cases_is_no_other_split(run):
    first = run(max_cases=40)
    assert run(max_cases=40, resume=True) == run(resume=True) == first
