# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segan_monai.metrics.evaluation import case_metrics
from segan_monai.metrics.summary import summarize
from segan_monai.reproduce import Plan, ResultTable, format_csv, format_markdown
from segan_monai.reproduce.results import read_training
from tests.reproduce.results import result

TABLE = ResultTable(
    name="segan-vs-unet",
    title="SegAN against U-Net",
    source="a paper",
    data="its data",
    bundle="some_bundle",
    metrics=["dice", "hd95_mm"],
    rows={"SegAN": [], "U-Net": []},
    published={"SegAN": {"dice": {"whole": 0.85}}, "U-Net": {}},
)


RUNS = [result("SegAN", 0, 0.8, 0.6), result("SegAN", 2, 0.9, 0.7), result("U-Net", 0, 0.7, 0.5, failures=1)]
PLAN = Plan(TABLE, Path("data") / "Task04", Path("out"), overrides={"base_channels": 4})


def test_markdown_has_mean_spread_and_published_side_by_side():
    lines = format_markdown(PLAN, RUNS).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    segan, unet = (dict(zip(cells[0], row, strict=True)) for row in cells[2:])
    # standard deviation of the sample: |a - b| / sqrt(2)
    assert segan == {
        "": "SegAN",
        "Dice left": "0.850 ± 0.071",
        "Dice right": "0.650 ± 0.071",
        "Dice mean": "0.750 ± 0.071",
        "HD95 mm left": "2.000 ± 0.000",
        "HD95 mm right": "2.000 ± 0.000",
        "HD95 mm mean": "2.000 ± 0.000",
        "epochs": "10/12",
        "training s": "101",
        "peak MiB": "502",
        "parameters M": "1.5 (+ 0.25 in training)",
        "published Dice whole": "0.85",
    }
    assert unet["Dice mean"] == "0.600"
    assert unet["HD95 mm left"] == "inf"  # a case was missed: its distance is not dropped from the mean
    assert unet["parameters M"] == "1.5"
    assert unet["published Dice whole"] == ""


def test_a_region_that_no_case_of_a_run_is_labelled_for_is_left_empty():
    """Not even in the first run, nor in the mean over regions."""
    runs = [result("SegAN", fold, dice, dice + 0.1) for fold, dice in enumerate((0.5, 0.6, 0.8))]
    del runs[0]["regions"]["right"], runs[1]["regions"]["left"]
    runs = [{**run, "seed": 0, "fold": fold} for fold, run in enumerate(runs)]
    text = format_markdown(PLAN, [*runs, result("U-Net", 0, 0.7, 0.5)])
    head, _, segan, _ = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[:4])
    cells = dict(zip(head, segan, strict=True))
    assert cells["Dice left"] == "0.650 ± 0.212"  # .5 and .8
    assert cells["Dice right"] == "0.800 ± 0.141"  # .7 and .9
    assert cells["Dice mean"] == "0.850"
    assert "SegAN: no held-out case of 1 of 3 runs is labelled for right; its figures, and the means" in text
    assert "U-Net: no held-out" not in text
    runs[1]["dice_of_domains"] = {"scanner": {"left": 0.5}}
    rows = list(csv.DictReader(io.StringIO(format_csv(runs[1:]))))
    assert [(row["region"], row["dice_scanner"]) for row in rows] == [("right", ""), ("left", ""), ("right", "")]


@pytest.mark.parametrize("prediction", [[[0, 1], [1, 1]], [[0, 0], [0, 0]]])
def test_distances_of_photographs_without_spacing_are_left_out(prediction):
    """Also where a missed lesion has an infinite distance in any unit, and others an unknown one."""
    reference = np.array([[0, 1], [0, 1]])
    predictions = [np.array([[1, 1], [0, 0]]), np.array(prediction)]
    of_cases = [case_metrics(predicted, reference, None, {"lesion": [1]})[0] for predicted in predictions]
    found = summarize(pd.DataFrame([{"case": f"{number}", **row} for number, row in enumerate(of_cases)]))
    runs = [{**result("SegAN", seed, 0, 0), "regions": found["regions"]} for seed in (0, 1)]
    text = format_markdown(PLAN, runs)
    dice = (0.5 + (0.8 if np.any(prediction) else 0.0)) / 2
    assert text.startswith("|  | Dice lesion | epochs |")
    assert f"| SegAN | {dice:.3f} ± 0.000 |" in text
    assert "HD95 mm left out: the spacing of the images is unknown." in text
    assert not re.search(r"\b(nan|inf)\b", text)
    assert [row["hd95_mm"] for row in csv.DictReader(io.StringIO(format_csv(runs)))] == ["", ""]
    assert "left out" not in format_markdown(PLAN, RUNS)


def test_metrics_that_some_rows_have_and_operations():
    with_rois = result("SegAN", 0, 0.8, 0.6)
    with_rois["regions"]["left"]["roi_iou"] = {"mean": 0.5}
    with_rois["gflop_per_slice"] = 6.234
    table = replace(TABLE, metrics=["dice", "roi_iou"])
    text = format_markdown(replace(PLAN, table=table), [with_rois, result("U-Net", 0, 0.7, 0.5)])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[:4]]
    segan, unet = (dict(zip(cells[0], row, strict=True)) for row in cells[2:])
    assert (segan["RoI IoU left"], segan["GFLOP per slice"]) == ("0.500", "6.23")
    assert (unet["RoI IoU left"], unet["GFLOP per slice"]) == ("", "")
    rows = list(csv.DictReader(io.StringIO(format_csv([with_rois, result("U-Net", 0, 0.7, 0.5)]))))
    assert [row["roi_iou"] for row in rows] == ["0.5", "", "", ""]
    assert rows[0]["gflop_per_slice"] == "6.234"


def test_a_figure_of_the_training_stands_beside_its_published_one():
    runs = [{**result("SegAN", seed, 0.8, 0.6), "box_iou": 0.7 + seed / 10} for seed in (0, 2)]
    published = {"SegAN": {"box_iou": {"in training": 0.9203}}, "U-Net": {}}
    table = replace(TABLE, metrics=["dice", "box_iou"], published=published)
    text = format_markdown(replace(PLAN, table=table), [*runs, result("U-Net", 0, 0.7, 0.5)])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[:4]]
    segan, unet = (dict(zip(cells[0], row, strict=True)) for row in cells[2:])
    # .7 and .9: their standard deviation is .2 / sqrt(2)
    assert (segan["box IoU in training"], segan["published box IoU in training"]) == ("0.800 ± 0.141", "0.92")
    assert (unet["box IoU in training"], unet["published box IoU in training"]) == ("", "")
    rows = list(csv.DictReader(io.StringIO(format_csv(runs))))
    assert [row["box_iou"] for row in rows] == ["0.7", "0.7", "0.9", "0.9"]
    assert "box IoU" not in format_markdown(PLAN, runs), "a table that does not ask for it"


def test_the_last_epoch_of_training_counts(tmp_path):
    lines = [
        "epoch,seconds,name,value",
        "0,0,parameters_network,12",
        "1,2,training/box_iou,0.9",
        "2,3,peak_memory_mib,7",
    ]
    (tmp_path / "history.csv").write_text("\n".join([*lines, "2,3,training/box_iou,0.5"]), encoding="utf-8")
    found = read_training(tmp_path)
    assert (found["box_iou"], found["epochs"], found["parameters"]) == (0.5, 2, {"network": 12})
    (tmp_path / "history.csv").write_text("\n".join([lines[0], lines[1], lines[3]]), encoding="utf-8")
    assert "box_iou" not in read_training(tmp_path)


@pytest.mark.parametrize("key", ["split#seed", "split::seed"])
def test_markdown_says_that_all_seeds_have_the_same_folds(key):
    text = format_markdown(replace(PLAN, overrides={key: 0}), RUNS)
    assert f"4 held out by subject, initialization by seed (0, 2); bundle some_bundle, {key}=0." in text


def test_markdown_says_how_to_read_it():
    text = format_markdown(PLAN, RUNS, {"Other": "it broke"})
    assert "Published: a paper, on its data." in text
    assert "Ours: Task04, 16 training cases, 4 held out by subject" in text
    assert "by subject, split and initialization by seed (0, 2); bundle some_bundle, base_channels=4." in text
    assert "Dice of 0 (included in the means): U-Net 2." in text  # one in each of two regions
    assert "| Other |" in text
    assert "**Other failed**: it broke" in text


def test_markdown_names_the_rows_that_a_setting_does_not_change(tmp_path):
    for name, content in (("unet", {"base_channels": 8, "epochs": 3}), ("other", {"epochs": 3})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    rows = {"SegAN": [], "U-Net": [tmp_path / "unet.json"], "not run": [tmp_path / "other.json"]}
    plan = replace(PLAN, table=replace(TABLE, rows=rows), overrides={"base_channels": 4, "epochs": 1, "norm": "group"})
    kept = (
        "Not changed by --set or --config, because these rows set the key themselves: "
        "base_channels (U-Net); epochs (U-Net).\n"
    )
    assert kept in format_markdown(plan, RUNS)
    assert "Not changed" not in format_markdown(PLAN, RUNS)


def test_markdown_tells_labelled_and_unlabelled_cases_apart():
    few = {"training_cases": 8, "unlabeled_cases": 57}
    runs = [
        {**result("source only", 0, 0.5, 0.5), **few, "training_cases": 7},
        {**result("source only", 1, 0.5, 0.5), **few},
        {**result("output critic", 0, 0.5, 0.5), **few},
        {**result("target labelled", 0, 0.5, 0.5), "training_cases": 65},
    ]
    plan = replace(PLAN, table=replace(TABLE, published={run["row"]: {} for run in runs}))
    assert "Ours: Task04, 8 labelled, 57 unlabelled training cases, 4 held out" in format_markdown(plan, runs[:3])
    assert "Ours: Task04, 8 labelled, 57 unlabelled or 65 labelled training cases," in format_markdown(plan, runs)


def test_csv_has_every_run_and_region():
    rows = list(csv.DictReader(io.StringIO(format_csv(RUNS))))
    assert len(rows) == 6
    assert (rows[3]["row"], rows[3]["seed"], rows[3]["region"], rows[3]["dice"]) == ("SegAN", "2", "right", "0.7")
    assert (rows[3]["train_seconds"], rows[3]["parameters_critic"]) == ("102", "250000")
    assert rows[4]["parameters_critic"] == ""
