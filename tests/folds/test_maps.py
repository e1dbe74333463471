# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor

from segan_monai.ensembles import read_predictions
from segan_monai.errors import DataError
from segan_monai.folds import FoldRun, configurations, ensemble_name, ensembles_of, write_results
from segan_monai.folds.maps import mean_map, regions_of
from segan_monai.metrics.summary import SHAPES, evaluation_table, write_evaluation
from segan_monai.reproduce import Plan


def write_map(folder, values, regions=("r",)):
    folder.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, np.float32), np.eye(4)), folder / "a_probabilities.nii.gz")
    summary = {"regions": {name: {"reference_values": [index + 1]} for index, name in enumerate(regions)}}
    for name, content in (("summary.json", summary), ("run.json", {})):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return read_predictions(folder)


def test_the_mean_of_maps_has_regions_first(tmp_path):
    first, second = np.zeros((3, 4, 5, 2)), np.zeros((3, 4, 5, 2))
    first[2, 3, 4], second[2, 3, 4] = (0.9, 0.25), (0.3, 0.75)
    members = [write_map(tmp_path / name, values, "rs") for name, values in (("1", first), ("2", second))]
    mean = mean_map(members, "a", (2, 3, 4, 5))
    assert mean.shape == (2, 3, 4, 5)
    assert mean[:, 2, 3, 4] == pytest.approx([0.6, 0.5])
    assert mean.sum() == pytest.approx(1.1)


@pytest.mark.parametrize(("saved", "shape"), [((3, 4, 5), (1, 3, 4, 5)), ((3, 4), (1, 3, 4)), ((3, 4), (1, 3, 4, 1))])
def test_files_leave_out_axes_of_length_one(tmp_path, saved, shape):
    assert mean_map([write_map(tmp_path / "1", np.ones(saved))], "a", shape).shape == shape


def test_a_map_of_another_shape_is_refused(tmp_path):
    member = write_map(tmp_path / "1", np.zeros((3, 4, 5)))
    with pytest.raises(DataError, match=r"maps of case a in .*1 have shape \(1, 3, 4, 5\); expected \(1, 3, 4, 6\)"):
        mean_map([member], "a", (1, 3, 4, 6))


def test_members_need_the_same_regions(tmp_path):
    runs = []
    for name, values in (("A", [1]), ("B", [1, 2])):
        (tmp_path / name).mkdir()
        summary = {"regions": {"tumour": {"reference_values": values}}}
        (tmp_path / name / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        runs.append(FoldRun(name, 0, 0, tmp_path, tmp_path / name))
    assert regions_of(runs[:1]) == {"tumour": [1]}
    with pytest.raises(DataError, match=r"rows 'A' and 'B' have different regions.*Use --no-ensembles"):
        regions_of(runs)


REGIONS = {"anterior": [1], "posterior": [2]}


@pytest.fixture
def partly_labelled(tmp_path):
    """Two folds of a configuration, each with one case of two voxels; that of the second lacks the anterior part."""

    def fold(row, number, case, labelled):
        training, evaluation = tmp_path / row / str(number) / "training", tmp_path / row / str(number) / "oof"
        for folder in (training, evaluation):
            folder.mkdir(parents=True)
        (training / "model.pt").touch()
        (training / "model.json").write_text(json.dumps({"settings": {"regions": REGIONS}}), encoding="utf-8")
        split = {"training": [], "validation": [case], "fold": number}
        (training / "split.json").write_text(json.dumps(split), encoding="utf-8")
        measures = dict.fromkeys(("dice", "iou", "precision", "sensitivity", "hd95_mm", "assd_mm"), 0.5)
        measures |= dict.fromkeys(SHAPES, 1) | {"reference_ml": 1, "prediction_ml": 1}
        rows = [{"case": case, "region": region, **measures} for region in labelled]
        write_evaluation(evaluation_table(rows), evaluation, REGIONS)
        maps = np.zeros((1, 2, 1, 2), np.float32)
        maps[0, 0, 0, 0] = maps[0, 1, 0, 1] = 0.9
        nibabel.save(nibabel.Nifti1Image(maps, np.eye(4)), evaluation / f"{case}_probabilities.nii.gz")
        return FoldRun(row, 0, number, training, evaluation)

    return {row: [fold(row, 0, "a", REGIONS), fold(row, 1, "b", ["posterior"])] for row in ("A", "B")}


@pytest.mark.parametrize("of_settings", [REGIONS, "auto", "$@others"])
def test_a_region_that_no_case_of_a_fold_is_labelled_for(tmp_path, monkeypatch, partly_labelled, of_settings):
    """It has no figures in that fold, and the maps of the others stay in their places."""
    for run in (run for runs in partly_labelled.values() for run in runs):
        config = {"regions": of_settings, "ckpt_dir": str(run.training)}
        (run.evaluation / "run.json").write_text(json.dumps({"config": config}), encoding="utf-8")

    def cases(plan, run):
        case = {"case": "ab"[run.fold], "label": MetaTensor(torch.tensor([[[[1], [2]]]]))}
        listed = {"labelled_regions": ["posterior"]} if run.fold else {}
        yield {**case, **listed}, {"ignore_label": None, "spacing_known": True}

    for module in ("ensembles", "region_rules"):
        monkeypatch.setattr(f"segan_monai.folds.{module}.labelled_cases", cases)
    plan = Plan(configurations("hippocampus", ["A=axial_slices", "B="]), tmp_path, tmp_path / "out")
    assert regions_of(partly_labelled["A"]) == REGIONS
    assert list(regions_of(partly_labelled["A"][1:])) == ["anterior", "posterior"]
    found = write_results(
        plan, [run for runs in partly_labelled.values() for run in runs], {}, ensembles=True, region_rules=True
    )
    assert found.record is not None
    scores = pd.read_csv(tmp_path / "out" / "folds.csv").query("row == 'A + B'")
    assert scores[["fold", "case", "region", "dice"]].values.tolist() == [
        [0, "a", "anterior", 1.0],
        [0, "a", "posterior", 1.0],
        [1, "b", "posterior", 1.0],
    ]
    assert found.record["region_rules"]["regions"]["posterior"] == {"dice_before": 1.0, "dice_after": 1.0}


def test_pairs_of_configurations_and_all_together():
    assert ensembles_of(["A"]) == []
    assert ensembles_of(["A", "B"]) == [("A", "B")]
    assert ensembles_of(["A", "B", "C"]) == [("A", "B"), ("A", "C"), ("B", "C"), ("A", "B", "C")]
    assert ensemble_name(("A", "B")) == "A + B"
