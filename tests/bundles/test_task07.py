# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The pancreas bundle on volumes laid out like Task07_Pancreas of the Medical Segmentation Decathlon."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest

from tests.bundles.workflow import PANCREAS, SMALL_PANCREAS, run_workflow

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]

REGIONS = {"pancreas": [1, 2]}
AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])


def write_task(folder, write_volume):
    """Three labelled volumes and one without label; pancreas 1 with a tumour 2 in it."""
    generator = np.random.default_rng(0)
    entries = []
    for number in range(4):
        label = np.zeros((72, 64, 6), np.uint8)
        label[20:44, 14:40, 1:5] = 1
        label[26:32, 20:28, 2:4] = 2
        image = (generator.normal(-50, 20, label.shape) + 150 * (label > 0)).astype(np.int16)
        name = f"pancreas_{number:03d}.nii.gz"
        kind = "imagesTs" if number == 3 else "imagesTr"
        write_volume(folder / kind / name, image, AFFINE)
        (folder / kind / f"._{name}").write_bytes(b"of the archive")  # as in the published tar file
        if number < 3:
            write_volume(folder / "labelsTr" / name, label, AFFINE)
            entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    about = {
        "name": "Pancreas",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
        "numTraining": 3,
        "numTest": 1,
        "training": entries,
        "test": ["./imagesTs/pancreas_003.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def test_from_the_unpacked_task_to_label_maps(tmp_path, write_volume):
    task = write_task(tmp_path / "Task07_Pancreas", write_volume)
    common = {**SMALL_PANCREAS, "dataset_dir": str(task), "ckpt_dir": str(tmp_path / "run"), "regions": REGIONS}
    training = {"folds": 3, "slices_per_volume": 2, "batch_size": 4, "neighbours": 1, "true_box_share": 1.0}
    run_workflow(PANCREAS, "training", output_dir=str(tmp_path / "run"), **common, **training)
    split = json.loads((tmp_path / "run" / "split.json").read_text(encoding="utf-8"))
    assert sorted([*split["training"], *split["validation"]]) == ["pancreas_000", "pancreas_001", "pancreas_002"]
    settings = json.loads((tmp_path / "run" / "model.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["neighbours"], settings["plane_size"], settings["roi_size"]) == (1, [64, 64], [32, 32])

    run_workflow(PANCREAS, "evaluating", output_dir=str(tmp_path / "evaluation"), neighbours=1, **common)
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert [row["case"]] == split["validation"]
    assert (tmp_path / "evaluation" / "localization.png").stat().st_size > 1000

    inference = {"neighbours": 1, "test_boxes": 2, "dataset_dir": str(task / "imagesTs")}
    run_workflow(PANCREAS, "inference", output_dir=str(tmp_path / "out"), **{**common, **inference})
    found = nibabel.load(tmp_path / "out" / "pancreas_003_seg.nii.gz")
    assert found.shape == (72, 64, 6)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)


@pytest.mark.real_data
def test_a_real_abdomen_in_its_layout(data_dir, tmp_path):
    files = data_dir.resolve() / "abdominal_ct"
    task = tmp_path / "Task07_Pancreas"
    entry = {"image": "./imagesTr/pancreas_001.nii.gz", "label": "./labelsTr/pancreas_001.nii.gz"}
    for key, name in (("image", "s0009_ct.nii.gz"), ("label", "s0009_pancreas.nii.gz")):
        (task / entry[key]).parent.mkdir(parents=True)
        (task / entry[key]).symlink_to(files / name)
    about = {"labels": {"0": "background", "1": "pancreas", "2": "cancer"}, "training": [entry], "test": []}
    (task / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    network = {"_target_": "tests.networks.known_lsnet.known"}
    run_workflow(
        PANCREAS,
        "evaluating",
        **{**SMALL_PANCREAS, "plane_size": [128, 128]},
        dataset_dir=str(task),
        output_dir=str(tmp_path / "out"),
        regions=REGIONS,
        subset="all",
        network=network,
        initialize="$segan_monai.start_run(@output_dir, @seed)",
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    truth = np.asanyarray(nibabel.load(files / "s0009_pancreas.nii.gz").dataobj) > 0
    assert summary["regions"]["pancreas"]["roi_iou"]["slices"] == truth.any((0, 1)).sum()
    assert nibabel.load(tmp_path / "out" / "pancreas_001_seg.nii.gz").shape == truth.shape
