# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pandas as pd
import pytest

from segan_monai.report import write_report
from segan_monai.report.history import read_history, with_phases

EARLIER = """epoch,seconds,name,value
0,0.000,parameters_network,100
1,5.000,reconstruction_mse,0.5
1,5.000,peak_memory_mib,300
2,5.000,segmentation,0.25
2,5.000,peak_memory_used,7
2,5.000,mean_dice,0.75
2,5.000,CSF,0.75
2,5.000,peak_memory_mib,300
"""
NAMES = [
    "parameters_network",
    "training/reconstruction_mse",
    "peak_memory_mib",
    "training/segmentation",
    "training/peak_memory_used",
    "validation/mean_dice",
    "validation/CSF",
    "peak_memory_mib",
]


def test_names_of_an_earlier_version_get_their_phase_from_the_order(tmp_path):
    (tmp_path / "history.csv").write_text(EARLIER, encoding="utf-8")
    history = read_history(tmp_path / "history.csv")
    assert history["name"].tolist() == NAMES
    assert history["value"].tolist() == [100, 0.5, 300, 0.25, 7, 0.75, 0.75, 300]


def test_a_term_called_as_the_key_metric_stays_one_of_the_training():
    named = pd.DataFrame({"epoch": [1, 1], "name": ["training/mean_dice", "training/CSF"]})
    assert with_phases(named) is named


def test_an_epoch_that_is_no_number():
    with pytest.raises(ValueError, match="x1"):
        with_phases(pd.DataFrame({"epoch": ["x1"], "name": ["CSF"]}))


def test_the_page_of_a_run_of_an_earlier_version_is_the_same(runs):
    training, _ = runs
    now = write_report([training]).read_text(encoding="utf-8")
    file = training / "history.csv"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("training/", "").replace("validation/", ""), encoding="utf-8")
    assert "mean Dice 0.800 in epoch 2" in now
    before = write_report([training]).read_text(encoding="utf-8")
    assert [now.count(panel) for panel in ("<svg", "lesion", "critic")] == [
        before.count(panel) for panel in ("<svg", "lesion", "critic")
    ]
    assert "mean Dice 0.800 in epoch 2" in before
