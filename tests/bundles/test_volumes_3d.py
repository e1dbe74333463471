# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The bundles with 3-D networks: one key for training, none for what follows it."""

from __future__ import annotations

import csv
import json
import logging

import nibabel
import numpy as np
import pytest

from segan_monai.inferers import VolumeSliceInferer, VolumeWindowInferer
from tests.bundles.workflow import BRATS, HIPPOCAMPUS, make_workflow, run_workflow

pytestmark = pytest.mark.usefixtures("process_as_before")
SMALL = {"num_levels": 2, "patch_size": [16, 16, 12], "base_channels": 2, "critic_start": 1, "batch_size": 2}


@pytest.mark.slow
@pytest.mark.parametrize("bundle", [BRATS, HIPPOCAMPUS])
def test_training_with_the_overlay_then_evaluation_and_inference_without(
    bundle, phantoms, hippocampi, tmp_path, caplog
):
    data = phantoms if bundle == BRATS else hippocampi
    settings = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "models")}
    strides = [[2, 2, 1]]
    changes = {"augmentation_probability": 0.5, "mirror_axes": [0], "level_strides": strides, "deep_supervision": 1}
    with caplog.at_level(logging.ERROR):
        output = str(tmp_path / "run")
        run_workflow(bundle, "training", "volumes.json", output_dir=output, **settings, **SMALL, **changes)
    assert not caplog.records, "the live view shows slices and critics of volumes"
    trained = json.loads((tmp_path / "models" / "model.json").read_text(encoding="utf-8"))["settings"]
    expected = {"spatial_dims": 3, "patch_size": [16, 16, 12], "level_strides": strides, "mirror_axes": [0]}
    assert {key: trained[key] for key in expected} == expected
    assert trained["in_channels"] == (3 if bundle == BRATS else 1)

    later = {"base_channels": 2, "slice_size": [160, 160] if bundle == BRATS else [48, 48], **settings}
    run_workflow(bundle, "evaluating", output_dir=str(tmp_path / "evaluation"), **later)
    workflow = run_workflow(bundle, "inference", output_dir=str(tmp_path / "inference"), **later)
    assert isinstance(workflow.inferer, VolumeWindowInferer)
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as stream:
        cases = {row["case"] for row in csv.DictReader(stream)}
    assert len(cases) == 2
    for case in cases:
        first, second = (nibabel.load(tmp_path / kind / f"{case}_seg.nii.gz") for kind in ("evaluation", "inference"))
        assert np.array_equal(np.asanyarray(first.dataobj), np.asanyarray(second.dataobj))


@pytest.mark.slow
def test_windows_in_planes_are_a_key_of_the_2d_bundles(hippocampi, tmp_path):
    common = {"dataset_dir": str(hippocampi), "output_dir": str(tmp_path), "ckpt_dir": str(tmp_path)}
    for run_id, name in (("training", "validate#inferer"), ("evaluating", "inferer"), ("inference", "inferer")):
        workflow = make_workflow(HIPPOCAMPUS, run_id, window_overlap=0.5, **common)
        inferer = workflow.parser.get_parsed_content(name)
        assert isinstance(inferer, VolumeSliceInferer)
        assert (inferer.window_overlap, inferer.min_size) == (0.5, (32, 32))


@pytest.mark.slow
def test_all_terms_of_unlabelled_images_in_3d(hippocampi, tmp_path):
    terms = {
        "labeled_cases": 1,
        "unlabeled": "use",
        "consistency_weight": 1.0,
        "unpaired_weight": 0.5,
        "patch_weight": 0.5,
    }
    terms |= {"ema_decay": 0.9, "unlabeled_critic_start": 1, "foreground_probability": 0.0}
    workflow = run_workflow(
        HIPPOCAMPUS, "training", "volumes.json", dataset_dir=str(hippocampi), output_dir=str(tmp_path), **SMALL, **terms
    )
    found = workflow.trainer.state.metrics
    assert found.keys() >= {"consistency", "segmentor_unpaired", "segmentor_patch", "critic_patch", "supervised"}
    assert all(np.isfinite(value) for value in found.values())
