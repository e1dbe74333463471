# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Every bundle through training, evaluation and inference."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from segan_monai.data import write_phantoms
from segan_monai.errors import ConfigError, DataError, causes
from tests.bundles.workflow import BRATS, HIPPOCAMPUS, make_workflow, run_workflow

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


@pytest.fixture
def trained(phantoms, tmp_path):
    """The BraTS bundle after an epoch."""
    output = str(tmp_path / "run")
    run_workflow(BRATS, "training", dataset_dir=str(phantoms), output_dir=output, ckpt_dir=str(tmp_path / "models"))
    return tmp_path


def read_rows(file):
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("bundle", [BRATS, HIPPOCAMPUS])
def test_train_evaluate_infer_and_resume(bundle, phantoms, hippocampi, tmp_path):
    data = phantoms if bundle == BRATS else hippocampi
    settings = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "models")}
    run_workflow(bundle, "training", output_dir=str(tmp_path / "run"), **settings)
    split = json.loads((tmp_path / "run" / "split.json").read_text(encoding="utf-8"))
    assert len(split["training"]) == len(split["validation"]) == 2
    assert {row["name"] for row in read_rows(tmp_path / "run" / "history.csv")} >= {
        "training/critic_l1",
        "training/segmentor_l1",
        "validation/mean_dice",
        "validation/whole_tumour" if bundle == BRATS else "validation/anterior",
    }
    assert list((tmp_path / "run").glob("events.out.tfevents*"))
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["config"]["base_channels"] == 4

    resumed = run_workflow(bundle, "training", output_dir=str(tmp_path / "run"), resume=True, epochs=2, **settings)
    assert resumed.trainer.state.epoch == 2
    rows = read_rows(tmp_path / "run" / "history.csv")
    assert [row["epoch"] for row in rows if row["name"] == "training/critic_l1"] == ["1", "2"]

    run_workflow(bundle, "evaluating", output_dir=str(tmp_path / "evaluation"), **settings)
    rows = read_rows(tmp_path / "evaluation" / "metrics.csv")
    assert {row["case"] for row in rows} == set(split["validation"])
    assert len(rows) == 2 * (3 if bundle == BRATS else 2)
    assert json.loads((tmp_path / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    assert (tmp_path / "evaluation" / "overlay.png").stat().st_size > 10_000

    run_workflow(bundle, "inference", output_dir=str(tmp_path / "inference"), **settings)
    assert len(list((tmp_path / "inference").glob("*_seg.nii.gz"))) == 4
    # One prediction was made twice, by two configs: they must agree voxel for voxel.
    for case in split["validation"]:
        first, second = (nibabel.load(tmp_path / kind / f"{case}_seg.nii.gz") for kind in ("evaluation", "inference"))
        assert np.array_equal(np.asanyarray(first.dataobj), np.asanyarray(second.dataobj))


@pytest.mark.parametrize("layout", ["brats2015", "brats2018", "brats2021", "brats2023", "msd"])
def test_brats_in_every_layout(layout, tmp_path):
    data = tmp_path / "data"
    write_phantoms(data, cases=2, seed=1, spacing_mm=8.0, layout=layout, workers=1)
    settings = {"dataset_dir": str(data), "ckpt_dir": str(tmp_path / "models")}
    run_workflow(BRATS, "training", output_dir=str(tmp_path / "run"), **settings)
    run_workflow(BRATS, "evaluating", output_dir=str(tmp_path / "evaluation"), output_labels="dataset", **settings)
    (prediction,) = (tmp_path / "evaluation").glob("*_seg.nii.gz")
    image = nibabel.load(prediction)
    assert image.shape == (30, 30, 20)
    assert image.get_data_dtype() == np.uint8
    enhancing = {"brats2023": 3, "msd": 3}.get(layout, 4)
    assert set(np.unique(np.asanyarray(image.dataobj))) <= {0, 1, 2, enhancing}


@pytest.mark.parametrize(
    ("name", "critics", "critic_channels", "layers"),
    [
        ("s1_1c", 3, 3, None),
        ("s3_1c", 1, 9, None),
        ("s3_3c", 3, 3, None),
        ("s3_3c_s0", 3, 3, [0]),
        ("s3_3c_s3", 3, 3, [3]),
    ],
)
def test_the_papers_variants_are_one_overlay_each(name, critics, critic_channels, layers, phantoms, tmp_path):
    settings = {"dataset_dir": str(phantoms), "ckpt_dir": str(tmp_path / "models")}
    overlay = f"experiments/segan_components/{name}.json"
    run = run_workflow(BRATS, "training", overlay, output_dir=str(tmp_path / "run"), **settings)
    trainer = run.trainer
    assert len(trainer.critic.critics) == critics
    assert trainer.critic.critics[0].encoder[0][0].in_channels == critic_channels
    assert trainer.loss_function.layers == layers
    assert len(getattr(trainer.network, "segmentors", [trainer.network])) == (3 if name == "s1_1c" else 1)
    run_workflow(BRATS, "evaluating", overlay, output_dir=str(tmp_path / "evaluation"), **settings)
    assert len(read_rows(tmp_path / "evaluation" / "metrics.csv")) == 2 * 3


@pytest.mark.parametrize("name", ["unet", "unet_dice"])
def test_the_unet_baseline_is_one_overlay_for_nested_regions(name, phantoms, tmp_path):
    settings = {"dataset_dir": str(phantoms), "ckpt_dir": str(tmp_path / "models")}
    overlay = f"experiments/segan_components/{name}.json"
    run = run_workflow(BRATS, "training", overlay, output_dir=str(tmp_path / "run"), **settings)
    assert list(run.trainer.state.output["terms"]) == ["supervised"]
    assert run.trainer.state.output["pred"].shape[1] == 4  # background, enhancing, core, oedema
    run_workflow(BRATS, "evaluating", overlay, output_dir=str(tmp_path / "evaluation"), **settings)
    assert len(read_rows(tmp_path / "evaluation" / "metrics.csv")) == 2 * 3


def test_reduction_and_weights_of_the_loss_are_keys(phantoms, tmp_path):
    run = make_workflow(
        BRATS,
        "training",
        dataset_dir=str(phantoms),
        output_dir=str(tmp_path),
        loss_reduction="concat",
        loss_layer_weights=[1, 1, 2, 4],
    )
    run.initialize()
    assert (run.trainer.loss_function.reduction, run.trainer.loss_function.layer_weights) == ("concat", [1, 1, 2, 4])


def test_the_papers_constants_are_an_overlay(phantoms, tmp_path):
    settings = {"dataset_dir": str(phantoms), "ckpt_dir": str(tmp_path / "models")}
    run = run_workflow(BRATS, "training", "segan_paper.json", output_dir=str(tmp_path / "run"), **settings)
    trainer = run.trainer
    assert isinstance(trainer.optimizer, torch.optim.RMSprop)
    assert isinstance(trainer.critic_optimizer, torch.optim.RMSprop)
    assert [trainer.optimizer.param_groups[0]["lr"], trainer.critic_optimizer.param_groups[0]["lr"]] == [2e-5, 2e-5]
    assert (trainer.clamp, trainer.critic_start, trainer.supervised_weight) == (0.01, 1, 0.0)
    assert len(trainer.clamped) == len(list(trainer.critic.parameters()))
    assert trainer.loss_function.reduction == "sum"
    assert trainer.critic.critics[0].encoder[0][0].out_channels == 64
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in trainer.critic.modules())
    run_workflow(BRATS, "evaluating", "segan_paper.json", output_dir=str(tmp_path / "evaluation"), **settings)


def test_crops_of_training_validation_and_test(tmp_path, write_volume):
    """Training sees the middle 8x8x4 of a volume, validation and test see the middle 6x6x4; the rest is background."""
    affine = np.diag([1.0, 1, 1, 1])
    for case in ("Case_1", "Case_2"):
        bright = np.full((12, 12, 8), 2, np.int16)
        bright[4:8, 4:8, 3:5] = 100
        for name in ("t1ce", "t2", "flair"):
            write_volume(tmp_path / "data" / case / f"{case}_{name}.nii.gz", bright, affine)
        write_volume(tmp_path / "data" / case / f"{case}_seg.nii.gz", 4 * (bright == 100).astype(np.uint8), affine)
    crops = {"training_crop_size": [8, 8, 4], "test_crop_size": [6, 6, 4]}
    settings = {"dataset_dir": str(tmp_path / "data"), "slice_size": [16, 16], **crops}
    train = make_workflow(BRATS, "training", output_dir=str(tmp_path / "run"), check=False, **settings)
    train.initialize()
    batch = next(iter(train.parser.get_parsed_content("train#dataloader")))
    assert (batch["image"] > 0).any(dim=1).sum(dim=(1, 2)).max() <= 8 * 8
    (validated,) = train.parser.get_parsed_content("validate#dataset")
    assert validated["image"].shape == (3, 6, 6, 4)
    assert validated["label"].shape == (3, 6, 6, 4)

    run_workflow(
        BRATS,
        "inference",
        output_dir=str(tmp_path / "out"),
        network=Everywhere(),
        initialize="$segan_monai.start_run(@output_dir, @seed)",
        skip_empty_slices=False,
        **{key: value for key, value in settings.items() if key != "training_crop_size"},
    )
    expected = np.zeros((12, 12, 8), bool)
    expected[3:9, 3:9, 2:6] = True
    assert np.array_equal(np.asanyarray(nibabel.load(tmp_path / "out" / "Case_1_seg.nii.gz").dataobj) > 0, expected)


class Everywhere(torch.nn.Module):
    """A network that finds all regions in each voxel it sees."""

    def forward(self, x):
        return torch.full_like(x, 10.0)


class RegionsAreWhereModalitiesAreBright(torch.nn.Module):
    """A network whose right answer is known: region k is where channel k is bright."""

    def forward(self, x):
        return 100 * (x - 0.5)


@pytest.mark.parametrize(("output_labels", "values"), [("consecutive", [1, 2, 3]), ("dataset", [2, 1, 4])])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL", "oblique"])
def test_a_label_map_comes_back_voxel_for_voxel_on_the_images_own_grid(
    axes, output_labels, values, tmp_path, oblique, write_volume
):
    whole = np.zeros((21, 18, 13), bool)
    whole[3:15, 4:12, 2:9] = True
    core, enhancing = np.zeros_like(whole), np.zeros_like(whole)
    core[4:10, 5:9, 3:8] = True
    enhancing[4:9, 5:8, 3:7] = True
    affine = oblique
    if axes != "oblique":
        plain = nibabel.Nifti1Image(whole.astype(np.uint8), np.diag([2.0, 3, 4, 1]))
        orientation = nibabel.orientations.axcodes2ornt(axes)
        affine = plain.as_reoriented(nibabel.orientations.ornt_transform(orientation, [[0, 1], [1, 1], [2, 1]])).affine
    for name, region in (("t1ce", whole), ("t2", core), ("flair", enhancing)):
        write_volume(tmp_path / "data" / "Case_1" / f"Case_1_{name}.nii.gz", (1 + region).astype(np.int16), affine)
    run_workflow(
        BRATS,
        "inference",
        dataset_dir=str(tmp_path / "data"),
        output_dir=str(tmp_path / "out"),
        output_labels=output_labels,
        save_probabilities=True,
        network=RegionsAreWhereModalitiesAreBright(),
        initialize="$segan_monai.start_run(@output_dir, @seed)",
    )
    expected = np.select([enhancing, core, whole], values[::-1], 0)
    found = nibabel.load(tmp_path / "out" / "Case_1_seg.nii.gz")
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert np.array_equal(np.asanyarray(found.dataobj), expected)
    image = sitk.ReadImage(str(tmp_path / "data" / "Case_1" / "Case_1_t2.nii.gz"))
    label_map = sitk.ReadImage(str(tmp_path / "out" / "Case_1_seg.nii.gz"))
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(label_map, geometry)(), getattr(image, geometry)(), atol=1e-5)
    probabilities = nibabel.load(tmp_path / "out" / "Case_1_probabilities.nii.gz")
    assert probabilities.shape == (21, 18, 13, 3)
    assert np.array_equal(np.asanyarray(probabilities.dataobj)[..., 1] > 0.5, core)


def test_inference_takes_plain_4d_images(trained, tmp_path, write_volume, oblique):
    image = np.random.default_rng(0).uniform(1, 9, (20, 22, 5, 3)).astype(np.float32)
    write_volume(tmp_path / "images" / "patient.nii.gz", image, oblique)
    settings = {"dataset_dir": str(tmp_path / "images"), "ckpt_dir": str(trained / "models")}
    run_workflow(BRATS, "inference", output_dir=str(tmp_path / "out"), **settings)
    found = nibabel.load(tmp_path / "out" / "patient_seg.nii.gz")
    assert found.shape == (20, 22, 5)
    np.testing.assert_allclose(found.affine, oblique, atol=1e-5)


def test_one_region_by_override(phantoms, tmp_path):
    settings = {"regions": {"lesion": [1, 2, 4]}, "dataset_dir": str(phantoms), "ckpt_dir": str(tmp_path / "models")}
    run_workflow(BRATS, "training", output_dir=str(tmp_path / "run"), **settings)
    run_workflow(BRATS, "evaluating", output_dir=str(tmp_path / "evaluation"), **settings)
    assert {row["region"] for row in read_rows(tmp_path / "evaluation" / "metrics.csv")} == {"lesion"}


def fails(match, kind, run_id="training", bundle=BRATS, **overrides):
    with pytest.raises(Exception) as caught:
        run_workflow(bundle, run_id, **overrides)
    found = [error for error in causes(caught.value) if isinstance(error, kind)]
    assert found, caught.value
    assert match in str(found[-1])


def test_bad_input_is_named_by_whole_runs(phantoms, trained, tmp_path, write_volume):
    output = {"output_dir": str(tmp_path / "out"), "ckpt_dir": str(trained / "models")}
    fails("no such file or folder", DataError, dataset_dir=str(tmp_path / "missing"), **output)
    (tmp_path / "empty").mkdir()
    fails("empty", DataError, dataset_dir=str(tmp_path / "empty"), **output)
    fails("4 subjects cannot be split into 10 folds", DataError, dataset_dir=str(phantoms), folds=10, **output)
    fails("found label values", DataError, dataset_dir=str(phantoms), regions={"lesion": [1]}, **output)
    output["output_dir"] = str(tmp_path / "inference")
    architecture = {"dataset_dir": str(phantoms), "base_channels": 8, **output}
    (trained / "models" / "model.json").unlink()  # as for weights of earlier versions
    fails("weights of another architecture", ConfigError, run_id="inference", **architecture)
    (tmp_path / "file").write_text("", encoding="utf-8")
    blocked = {"dataset_dir": str(phantoms), "output_dir": str(tmp_path / "file" / "out")}
    fails("cannot be written", ConfigError, **blocked)
