# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The pancreas bundle: on generated slices and volumes, and on real ones."""

from __future__ import annotations

import csv
import inspect
import json

import nibabel
import numpy as np
import pytest
import torch
from monai.losses import DiceFocalLoss

from segan_monai.engines import LSNetTrainer, PhasedTrainer, SegmentationTrainer
from segan_monai.networks import load_weights
from segan_monai.reproduce import load_tables
from tests.bundles.workflow import BUNDLES, OVERLAYS, PANCREAS, SMALL_PANCREAS, make_workflow, run_workflow, stop_after
from tests.networks.known_lsnet import known

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]

CONFIGS = BUNDLES / PANCREAS / "configs"
ROWS = ["lsnet", "lsnet_fcn", "unet", "fcn", "attention_unet", "coarse_to_fine_unet", "coarse_to_fine_fcn"]


def run(run_id, overlay=None, **overrides):
    return run_workflow(PANCREAS, run_id, overlay, **{**SMALL_PANCREAS, **overrides})


def settings_of(data, tmp_path):
    return {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "models")}


def read_rows(file):
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_train_resume_evaluate_and_infer_on_slices(slices, tmp_path):
    common = settings_of(slices, tmp_path)
    run("training", "ct_pictures.json", output_dir=str(tmp_path / "run"), **common)
    split = json.loads((tmp_path / "run" / "split.json").read_text(encoding="utf-8"))
    patients = [{name.split("-")[0] for name in split[part]} for part in ("training", "validation")]
    assert [len(part) for part in patients] == [2, 2]
    assert not patients[0] & patients[1]
    resumed = run("training", "ct_pictures.json", output_dir=str(tmp_path / "run"), resume=True, epochs=2, **common)
    assert resumed.trainer.state.epoch == 2
    names = {row["name"] for row in read_rows(tmp_path / "run" / "history.csv")}
    assert names >= {"training/heatmap", "training/box", "training/mask", "parameters_network"}
    assert names >= {"validation/mean_dice", "validation/pancreas"}

    evaluation = tmp_path / "evaluation"
    run("evaluating", ["ct_pictures.json"], output_dir=str(evaluation), count_operations=True, **common)
    assert {row["case"] for row in read_rows(evaluation / "metrics.csv")} == set(split["validation"])
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    assert 0 <= summary["regions"]["pancreas"]["roi_iou"]["mean"] <= 1
    assert summary["gflop_per_slice"] > 0
    assert (evaluation / "overlay.png").stat().st_size > 10_000

    run("inference", "ct_pictures.json", output_dir=str(tmp_path / "inference"), **common)
    assert len(list((tmp_path / "inference").glob("*_rois.json"))) == 8
    for case in split["validation"]:
        first, second = (nibabel.load(tmp_path / kind / f"{case}_seg.nii.gz") for kind in ("evaluation", "inference"))
        assert np.array_equal(np.asanyarray(first.dataobj), np.asanyarray(second.dataobj))


def test_slices_of_one_patient_are_labelled_and_a_resumed_training_has_the_very_same_weights(slices, tmp_path):
    """Four patients of two slices each; of the two in training, one is unlabelled."""
    overlays = ["ct_pictures.json", "experiments/semi_supervised/few_labels.json"]
    settings = {**SMALL_PANCREAS, "dataset_dir": str(slices), "epochs": 3, "val_interval": 3, "batch_size": 2}
    settings |= {"labeled_cases": 1, "consistency_weight": 0.5, "ema_decay": 0.9, "live_cases": 0}

    def training(name, **more):
        folders = {"output_dir": str(tmp_path / name), "ckpt_dir": str(tmp_path / name)}
        return make_workflow(PANCREAS, "training", overlays, **settings, **folders, **more)

    whole = training("whole")
    whole.initialize()
    whole.run()
    split = json.loads((tmp_path / "whole" / "split.json").read_text(encoding="utf-8"))
    patients = [{split["subjects"][case] for case in split[part]} for part in ("training", "unlabeled", "validation")]
    assert [len(part) for part in patients] == [1, 1, 2]
    assert len(set.union(*patients)) == 4
    assert whole.trainer.state.iteration == 12, "three epochs of four slices, as with the labels of both patients"
    names = {row["name"] for row in read_rows(tmp_path / "whole" / "history.csv")}
    assert names >= {"training/localizer_consistency", "training/consistency", "training/weight_consistency"}

    first = training("parts")
    first.initialize()
    trainer = first.parser.get_parsed_content("train#trainer")
    stop_after(trainer, 2)
    resumed = training("parts", resume=True)
    resumed.initialize()
    resumed.run()
    expected = whole.parser.get_parsed_content("network").state_dict()
    found = resumed.parser.get_parsed_content("network").state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("row", ROWS)
def test_every_method_is_one_overlay(row, slices, tmp_path):
    overlays = ["ct_pictures.json", f"experiments/lsnet_methods/{row}.json"]
    common = settings_of(slices, tmp_path)
    trained = run("training", overlays, output_dir=str(tmp_path / "run"), **common)
    assert isinstance(trained.trainer, LSNetTrainer if "_to_fine" in row or "lsnet" in row else SegmentationTrainer)
    run("evaluating", overlays, output_dir=str(tmp_path / "evaluation"), **common)
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    assert summary["gflop_per_slice"] > 0
    assert ("roi_iou" in summary["regions"]["pancreas"]) == isinstance(trained.trainer, LSNetTrainer)


def test_ablations_are_what_their_names_say(slices, tmp_path):
    def trainer(*overlays):
        common = {**SMALL_PANCREAS, **settings_of(slices, tmp_path), "output_dir": str(tmp_path / "run")}
        workflow = make_workflow(PANCREAS, "training", ["ct_pictures.json", *overlays], **common)
        workflow.initialize()
        return workflow.parser.get_parsed_content("train#trainer")

    folder = "experiments/lsnet_"
    assert trainer(f"{folder}decay/decay_0_01.json").gradient_decay == 0.01
    cropped = trainer(f"{folder}components/hard_crop.json")
    assert (cropped.network.hard_crop, cropped.gradient_decay) == (True, 0)
    bce = trainer(f"{folder}methods/unet.json", f"{folder}components/bce.json")
    assert isinstance(bce.loss_function, torch.nn.BCEWithLogitsLoss)
    assert cropped.network.localizer_size == [32, 32], "it sees the same small slice"
    assert isinstance(trainer(f"{folder}choices/monai_focal.json").loss_function, DiceFocalLoss)
    assert trainer(f"{folder}choices/true_boxes.json").true_box_share == 0.5
    assert trainer(f"{folder}choices/coarse_to_fine_true_boxes.json").true_box_share is None
    own = trainer()
    assert (own.network.localizer_size, own.network.roi_size) == ([32, 32], [32, 32])
    assert (own.gradient_decay, own.network.margin, own.network.hard_crop) == (0.1, 40 / 8, False)
    assert (own.loss_function.lambda_dice, own.true_box_share) == (0.2, 0)


@pytest.mark.parametrize("row", ["unet", "fcn", "attention_unet"])
def test_one_stage_sees_no_more_pixels_than_a_stage_of_two(row):
    overlays = ["ct_pictures.json", f"experiments/lsnet_methods/{row}.json"]
    parser = make_workflow(PANCREAS, "training", overlays, slice_size=[96, 64]).parser
    assert parser.get_parsed_content("plane_size") == [96, 64]


@pytest.mark.parametrize("row", ["unet", "fcn", "attention_unet"])
def test_one_stage_trainers_take_the_settings_of_every_trainer(row):
    file = OVERLAYS / "experiments" / "lsnet_methods" / f"{row}.json"
    trainer = json.loads(file.read_text(encoding="utf-8"))["train#trainer"]
    config = json.loads((CONFIGS / "train.json").read_text(encoding="utf-8"))
    of_every_trainer = inspect.signature(PhasedTrainer).parameters
    shared = {key: value for key, value in config["train"]["trainer"].items() if key in of_every_trainer}
    assert trainer == {"_target_": "SegmentationTrainer", **shared}


def test_tables_have_the_published_figures(monkeypatch):
    monkeypatch.chdir(BUNDLES.parent)
    methods, components, first_stage, decay, choices = load_tables("lsnet")
    assert methods.published["L-SNet (U-Net)"]["dice"]["pancreas"] == 0.8820
    assert len(methods.rows) == 7
    assert decay.published["decay 0.01"]["roi_iou"]["pancreas"] == 0.8488
    assert decay.published["decay 0"]["box_iou"]["in training"] == 0.9203
    assert first_stage.published["L-Net"]["roi_iou"]["pancreas"] == 0.8658
    assert next(iter(choices.rows)) == "L-SNet"
    assert list(components.rows)[-1] == "S-Net + loss + L-Net + RR"


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "oblique"])
def test_volumes_come_back_on_their_own_grid_with_boxes(axes, tmp_path, oblique, write_volume):
    organ = np.zeros((48, 60, 7), bool)
    organ[10:34, 12:40, 2:5] = True
    volume = np.where(organ, 240, -100).astype(np.int16)
    affine = oblique
    if axes != "oblique":
        plain = nibabel.Nifti1Image(volume, np.diag([2.0, 2, 4, 1]))
        orientation = nibabel.orientations.axcodes2ornt(axes)
        turned = plain.as_reoriented(nibabel.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation))
        volume, affine = np.asanyarray(turned.dataobj), turned.affine
    write_volume(tmp_path / "data" / "ct_1.nii.gz", volume, affine)
    run(
        "inference",
        dataset_dir=str(tmp_path / "data"),
        output_dir=str(tmp_path / "out"),
        plane_size=[96, 96],
        network=known(),
        initialize="$segan_monai.start_run(@output_dir, @seed)",
    )
    found = nibabel.load(tmp_path / "out" / "ct_1_seg.nii.gz")
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert found.get_data_dtype() == np.uint8
    mask, truth = np.asanyarray(found.dataobj) == 1, volume == 240
    assert mask.shape == truth.shape
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.95
    rois = json.loads((tmp_path / "out" / "ct_1_rois.json").read_text(encoding="utf-8"))["rois"]
    assert len(rois) == 3
    where = np.argwhere(truth)
    np.testing.assert_allclose(np.min([roi["lower"] for roi in rois], axis=0), where.min(0), atol=1)
    np.testing.assert_allclose(np.max([roi["upper"] for roi in rois], axis=0), where.max(0) + 1, atol=1)


def test_volumes_train_too_and_one_slice_is_enough(tmp_path, write_volume):
    generator = np.random.default_rng(0)
    for index in range(4):
        label = np.zeros((40, 44, 1 if index == 0 else 6), np.uint8)
        label[10:24, 12:30, :] = 1
        volume = generator.normal(0, 20, label.shape) + 120 * label
        for kind, array in (("images", volume.astype(np.float32)), ("labels", label)):
            write_volume(tmp_path / "data" / kind / f"ct_{index}.nii.gz", array, np.diag([1.0, 1, 2, 1]))
    common = {**settings_of(tmp_path / "data", tmp_path), "plane_size": [64, 64]}
    run("training", output_dir=str(tmp_path / "run"), slices_per_volume=2, **common)
    run("evaluating", output_dir=str(tmp_path / "evaluation"), subset="all", **common)
    assert len(read_rows(tmp_path / "evaluation" / "metrics.csv")) == 4


def test_labels_that_are_known_in_part(tmp_path, write_volume):
    """Organ and tumour in it; every other case is labelled for the organ alone, with one slice of unknown label."""
    generator = np.random.default_rng(0)
    entries = []
    for index in range(4):
        label = np.zeros((40, 44, 4), np.uint8)
        label[10:24, 12:30, :3] = 1
        label[14:20, 16:22, :3] = 2
        volume = generator.normal(0, 20, label.shape) + 60 * label
        lacking = {}
        if index % 2:
            label[label == 2], label[..., 1] = 1, 255
            lacking = {"labelled_regions": ["organ"]}
        for kind, array in (("image", volume.astype(np.float32)), ("label", label)):
            write_volume(tmp_path / "data" / f"{kind}_{index}.nii.gz", array, np.diag([1.0, 1, 2, 1]))
        entries.append({"image": f"image_{index}.nii.gz", "label": f"label_{index}.nii.gz", **lacking})
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    common = {**settings_of(tmp_path / "data", tmp_path), "plane_size": [64, 64], "ignore_label": 255}
    common["regions"] = {"organ": [1, 2], "tumour": [2]}
    trained = run("training", output_dir=str(tmp_path / "run"), slices_per_volume=8, **common)
    dataset = trained.parser.get_parsed_content("train#dataset")
    for number, case in enumerate(dataset.data):
        lacks_tumour = "labelled_regions" in case
        for sample in dataset[number]:
            assert sample["mask"].shape == sample["label"].shape == (2, 64, 64)
            assert sample["mask"][0].any(), "the slice of unknown label is never drawn"
            assert sample["mask"][1].any() != lacks_tumour
    history = read_rows(tmp_path / "run" / "history.csv")
    assert all(np.isfinite(float(row["value"])) for row in history if row["name"] != "training/box_iou")

    run("evaluating", output_dir=str(tmp_path / "evaluation"), subset="all", **common)
    rows = read_rows(tmp_path / "evaluation" / "metrics.csv")
    regions = {str(index): [row["region"] for row in rows if row["case"].endswith(str(index))] for index in range(4)}
    assert list(regions.values()) == [["organ", "tumour"], ["organ"]] * 2
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text(encoding="utf-8"))["regions"]
    assert summary["organ"]["roi_iou"]["slices"] == 2 * 3 + 2 * 2
    assert summary["tumour"]["roi_iou"]["slices"] == 2 * 3


@pytest.mark.real_data
def test_a_real_ct_volume_keeps_its_geometry(data_dir, tmp_path):
    workflow = make_workflow(PANCREAS, "inference", **SMALL_PANCREAS, output_dir=str(tmp_path))
    torch.manual_seed(0)
    network = workflow.parser.get_parsed_content("network_def")
    torch.nn.init.constant_(network.localizer.keypoint_head[-1].bias, 0.0)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    load_weights(network, tmp_path / "model.pt")
    files = data_dir.resolve() / "abdominal_ct"
    datalist = {"training": [], "test": [{"image": str(files / "s0009_ct.nii.gz"), "case": "s0009"}]}
    (tmp_path / "list.json").write_text(json.dumps(datalist), encoding="utf-8")
    out = str(tmp_path / "out")
    settings = {"datalist": str(tmp_path / "list.json"), "dataset_dir": str(files)}
    run("inference", **settings, ckpt_dir=str(tmp_path), output_dir=out)
    image, found = nibabel.load(files / "s0009_ct.nii.gz"), nibabel.load(tmp_path / "out" / "s0009_seg.nii.gz")
    assert found.shape == image.shape
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
    rois = json.loads((tmp_path / "out" / "s0009_rois.json").read_text(encoding="utf-8"))["rois"]
    assert {roi["slice"] for roi in rois} <= set(range(image.shape[2]))
