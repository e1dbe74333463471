# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Folders of a training and an evaluation with known content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segan_monai.metrics.summary import COLUMNS, write_evaluation
from segan_monai.report import save_previews
from tests.report.previews import DICE, preview


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    """Output folders of a training and of the evaluation of its weights."""
    training, evaluation = tmp_path / "training", tmp_path / "evaluation"
    training.mkdir()
    record = {
        "command": "python -m monai.bundle run training --key '<x>'",
        "started": "2026-01-02T03:04:05+0000",
        "seed": 7,
        "versions": {"torch": "2.13.0"},
        "hardware": {"platform": "Linux", "cpu_threads": 2, "cuda": []},
        "config": {"bundle_root": "bundles/tumour_segmentation", "dataset_dir": "BraTS", "folds": 4, "fold": 1},
    }
    (training / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (training / "split.json").write_text(
        json.dumps({"training": ["x", "y"], "validation": list(DICE)}), encoding="utf-8"
    )
    lines = [(0, 0.0, "parameters_network", 2.5e6)]
    for epoch, dice in ((1, None), (2, 0.8), (3, 0.75)):
        lines += [(epoch, 50.0, "training/critic", -epoch)]
        lines += (
            []
            if dice is None
            else [(epoch, 50.0, name, dice) for name in ("validation/mean_dice", "validation/lesion")]
        )
        lines += [(epoch, 50.0, "peak_memory_mib", 100.0 + epoch)]
    pd.DataFrame(lines, columns=["epoch", "seconds", "name", "value"]).to_csv(training / "history.csv", index=False)

    rows = []
    for volume, (case, dice) in enumerate(DICE.items(), start=1):
        predicted, hd95 = (0.0, np.inf) if dice == 0 else (1.0, 1.5)
        sizes = (volume, predicted, 1000 * volume, 1000 * predicted)
        rows.append((case, "lesion", *[dice] * 4, hd95, 0.5, *sizes, 1, 3, 0.5, 0.7))
    write_evaluation(pd.DataFrame(rows, columns=list(COLUMNS)), evaluation, {"lesion": [1]})
    record["config"] |= {
        "ckpt_dir": str(training),
        "subset": "held_out",
        "published": {"source": "Table 9", "values": {"lesion": {"dice": 0.85}}},
    }
    (evaluation / "run.json").write_text(json.dumps(record), encoding="utf-8")
    cases = {"worst": "b", "median": "c", "best": "d"}
    save_previews(evaluation / "previews.npz", {role: preview(case) for role, case in cases.items()})
    return training, evaluation
