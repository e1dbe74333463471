# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator

from segan_monai.engines import CaseEvaluator, FailedCasesError
from segan_monai.errors import DataError
from segan_monai.handlers import EvaluationReport
from segan_monai.metrics import evaluate_folders
from tests.handlers.evaluations import AFFINE, CASES, REGIONS, box, evaluator


def test_report_equals_the_evaluation_of_the_saved_files(tmp_path, caplog):
    engine = evaluator(CASES)
    EvaluationReport(tmp_path / "run", REGIONS).attach(engine)
    with caplog.at_level(logging.INFO):
        engine.run()
    for case in CASES:
        for folder, volume in (("predictions", case["image"]), ("references", case["label"])):
            (tmp_path / folder).mkdir(exist_ok=True)
            image = nib.Nifti1Image(volume[0].numpy().astype(np.uint8), AFFINE.numpy())
            nib.save(image, tmp_path / folder / f"{case['case']}.nii.gz")
    evaluate_folders(tmp_path / "predictions", tmp_path / "references", tmp_path / "again", REGIONS, workers=1)
    for name in ("metrics.csv", "summary.json"):
        assert (tmp_path / "run" / name).read_text(encoding="utf-8") == (tmp_path / "again" / name).read_text(
            encoding="utf-8"
        )
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert table["case"].tolist() == ["a", "a", "b", "b", "c", "c"]
    # shifted by one of five and of two voxels of 2 mm
    assert table["dice"].tolist() == pytest.approx([1, 1, 0, 0, 0.8, 0.5])
    assert table["hd95_mm"].tolist() == [0, 0, np.inf, np.inf, 2, 2]
    assert "failures in inner: b" in caplog.text


def test_predictions_of_another_convention(tmp_path):
    engine = evaluator([{"case": "a", "image": box() * 3, "label": box()}])
    EvaluationReport(tmp_path, REGIONS, {"inner": [6], "outer": [3, 6]}).attach(engine)
    engine.run()
    assert pd.read_csv(tmp_path / "metrics.csv")["dice"].tolist() == [1, 1]


def test_every_run_starts_anew(tmp_path):
    engine = evaluator(CASES[:2])
    EvaluationReport(tmp_path, REGIONS).attach(engine)
    engine.run()
    engine.run()
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["cases"] == 2


def test_nothing_of_an_earlier_evaluation_stays(tmp_path):
    damaged = CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader([{"case": "a", "error": "damaged"}]),
        network=torch.nn.Identity(),
        decollate=True,
    )
    results = ["metrics.csv", "report.html", "summary.json"]
    # other handlers may write them, and remove their own
    beside = ["calibration.csv", "calibration.json", "model.pt", "signals.json"]
    for engine, left in ((evaluator(CASES[:1]), sorted([*results, *beside])), (damaged, beside)):
        for name in (*beside, "report.html"):
            (tmp_path / name).touch()
        EvaluationReport(tmp_path, REGIONS).attach(engine)
        with pytest.raises(FailedCasesError, match="a: damaged") if engine is damaged else nullcontext():
            engine.run()
        assert sorted(file.name for file in tmp_path.iterdir()) == left


def test_images_of_two_dimensions(tmp_path):
    flat = {"case": "a", "image": box(1)[:, :, :, 4], "label": box()[:, :, :, 4]}
    engine = evaluator([flat])
    EvaluationReport(tmp_path, REGIONS).attach(engine)
    engine.run()
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["dice"].tolist() == pytest.approx([0.8, 0.5])
    assert table["hd95_mm"].tolist() == [2, 2]


def test_photographs_have_no_millimetres(tmp_path):
    flat = {"case": "a", "image": box(1)[:, :, :, 4], "label": box()[:, :, :, 4]}
    engine = evaluator([flat])
    EvaluationReport(tmp_path, REGIONS, spacing_known=False).attach(engine)
    engine.run()
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["dice"].tolist() == pytest.approx([0.8, 0.5])
    assert table[["hd95_mm", "assd_mm", "reference_ml", "prediction_ml"]].isna().all(axis=None)


def test_cases_that_decided_the_rules_are_named(tmp_path, caplog):
    weights = tmp_path / "model.pt"
    record = {"settings": {}, "region_rules_chosen": {"cases": ["b", "z"]}}
    weights.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    cases = [{"case": name, "image": box(1), "label": box()} for name in ("a", "b")]
    for rules_of, seen in ((weights, ["b"]), (None, None)):
        caplog.clear()
        engine = evaluator(cases)
        EvaluationReport(tmp_path, REGIONS, rules_of=rules_of).attach(engine)
        with caplog.at_level(logging.INFO):
            engine.run()
        summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
        assert summary.get("region_rules_chosen_on") == seen
        assert ("region_rules were chosen on 1 of these cases" in caplog.text) == bool(seen)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image": box() * 0.5}, "prediction of case a: value 0.5 is not an integer"),
        ({"image": box() * 2}, r"prediction of case a holds the label values 4; expected 0, 1, 2"),
        ({"label": box() * 5}, r"reference of case a holds the label values 5, 10; expected 0, 1, 2"),
        ({"image": box()[..., :5]}, r"prediction of case a has shape \(10, 9, 5\), but reference of case a has"),
        (
            {"image": MetaTensor(box().as_tensor())},
            r"prediction of case a has affine .* voxels \(tolerance 0.25 voxels\)",
        ),
        ({"image": box().as_tensor()}, "prediction of case a is a Tensor; expected a MetaTensor"),
        ({"image": box().repeat(3, 1, 1, 1)}, r"prediction of case a has shape \(3, 10, 9, 8\); expected \(1, H, W"),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path, changed, message):
    case = {"case": "a", "image": box(), "label": box(), **changed}
    engine = SimpleNamespace(state=SimpleNamespace(batch=[case], output=[{"pred": case["image"]}]))
    with pytest.raises(DataError, match=message):
        EvaluationReport(tmp_path, REGIONS).collect(engine)


def test_a_case_must_not_occur_twice(tmp_path):
    engine = evaluator([CASES[0], CASES[0]], batch_size=1)
    EvaluationReport(tmp_path, REGIONS).attach(engine)
    with pytest.raises(DataError, match="case c occurs twice"):
        engine.run()


def test_needs_decollated_data(tmp_path):
    engine = SupervisedEvaluator(torch.device("cpu"), DataLoader(CASES), torch.nn.Identity(), decollate=False)
    EvaluationReport(tmp_path, REGIONS).attach(engine)
    with pytest.raises(DataError, match="decollate=True"):
        engine.run()
