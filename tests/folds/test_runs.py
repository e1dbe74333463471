# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pytest

from segan_monai.errors import DataError
from segan_monai.folds import (
    check_complete,
    choose_region_rules,
    configurations,
    out_of_fold_scores,
    run_fold,
    score_ensemble,
)
from segan_monai.folds.calibration import pooled_calibration
from segan_monai.reproduce import Plan
from segan_monai.trained import write_region_rules
from tests.bundles.workflow import SMALL_BRAIN_TRAINING
from tests.forked import run_in_fork

SMALL = {
    "base_channels": 2,
    "num_levels": 3,
    "full_resolution_channels": 0,
    "slice_size": [16, 16],
    "epochs": 1,
    "val_interval": 1,
    "batch_size": 4,
    "slices_per_volume": 2,
    "folds": 2,
    "device": "cpu",
    "supervised_weight": 0.5,
}


@pytest.fixture
def forked(monkeypatch):
    """Trainings and evaluations are forked instead of started, each."""
    monkeypatch.setattr("segan_monai.reproduce.runs.subprocess.run", run_in_fork)


@pytest.mark.slow
def test_a_softmax_with_relabelled_tissues_is_an_ensemble_of_itself(brains, tmp_path, forked):
    settings = {key: value for key, value in SMALL_BRAIN_TRAINING.items() if key != "epochs"}
    bundle = "brain_mri_adversarial_normalization_segmentation"
    plan = Plan(configurations(bundle, []), brains, tmp_path / "out", overrides={**settings, "epochs": 1})
    run = run_fold(plan, "bundle", 0, 0, save_maps=True)
    scores = out_of_fold_scores([run])
    assert {case.split("_")[0] for case in scores["case"]} == {"iSEG", "MRBrainS"}
    assert (scores["dice"] > 0).any()
    together = out_of_fold_scores([score_ensemble(plan, [run, replace(run, row="again")])])
    one, other = (
        table.drop(columns="row").sort_values(["case", "region"], ignore_index=True) for table in (together, scores)
    )
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.slow
def test_a_fold_with_ensembles_and_rules_is_scored_and_kept(hippocampi, tmp_path, forked):
    plan = Plan(configurations("hippocampus", []), hippocampi, tmp_path / "out", overrides=SMALL)
    run = run_fold(plan, "bundle", 0, 0, save_maps=True)
    scores = out_of_fold_scores([run])
    split = json.loads((run.training / "split.json").read_text(encoding="utf-8"))
    assert sorted(scores["case"]) == sorted(2 * split["validation"])  # two regions
    assert len(split["validation"]) == 2
    assert check_complete([run]) == ["bundle, seed 0: 2 of 4 cases were in no evaluated fold."]

    files = run.training / "model.pt", run.evaluation / "run.json"
    written = [file.stat().st_mtime_ns for file in files]
    assert run_fold(plan, "bundle", 0, 0, save_maps=True) == run
    assert [file.stat().st_mtime_ns for file in files] == written

    calibration, without = pooled_calibration([run])
    assert (list(calibration["bundle"]), without) == (["anterior", "posterior"], [])

    # the ensemble of a configuration with itself is that configuration
    together = out_of_fold_scores([score_ensemble(plan, [run, replace(run, row="again")])])
    assert set(together["row"]) == {"bundle + again"}
    assert (plan.output_dir / "ensembles" / "bundle + bundle").is_dir(), "of the runs, whatever the rows are called"
    pd.testing.assert_frame_equal(together.drop(columns="row"), scores.drop(columns="row"))

    # maps whose mean with those of the network is the label map
    opposite = tmp_path / "opposite"
    shutil.copytree(run.evaluation, opposite)
    for case in pd.read_csv(opposite / "metrics.csv")["case"].unique():
        file = opposite / f"{case}_probabilities.nii.gz"
        maps = nibabel.load(file)
        label = nibabel.load(hippocampi / "labelsTr" / f"{case}.nii.gz").get_fdata()
        truth = np.stack([label == 1, label == 2], axis=-1)
        nibabel.save(nibabel.Nifti1Image((2 * truth - maps.get_fdata()).astype(np.float32), maps.affine), file)
    perfect = score_ensemble(plan, [run, replace(run, row="opposite", evaluation=opposite)])
    assert out_of_fold_scores([perfect])["dice"].tolist() == [1.0] * 4

    # rules of all cases, beside the weights
    chosen = choose_region_rules(plan, [run])
    assert (chosen["cases"], list(chosen["regions"])) == (sorted(set(scores["case"])), ["anterior", "posterior"])
    before = [gain["dice_before"] for gain in chosen["regions"].values()]
    assert before == pytest.approx(
        scores.groupby("region")["dice"].mean().tolist(), abs=0.02
    )  # of regions by themselves
    record = json.loads((run.training / "model.json").read_text(encoding="utf-8"))
    assert record["settings"]["region_rules"] == (chosen["rules"] or None)
    assert record["region_rules_chosen"] == {"cases": chosen["cases"], "regions": chosen["regions"]}

    # a missing map is made again, and rules are not applied to the cases that they were chosen on
    write_region_rules(run.training / "model.pt", {"anterior": {"smallest_voxels": 10**6}}, {})
    next(run.evaluation.glob("*_probabilities.nii.gz")).unlink()
    run_fold(plan, "bundle", 0, 0, save_maps=True)
    assert len(list(run.evaluation.glob("*_probabilities.nii.gz"))) == 2
    assert out_of_fold_scores([run]).equals(scores)


@pytest.mark.slow
def test_a_data_set_with_its_own_validation_cases_has_no_folds(hippocampi, tmp_path, forked):
    content = json.loads((hippocampi / "dataset.json").read_text(encoding="utf-8"))
    content["validation"] = content["training"][2:]
    content["training"] = content["training"][:2]
    (hippocampi / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    plan = Plan(configurations("hippocampus", []), hippocampi, tmp_path / "out", overrides=SMALL)
    with pytest.raises(DataError, match=r"names its own validation cases, which are held out whatever the fold is"):
        run_fold(plan, "bundle", 0, 1)
