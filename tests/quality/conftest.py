# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import numpy as np
import pytest

SETTINGS = {"slice_axis": [2, 0], "members": 1, "regions": ["lesion"]}


def signals_of(dice, rng):
    """Signals that follow the Dice, with noise; of an image like all others."""
    soft = float(np.clip(dice + rng.normal(0, 0.03), 0, 1))
    region = {"soft_dice": soft, "outline_certainty": 0.5, "largest_part": 1 - rng.random() / 10}
    region |= {"log_ml": rng.normal(2, 0.3), "agreement_axes": float(np.clip(dice + rng.normal(0, 0.1), 0, 1))}
    return {"image": {"T1 0.5": rng.normal(0.5, 0.1), "extent 0": 3.0}, "regions": {"lesion": region}}


def evaluation(folder, count=50, seed=0, settings=SETTINGS, trained_on=(), first=0, per_patient=2):
    """Folder of an evaluation of cases whose Dice is from 0.5 to 1."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    cases, lines = {}, ["case,region,dice"]
    for number in range(first, first + count):
        dice = 1 - rng.random() / 2
        cases[f"c{number}"] = {"patient": f"p{number // per_patient}", **signals_of(dice, rng)}
        lines.append(f"c{number},lesion,{dice:.6f}")
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = {"version": 1, "settings": settings, "trained_on": trained_on, "cases": cases}
    (folder / "signals.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def fitted(tmp_path):
    """Settings and cases of two folds."""
    from segan_monai.quality import read_evaluations

    return read_evaluations([evaluation(tmp_path / "0"), evaluation(tmp_path / "1", seed=1, first=50)])


def usual(**changes):
    """Signals of a usual case, with changes of its region."""
    region = {"soft_dice": 0.75, "outline_certainty": 0.5, "largest_part": 0.95, "log_ml": 2.0, "agreement_axes": 0.75}
    return {"T1 0.5": 0.5, "extent 0": 3.0}, {"lesion": {**region, **changes}}


EMPTY = math.log(0.1)
