# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that an evaluation leaves for the quality of later results."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ignite.engine import Engine

from segan_monai.data.split_file import write_split
from segan_monai.handlers import CalibrationReport, QualitySignals
from segan_monai.quality.calibration import LOGITS


@pytest.fixture
def split_file(tmp_path):
    """Split of a training with cases ``a``, of patient P1, and ``b``, whose label was hidden."""
    training, unlabelled = case(tmp_path, "a", subject="P1"), case(tmp_path, "b")
    parts = {"training": [training], "validation": [], "unlabeled": [unlabelled]}
    write_split(tmp_path / "split.json", parts, {"seed": 0})
    return tmp_path / "split.json"


def case(folder, name, content=None, subject=None):
    (folder / f"{name}.mha").write_bytes((content or name).encode())
    return {"case": name, "subject": subject or name, "image": str(folder / f"{name}.mha")}


def trained_on(folder, split_file, cases):
    """What ``signals.json`` says after an evaluation of the cases."""
    engine = Engine(lambda engine, batch: [{"quality_signals": {"image": {}, "regions": {}}} for _ in batch])
    QualitySignals(folder, {}, split_file, cases).attach(engine)
    engine.run([[{"case": case["case"], "subject": case["subject"]}] for case in cases])
    return json.loads((folder / "signals.json").read_text(encoding="utf-8"))["trained_on"]


def test_cases_of_the_training_are_known_by_name_content_and_patient(split_file, tmp_path):
    (tmp_path / "now").mkdir()
    cases = [
        case(tmp_path / "now", "b", "b with another header"),
        case(tmp_path / "now", "renamed", "a", subject="X"),
        case(tmp_path / "now", "second_scan", subject="P1"),
        case(tmp_path / "now", "other"),
    ]
    assert trained_on(tmp_path, split_file, cases) == ["b", "renamed", "second_scan"]
    assert trained_on(tmp_path, split_file, cases[3:]) == []


def test_without_a_split_they_are_unknown(split_file, tmp_path):
    cases = [case(tmp_path, "other")]
    assert trained_on(tmp_path, tmp_path / "none.json", cases) is None
    assert trained_on(tmp_path, [split_file, tmp_path / "none.json"], cases) is None


def test_the_calibration_of_an_earlier_run_does_not_stay(tmp_path):
    engine = Engine(lambda engine, batch: [{key: v for key, v in case.items() if key != "case"} for case in batch])
    CalibrationReport(tmp_path, ["lesion"]).attach(engine)
    engine.run([[{"case": "a", "calibration_counts": np.ones((1, 2, len(LOGITS)))}], [{"case": "b"}]])
    assert list(json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))) == ["lesion"]
    engine.run([[{"case": "b"}]])
    assert not (tmp_path / "calibration.json").exists()


def test_the_signals_of_an_earlier_run_do_not_stay(tmp_path):
    signals = [{"quality_signals": {"image": {}, "regions": {}}}]
    engine = Engine(lambda engine, batch: signals if batch else [])
    QualitySignals(tmp_path, {}, tmp_path / "none.json", []).attach(engine)
    engine.run([[{"case": "a"}]])
    assert list(json.loads((tmp_path / "signals.json").read_text(encoding="utf-8"))["cases"]) == ["a"]
    engine.run([[]])  # as of a case that failed
    assert not (tmp_path / "signals.json").exists()
