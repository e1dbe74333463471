# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A data set that grows or changes its names between a training, its resumption and its evaluation."""

from __future__ import annotations

import csv
import json

import pytest

from segan_monai.check import check_command_line
from segan_monai.data import write_phantoms
from segan_monai.errors import ConfigError, DataError, user_error_in
from tests.bundles.workflow import BRATS, BUNDLES, FILES, SMALL, SMALL_TRAINING, run_workflow

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Seven phantoms in the decathlon's layout."""
    folder = tmp_path_factory.mktemp("volumes")
    write_phantoms(folder, cases=7, seed=2, spacing_mm=8.0, layout="msd", workers=1)
    return folder


@pytest.fixture
def bundle(volumes, tmp_path):
    """Run or check a task of the BraTS bundle on some of the phantoms under names of their own."""

    def run(task, names, check=False, **overrides):
        entries = json.loads((volumes / "dataset.json").read_text(encoding="utf-8"))
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        training = []
        for name, entry in zip(names, entries["training"], strict=False):
            if name is None:
                continue
            for kind in ("image", "label"):
                link = data / f"{name}_{kind}.nii.gz"
                if not link.exists():
                    link.symlink_to(volumes / entry[kind])
            training.append({"case": name, "image": f"{name}_image.nii.gz", "label": f"{name}_label.nii.gz"})
        (data / "dataset.json").write_text(json.dumps({**entries, "training": training, "test": []}), encoding="utf-8")
        settings = {
            "dataset_dir": str(data),
            "output_dir": str(tmp_path / ("run" if task == "training" else "evaluation")),
            "ckpt_dir": str(tmp_path / "models"),
            **overrides,
        }
        if not check:
            return run_workflow(BRATS, task, **settings)
        sizes = SMALL_TRAINING if task == "training" else SMALL
        given = {"run_id": task, "config_file": [str(BUNDLES / BRATS / "configs" / FILES[task])]}
        return check_command_line(given | sizes | settings, quick=True, processes=1)[0]

    return run


def read_split(folder):
    return json.loads((folder / "split.json").read_text(encoding="utf-8"))


def test_a_resumed_training_goes_on_with_its_split(bundle, tmp_path, caplog):
    names = ["a", None, "c", None, "e", "f", None]
    grown = ["a", "b", "c", "d", "e", "f", "g"]  # drawn anew, four of them would be validated on
    bundle("training", names, epochs=2)
    first = read_split(tmp_path / "run")
    bundle("training", grown, epochs=3, resume="true")
    assert read_split(tmp_path / "run") == read_split(tmp_path / "models") == first
    assert "3 cases were added since the run started and stay unused: b, d, g." in caplog.text
    with (tmp_path / "run" / "history.csv").open(encoding="utf-8") as stream:
        assert max(int(row["epoch"]) for row in csv.DictReader(stream)) == 3

    bundle("evaluating", grown)
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as stream:
        judged = {row["case"] for row in csv.DictReader(stream)}
    assert judged == {*first["validation"], "b", "d", "g"}

    with pytest.raises(RuntimeError) as caught:
        bundle("training", grown, epochs=4, resume=True, fold=1)
    message = str(user_error_in(caught.value))
    assert isinstance(user_error_in(caught.value), ConfigError)
    assert "fold 0, but the command asks for seed 0, folds 2, fold 1." in message
    assert "pass --fold 0" in message

    report = bundle("training", grown, check=True, resume="true", new_cases="training", epochs=4)
    assert report.findings == []
    assert report.measured["cases"] == {"training": 5, "validation": 2}
    report = bundle("training", grown, check=True, resume="true", fold=1, epochs=4)
    assert [finding.message for finding in report.findings] == [message]
    assert read_split(tmp_path / "run") == first, "a check writes nothing"

    bundle("training", grown, epochs=4, resume=True, new_cases="training")
    assert read_split(tmp_path / "run")["training"] == [*first["training"], "b", "d", "g"]
    assert read_split(tmp_path / "run")["validation"] == first["validation"]


def test_training_cases_under_new_names_are_not_evaluated(bundle, tmp_path, caplog):
    names = ["a", "b", "c", "d"]
    bundle("training", names)
    split = read_split(tmp_path / "run")
    renamed = [f"patient_{name}" for name in names]
    caplog.set_level("INFO", logger="segan_monai")
    bundle("evaluating", renamed)
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as stream:
        assert {row["case"] for row in csv.DictReader(stream)} == {f"patient_{name}" for name in split["validation"]}
    trained = split["training"][0]
    assert f"case patient_{trained} is training case {trained} under another name" in caplog.text

    only_training = [f"patient_{name}" if name in split["training"] else None for name in names]
    report = bundle("evaluating", only_training, check=True)
    assert "no case is left in subset 'held_out' of 2 cases" in report.findings[0].message
    with pytest.raises(RuntimeError) as caught:
        bundle("evaluating", only_training)
    assert isinstance(user_error_in(caught.value), DataError)
