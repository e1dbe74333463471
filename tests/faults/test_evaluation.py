# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation over many cases: a bad one is in no mean, and is named."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

from segan_monai.engines import FailedCasesError
from segan_monai.errors import causes
from tests.bundles.workflow import (
    BRAIN,
    BRATS,
    HIPPOCAMPUS,
    PANCREAS,
    SKIN,
    SMALL,
    SMALL_BRAIN,
    SMALL_PANCREAS,
    make_workflow,
)
from tests.faults.inference_data import UNTRAINED, save_weights
from tests.faults.processes import Command

pytestmark = pytest.mark.slow


def evaluate(bundle, data, tmp_path, overlay=None, **overrides):
    """Evaluate a network of random weights; returns the message of the failure and the evaluated cases."""
    folders = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out"), "ckpt_dir": str(tmp_path / "models")}
    run = make_workflow(bundle, "evaluating", overlay, **{**UNTRAINED, **folders, "subset": "all", **overrides})
    run.initialize()
    with pytest.raises(Exception) as caught:
        run.run()
    (failure,) = (link for link in causes(caught.value) if isinstance(link, FailedCasesError))
    return str(failure), evaluated(tmp_path)


def evaluated(tmp_path):
    if not (tmp_path / "out" / "metrics.csv").is_file():
        return set()
    with (tmp_path / "out" / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        return {row["case"] for row in csv.DictReader(stream)}


def summary(tmp_path):
    return json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))


def test_the_command_line_ends_with_the_bad_case_and_status_1(hippocampi, tmp_path):
    data = shutil.copytree(hippocampi, tmp_path / "data")
    bad = data / "imagesTr" / "case_1.nii.gz"
    bad.write_bytes(bad.read_bytes()[:500])
    save_weights(tmp_path, seed=0)
    folders = {"dataset_dir": data, "output_dir": tmp_path / "out", "ckpt_dir": tmp_path / "models"}
    run = Command("evaluating", tmp_path, subset="all", **folders)
    assert run.wait() == 1
    error, named = run.text.strip().splitlines()[-2:]
    assert error == (
        "error: 1 of 8 cases failed; the results of the others are complete. Fix these and run the same command again:"
    )
    assert named.startswith(f"  case_1: {bad} cannot be read")
    assert "not evaluated, and in no mean: case_1" in run.text
    assert evaluated(tmp_path) == {f"case_{number}" for number in (0, 2, 3, 4, 5, 6, 7)}
    assert summary(tmp_path)["cases"] == 7
    assert f"{bad} cannot be read" in summary(tmp_path)["not_evaluated"]["case_1"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "7 evaluated, 1 failed and in no mean" in page
    assert f"case_1: not evaluated: {bad} cannot be read" in page


@pytest.mark.usefixtures("process_as_before")
def test_a_case_without_a_modality_is_not_evaluated(phantoms, tmp_path):
    data = shutil.copytree(phantoms, tmp_path / "data")
    cases = sorted(folder for folder in data.iterdir() if folder.is_dir())
    bad = cases[1]
    (bad / f"{bad.name}_t1ce.nii.gz").unlink()
    failure, found = evaluate(BRATS, data, tmp_path)
    assert failure.startswith("1 of 4 cases failed; the results of the others are complete.")
    assert f"{bad.name}: BraTS case {bad.name} in {bad} has no file for t1c; it has " in failure
    assert found == {case.name for case in cases} - {bad.name}
    assert list(summary(tmp_path)["not_evaluated"]) == [bad.name]


@pytest.mark.usefixtures("process_as_before")
@pytest.mark.parametrize(
    ("bundle", "fixture", "pattern", "settings"),
    [
        (HIPPOCAMPUS, "hippocampi", "imagesTr/*", SMALL),
        (BRAIN, "brains", "**/*T1*", SMALL_BRAIN),
        (SKIN, "photographs", "*Data/*0.jpg", {"device": "cpu", "base_channels": 4, "image_size": [32, 32]}),
        (PANCREAS, "slices", "images/*", {**SMALL_PANCREAS, "overlay": "ct_pictures.json", "count_operations": True}),
    ],
)
def test_in_every_bundle_also_if_all_cases_are_bad(bundle, fixture, pattern, settings, request, tmp_path, caplog):
    data = shutil.copytree(request.getfixturevalue(fixture), tmp_path / "data")
    files = sorted(file for file in data.glob(pattern) if file.suffix in (".gz", ".img", ".jpg", ".nii"))
    files[0].write_bytes(files[0].read_bytes()[:300])
    failure, found = evaluate(bundle, data, tmp_path, **settings)
    assert failure.startswith("1 of ")
    assert str(files[0]) in failure
    assert len(found) >= 3
    shutil.rmtree(tmp_path / "out")
    for file in {*files, *data.rglob("*.jpg"), *data.rglob("*T1*")}:
        file.write_bytes(file.read_bytes()[:300])
    failure, found = evaluate(bundle, data, tmp_path, **settings)
    count = int(failure.split()[0])
    assert failure.startswith(f"{count} of {count} cases failed")
    assert not found
    assert not (tmp_path / "out" / "summary.json").exists()
    assert "no report" not in caplog.text
