# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The bundle of adversarial normalization through training, evaluation and inference, on both challenges' layouts."""

from __future__ import annotations

import csv
import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from torch import nn

from segan_monai.ensembles import read_predictions
from segan_monai.errors import ConfigError, DataError, causes
from segan_monai.losses import WeightedDiceLoss
from segan_monai.networks import NormalizerSegmentor
from segan_monai.report import write_report
from tests.bundles.workflow import BRAIN, BUNDLES, FILES, OVERLAYS, SMALL_BRAIN, SMALL_BRAIN_TRAINING

CONFIGS = BUNDLES / BRAIN / "configs"
ROWS = sorted((OVERLAYS / "experiments" / "adversarial_normalization").glob("[1-7]*_*.json"))

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


def run(run_id, overlays=(), **overrides):
    files = [CONFIGS / FILES[run_id], *overlays]
    workflow = ConfigWorkflow(
        config_file=[str(file) for file in files],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        workflow_type="train" if run_id == "training" else "infer",
        run_id=run_id,
        **{**(SMALL_BRAIN_TRAINING if run_id == "training" else SMALL_BRAIN), **overrides},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def history(folder):
    with (folder / "history.csv").open(encoding="utf-8") as stream:
        return {(int(row["epoch"]), row["name"]): float(row["value"]) for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def trained(brains, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run("training", dataset_dir=str(brains), output_dir=str(folder / "run"), ckpt_dir=str(folder / "models"))
    return folder


def test_train_resume_evaluate_and_infer(brains, trained, tmp_path):
    split = json.loads((trained / "run" / "split.json").read_text(encoding="utf-8"))
    assert split["counts"] == {name: {"training": 1, "validation": 1} for name in ("MRBrainS", "iSEG")}
    logged = history(trained / "run")
    assert {name for epoch, name in logged if epoch == 1} == {"training/reconstruction_mse", "peak_memory_mib"}
    assert {name for epoch, name in logged if epoch == 2} == {
        *(f"training/{term}" for term in ("segmentation", "adversarial", "discriminator")),
        *(f"training/accuracy_{name}" for name in ("iSEG", "MRBrainS", "generated", "chance")),
        "peak_memory_mib",
        *(f"validation/{metric}" for metric in ("mean_dice", "loss", "CSF", "GM", "WM", "jsd_input", "jsd_normalized")),
    }
    assert logged[2, "training/accuracy_chance"] == pytest.approx(1 / 3, abs=1e-5)

    settings = {"dataset_dir": str(brains), "ckpt_dir": str(trained / "models")}
    run("evaluating", output_dir=str(tmp_path / "evaluation"), **settings)
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["case"], row["region"]) for row in rows} == {
        (case, region) for case in split["validation"] for region in ("CSF", "GM", "WM")
    }
    found = json.loads((tmp_path / "evaluation" / "normalization.json").read_text(encoding="utf-8"))
    assert found["domains"] == ["MRBrainS", "iSEG"]
    assert set(found["jensen_shannon_divergence_nats"]["normalized"]) == {"whole image", "CSF", "GM", "WM"}
    for picture in ("overlay.png", "histograms.png", "normalization.png"):
        assert (tmp_path / "evaluation" / picture).stat().st_size > 10_000

    run("inference", output_dir=str(tmp_path / "inference"), **settings)
    sources = {
        "iSEG_subject-1": brains / "iSEG" / "subject-1-T1.hdr",
        "MRBrainS_2": brains / "MRBrainS" / "TrainingData" / "2" / "T1.nii",
    }
    assert len(list((tmp_path / "inference").glob("*_seg.nii.gz"))) == 4
    for case, source in sources.items():
        image = nibabel.load(source)
        for kind, dtype in (("seg", np.uint8), ("normalized", np.float32)):
            output = nibabel.load(tmp_path / "inference" / f"{case}_{kind}.nii.gz")
            assert output.shape == image.shape[:3]
            assert output.get_data_dtype() == dtype
            np.testing.assert_allclose(output.affine, image.affine, atol=1e-5)
    journal = json.loads((tmp_path / "inference" / "inference.json").read_text(encoding="utf-8"))
    known = next(name for name in split["validation"] if name.startswith("iSEG"))  # no skull to strip
    found = journal["cases"][known]["nearest_domain"]
    assert (found["domain"], found["far"]) == ("iSEG", False)
    assert found["distance"] < 1e-3, "its own profile"

    more = {"save_probabilities": True, "save_overlays": False}
    run("inference", output_dir=str(tmp_path / "maps"), **more, **settings)
    for case, source in sources.items():
        maps = nibabel.load(tmp_path / "maps" / f"{case}_probabilities.nii.gz")
        assert maps.shape == (*nibabel.load(source).shape[:3], 3)
        of_classes = maps.get_fdata()
        background = 1 - of_classes.sum(-1, keepdims=True)
        classes = np.concatenate([background, of_classes], axis=-1)
        label = np.asanyarray(nibabel.load(tmp_path / "inference" / f"{case}_seg.nii.gz").dataobj)
        clear = np.diff(np.sort(classes)[..., -2:])[..., 0] > 1e-4
        assert np.array_equal(classes.argmax(-1)[clear], label[clear])
        assert (label > 0)[clear].any()
    assert read_predictions(tmp_path / "maps").threshold is None, "the label map is that of a softmax"

    # the infants' images are the same for both configs, skull or not
    case = next(name for name in split["validation"] if name.startswith("iSEG"))
    for kind in ("seg", "normalized"):
        pair = [nibabel.load(tmp_path / of / f"{case}_{kind}.nii.gz").get_fdata() for of in ("evaluation", "inference")]
        np.testing.assert_allclose(*pair, atol=1e-5)


def test_a_scanner_never_seen_is_named_in_the_journal_the_last_lines_and_the_report(brains, trained, tmp_path, capsys):
    """Profiles beside the weights that no image is like, as if those had been trained on another scanner."""
    shutil.copytree(trained / "models", tmp_path / "models")
    profiles = json.loads((tmp_path / "models" / "domains.json").read_text(encoding="utf-8"))["profiles"]
    assert {name: len(images) for name, images in profiles.items()} == {"MRBrainS": 1, "iSEG": 1}
    other = {"iSEG": [[value + 9 for value in image] for image in profiles["iSEG"]]}
    (tmp_path / "models" / "domains.json").write_text(json.dumps({"profiles": other}), encoding="utf-8")
    settings = {"dataset_dir": str(brains), "ckpt_dir": str(tmp_path / "models"), "save_overlays": False}
    run("inference", output_dir=str(tmp_path / "out"), **settings)
    assert "4 of 4 cases are unlike every training domain: " in capsys.readouterr().out
    journal = json.loads((tmp_path / "out" / "inference.json").read_text(encoding="utf-8"))
    found = journal["cases"]["iSEG_subject-1"]["nearest_domain"]
    assert (found["domain"], found["far"], found["distance"] > found["limit"]) == ("iSEG", True, True)
    (tmp_path / "out" / "quality.csv").write_text(
        "case,region,expected_dice,lower_bound,flag\niSEG_subject-1,CSF,0.9,0.8,\n", encoding="utf-8"
    )
    page = write_report([tmp_path / "out"]).read_text(encoding="utf-8")
    assert "4 of 4 cases are unlike every training domain: " in page
    assert "iSEG_subject-1 (nearest: iSEG)" in page


def test_regions_by_the_name_of_a_convention(brains, tmp_path):
    settings = {"dataset_dir": str(brains), "ckpt_dir": str(tmp_path / "models"), "regions": "brats2023"}
    run("training", output_dir=str(tmp_path / "run"), epochs=1, **settings)
    names = {name.removeprefix("validation/") for _, name in history(tmp_path / "run")}
    assert names >= {"whole_tumour", "tumour_core", "enhancing_tumour"}
    assert not names & {"CSF", "GM", "WM"}


def test_a_resumed_run_has_the_same_next_loss(brains, tmp_path):
    settings = {"dataset_dir": str(brains), "ckpt_dir": str(tmp_path / "models"), "learning_rate_decay": 0}
    settings["val_interval"] = 1  # a validation draws random numbers too
    run("training", output_dir=str(tmp_path / "whole"), epochs=3, **settings)
    run("training", output_dir=str(tmp_path / "parts"), epochs=2, **settings)
    run("training", output_dir=str(tmp_path / "parts"), epochs=3, resume=True, **settings)
    whole, parts = history(tmp_path / "whole"), history(tmp_path / "parts")
    for term in ("segmentation", "adversarial", "discriminator", "accuracy_generated"):
        assert parts[3, f"training/{term}"] == whole[3, f"training/{term}"], term
    assert parts[3, "validation/mean_dice"] == whole[3, "validation/mean_dice"]


class BrightIsWhite(nn.Module):
    """A segmentor whose right answer is known: class 3 where its input is above one half, else background."""

    def forward(self, x):
        return torch.cat([0.5 - x, torch.full_like(x, -9), torch.full_like(x, -9), x - 0.5], dim=1) * 100


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "oblique"])
@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_both_outputs_lie_on_the_images_own_grid(axes, spacing, tmp_path, write_volume, oblique):
    mask = np.zeros((21, 26, 19), bool)
    mask[3:15, 4:18, 2:14] = True
    image = np.where(mask, 900, 100).astype(np.int16)
    image[:2] = 0
    affine = oblique
    if axes != "oblique":
        plain = nibabel.Nifti1Image(image, np.diag([-spacing, -spacing, spacing, 1]))
        affine = plain.affine @ nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(axes), image.shape)
    write_volume(tmp_path / "images" / "p.nii.gz", image, affine)
    run(
        "inference",
        dataset_dir=str(tmp_path / "images"),
        output_dir=str(tmp_path / "out"),
        intensity="raw",
        spacing_mm=[1.0, 2.0, 3.0] if axes == "oblique" else [spacing] * 3,
        network=NormalizerSegmentor(BrightIsWhite(), Twice()),
        initialize="$segan_monai.start_run(@output_dir, @seed)",
    )
    label_map, normalized = (nibabel.load(tmp_path / "out" / f"p_{kind}.nii.gz") for kind in ("seg", "normalized"))
    np.testing.assert_allclose(label_map.affine, affine, atol=1e-5)
    np.testing.assert_allclose(normalized.affine, affine, atol=1e-5)
    assert np.array_equal(np.asanyarray(label_map.dataobj), 3 * mask)
    np.testing.assert_allclose(normalized.get_fdata(), 2 * image / 1000, atol=1e-4)


def test_a_coarser_image_comes_back_on_its_own_grid(tmp_path, write_volume):
    image = np.zeros((20, 24, 12), np.int16)
    image[3:17, 4:20, 2:10] = 900
    affine = np.diag([0.958, 0.958, 3.0, 1])
    write_volume(tmp_path / "images" / "p.nii.gz", image, affine)
    run(
        "inference",
        dataset_dir=str(tmp_path / "images"),
        output_dir=str(tmp_path / "out"),
        intensity="raw",
        patch_size=[8, 8, 8],
        network=NormalizerSegmentor(BrightIsWhite(), Twice()),
        initialize="$segan_monai.start_run(@output_dir, @seed)",
    )
    label_map = nibabel.load(tmp_path / "out" / "p_seg.nii.gz")
    assert label_map.shape == image.shape
    np.testing.assert_allclose(label_map.affine, affine, atol=1e-5)
    truth, found = image > 0, np.asanyarray(label_map.dataobj) == 3
    assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.95


@pytest.mark.parametrize("row", ROWS, ids=lambda file: file.stem)
def test_the_papers_experiments_are_one_overlay_each(row, brains, tmp_path):
    settings = {"dataset_dir": str(brains), "ckpt_dir": str(tmp_path / "models")}
    number = int(row.stem[0])
    trainer = run("training", [row], output_dir=str(tmp_path / "run"), **settings).trainer
    assert trainer.network.normalizes == (number >= 6)
    assert trainer.adversarial_weight == {"7_adversarial": 1, "7s_adversarial": 0.1}.get(row.stem, 0)
    trained_on = {1: {"iSEG"}, 2: {"MRBrainS"}, 3: {"iSEG"}, 4: {"MRBrainS"}}.get(number, {"iSEG", "MRBrainS"})
    assert {case["domain"] for case in trainer.data_loader.dataset.data} == trained_on
    run("evaluating", [row], output_dir=str(tmp_path / "evaluation"), **settings)
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as stream:
        tested = {row["case"].split("_")[0] for row in csv.DictReader(stream)}
    assert tested == {1: {"iSEG"}, 2: {"MRBrainS"}, 3: {"MRBrainS"}, 4: {"iSEG"}}.get(number, {"iSEG", "MRBrainS"})


def test_the_table_lists_the_seven_rows():
    folder = ROWS[0].parent
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    assert sorted(f"{name}.json" for name in table["rows"]) == [file.name for file in ROWS]
    assert table["bundle"] == BRAIN
    assert table["rows"]["4_second_to_first"]["published"] == {"dice": {"CSF": 0.293, "GM": 0.082, "WM": 0.563}}


def test_the_paper_by_patches(brains, tmp_path):
    paper = ROWS[0].parent / "paper.json"
    settings = {"ckpt_dir": str(tmp_path / "models"), "patch_size": [16, 16, 16], "pad_small_images": True}
    small = {"batch_size": 64, "patch_stride": [4, 8, 8], "epochs": 3, "patches_per_volume": None}  # a step per epoch
    small["val_interval"] = 3  # the schedule of an epoch without validation waits
    workflow = run("training", [paper], dataset_dir=str(brains), output_dir=str(tmp_path / "run"), **settings, **small)
    trainer = workflow.trainer
    segmentor, normalizer = trainer.optimizer.param_groups
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert (segmentor["momentum"], segmentor["weight_decay"]) == (0.9, 0.1)
    assert (segmentor["lr"], normalizer["lr"]) == (1e-4, 1e-5)
    assert trainer.discriminator_optimizer.param_groups[0]["lr"] == 1e-4
    assert isinstance(trainer.loss_function, WeightedDiceLoss)
    assert trainer.domain_loss.kind == "minimax"
    assert type(trainer.discriminator).__name__ == "ResNet"
    for network in (trainer.network.segmentor, trainer.network.normalizer):
        image = torch.rand(2, 1, 16, 16, 16)
        shapes = []
        network.conv_0.register_forward_hook(lambda module, inputs, output, shapes=shapes: shapes.append(output.shape))
        network(image)
        assert shapes[0][2:] == image.shape[2:], "a path at full resolution"
    schedulers = [workflow.parser.get_parsed_content(f"{part}lr_scheduler") for part in ("", "discriminator_")]
    assert [(s.mode, s.patience, s.factor, s.last_epoch) for s in schedulers] == [("min", 3, 0.1, 1)] * 2
    assert schedulers[0].best == pytest.approx(history(tmp_path / "run")[3, "validation/loss"], abs=1e-4)

    # training has 60 % of the patches, the evaluation scores the 20 % that neither training nor validation saw
    output = {"output_dir": str(tmp_path / "evaluation")}
    run("evaluating", [paper], dataset_dir=str(brains), **settings, **output)
    found = json.loads((tmp_path / "evaluation" / "patches.json").read_text(encoding="utf-8"))
    assert found["patches"] == sum(domain["patches"] for domain in found["domains"].values())
    assert len(trainer.data_loader.dataset) == pytest.approx(3 * found["patches"], rel=0.2)
    assert set(found["regions"]) == {"CSF", "GM", "WM"}
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as stream:
        assert len({row["case"] for row in csv.DictReader(stream)}) == 4, "whole volumes of all cases"
    other = {"overlays": [paper], "split_by": "subject", "dataset_dir": str(brains)}
    fails("every case has training patches", ConfigError, "evaluating", **other, **settings, **output)


SCANNER = OVERLAYS / "experiments" / "unlabelled_scanner"
ARMS = {
    "source": ["no_normalizer"],
    "statistics": ["no_normalizer", "batch_norm"],
    "contrast": ["no_normalizer", "random_contrast"],
    "both critics": ["confusion", "output_critic"],
}


@pytest.mark.parametrize("arm", ARMS)
def test_a_scanner_without_labels(arm, brains, tmp_path):
    overlays = [SCANNER / f"{name}.json" for name in ("scanner", *ARMS[arm])]
    settings = {"dataset_dir": str(brains), "ckpt_dir": str(tmp_path / "models"), "epochs": 2, "warm_up_epochs": 0}
    trainer = run("training", overlays, output_dir=str(tmp_path / "run"), **settings).trainer
    split = json.loads((tmp_path / "run" / "split.json").read_text(encoding="utf-8"))
    assert {name.split("_")[0] for name in split["training"]} == {"iSEG"}
    assert {name.split("_")[0] for name in split["unlabeled"]} == {"MRBrainS"}
    assert trainer.domains == ["MRBrainS", "iSEG"]
    terms = {name for epoch, name in history(tmp_path / "run") if epoch == 2}
    critics = {f"training/{name}" for name in ("adversarial", "identity", "output", "discriminator", "output_critic")}
    assert terms & critics == (critics if arm == "both critics" else set())
    assert trainer.has_unlabeled == (arm in ("statistics", "both critics"))
    if arm == "both critics":
        output = {"output_dir": str(tmp_path / "evaluation")}
        run("evaluating", overlays, dataset_dir=str(brains), ckpt_dir=str(tmp_path / "models"), **output)
        with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as stream:
            tested = {row["case"] for row in csv.DictReader(stream)}
        assert tested == {name for name in split["validation"] if name.startswith("MRBrainS")}


def test_monais_resnet_as_discriminator(brains, tmp_path):
    resnet = {"_target_": "resnet10", "spatial_dims": 3, "n_input_channels": 1, "num_classes": "$len(@domains) + 1"}
    settings = {"output_dir": str(tmp_path / "run"), "ckpt_dir": str(tmp_path / "models")}
    trainer = run("training", dataset_dir=str(brains), discriminator_def=resnet, **settings).trainer
    assert type(trainer.discriminator).__name__ == "ResNet"


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_one_domain_without_a_name(brains, weight, tmp_path):
    training = [
        {"image": f"iSEG/subject-{n}-T1.hdr", "label": f"iSEG/subject-{n}-label.hdr", "case": f"c{n}"} for n in (1, 2)
    ]
    (tmp_path / "list.json").write_text(json.dumps({"training": training}), encoding="utf-8")
    settings = {
        "dataset_dir": str(brains),
        "datalist": str(tmp_path / "list.json"),
        "ckpt_dir": str(tmp_path / "models"),
        "regions": {"CSF": [10], "GM": [150], "WM": [250]},
    }
    run("training", output_dir=str(tmp_path / "run"), adversarial_weight=weight, **settings)
    assert ((2, "training/accuracy_all") in history(tmp_path / "run")) == bool(weight)
    run("evaluating", output_dir=str(tmp_path / "evaluation"), **settings)
    found = json.loads((tmp_path / "evaluation" / "normalization.json").read_text(encoding="utf-8"))
    assert found["jensen_shannon_divergence_nats"]["input"]["whole image"] == 0


def test_split_by_patch(brains, tmp_path, caplog):
    settings = {"output_dir": str(tmp_path / "run"), "ckpt_dir": str(tmp_path / "models")}
    workflow = run("training", dataset_dir=str(brains), split_by="patch", **settings)
    assert "validation figures are too good" in caplog.text
    validation = workflow.parser.get_parsed_content("validate#dataset")
    assert validation[0][0]["image"].shape == (1, 8, 16, 8)
    assert (2, "validation/mean_dice") in history(tmp_path / "run")


def fails(match, kind, run_id="training", **overrides):
    with pytest.raises(Exception) as caught:
        run(run_id, **overrides)
    found = [error for error in causes(caught.value) if isinstance(error, kind)]
    assert found, caught.value
    assert match in str(found[-1])


def test_bad_input_is_named_by_whole_runs(brains, tmp_path):
    output = {"output_dir": str(tmp_path / "out"), "ckpt_dir": str(tmp_path / "models"), "dataset_dir": str(brains)}
    fails("domain MRBrainS: 2 subjects cannot be split into 3 folds", DataError, folds=3, **output)
    fails("Pass --pad_small_images true", DataError, patch_size=[32, 32, 32], **output)
    fails("that are in no region", DataError, regions={"CSF": [1], "GM": [2]}, **output)
    fails("no case is of domain nowhere", ConfigError, train_domains=["nowhere"], **output)
    fails("'least_squares', 'hinge' or 'wasserstein'", ConfigError, adversarial_loss="wgan", **output)
    entries = [{"image": f"iSEG/subject-{n}-T1.hdr", "label": f"iSEG/subject-{n}-label.hdr"} for n in (1, 2)]
    entries[0]["domain"] = "iSEG"
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    fails(
        "1 of 2 cases have no domain, such as subject-2-T1", DataError, datalist=str(tmp_path / "list.json"), **output
    )


def test_small_images_are_padded_on_request(brains, tmp_path):
    settings = {"dataset_dir": str(brains), "ckpt_dir": str(tmp_path / "models"), "patch_size": [32, 32, 32]}
    run("training", output_dir=str(tmp_path / "run"), pad_small_images=True, **settings)
    run("inference", output_dir=str(tmp_path / "inference"), **settings)  # as in the training
    assert nibabel.load(tmp_path / "inference" / "iSEG_subject-1_seg.nii.gz").shape == (20, 24, 16)


@pytest.mark.real_data
def test_two_real_brains(data_dir, tmp_path):
    """Two subjects, two domains, other grids and units: geometry exact; nothing is said of accuracy."""
    entries = [
        {
            "image": f"{name}/t1.nii.gz",
            "label": f"{name}/label.nii.gz",
            "domain": name,
            "case": name,
            "skull_strip": True,
        }
        for name in ("template", "individual")
    ]
    (tmp_path / "brains.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    data = data_dir / "brain_tissue"
    settings = {"dataset_dir": str(data), "datalist": str(tmp_path / "brains.json"), "patch_size": [32, 32, 32]}
    settings |= {"spacing_mm": [2.0, 2.0, 2.0], "ckpt_dir": str(tmp_path / "models"), "window_overlap": 0.25}
    run("training", output_dir=str(tmp_path / "run"), split_by="patch", patch_stride=[16, 16, 16], **settings)
    run("inference", output_dir=str(tmp_path / "out"), **settings)
    for case in ("template", "individual"):
        image = nibabel.load(data / case / "t1.nii.gz")
        for kind in ("seg", "normalized"):
            output = nibabel.load(tmp_path / "out" / f"{case}_{kind}.nii.gz")
            assert output.shape == image.shape
            np.testing.assert_allclose(output.affine, image.affine, atol=1e-4)
