# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The skin bundle, on generated photographs in the layout of ISIC 2017 and on real ones."""

from __future__ import annotations

import csv
import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from segan_monai.errors import DataError
from segan_monai.networks import SegANSegmentor
from segan_monai.networks.upsampled_convolution import UpsampledConv2d
from segan_monai.reproduce import load_tables
from tests.bundles.datasets import ISIC_FOLDERS
from tests.bundles.workflow import BUNDLES, OVERLAYS, SKIN, SMALL_SKIN, make_workflow, run_workflow

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]

CONFIGS = BUNDLES / SKIN / "configs"


def run(run_id, overlay=None, **overrides):
    return run_workflow(SKIN, run_id, overlay, **{**SMALL_SKIN, **overrides})


def read_rows(file):
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_train_resume_evaluate_and_infer(photographs, tmp_path):
    settings = {"dataset_dir": str(photographs), "ckpt_dir": str(tmp_path / "models")}
    run("training", output_dir=str(tmp_path / "run"), **settings)
    split = json.loads((tmp_path / "run" / "split.json").read_text(encoding="utf-8"))
    assert (len(split["training"]), split["validation"]) == (4, ["ISIC_0000004", "ISIC_0000005"])
    resumed = run("training", output_dir=str(tmp_path / "run"), resume=True, epochs=2, **settings)
    assert resumed.trainer.state.epoch == 2
    names = {row["name"] for row in read_rows(tmp_path / "run" / "history.csv")}
    assert names >= {f"training/{term}" for term in ("critic_l1", "segmentor_l1", "supervised")}
    assert names >= {"validation/mean_dice", "validation/lesion"}

    run("evaluating", output_dir=str(tmp_path / "evaluation"), subset="test", **settings)
    rows = read_rows(tmp_path / "evaluation" / "metrics.csv")
    assert [row["case"] for row in rows] == ["ISIC_0000006", "ISIC_0000007"]
    assert all(0 <= float(row["iou"]) <= float(row["dice"]) <= 1 for row in rows)
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text(encoding="utf-8"))["regions"]["lesion"]
    assert summary["dice"]["mean"] == pytest.approx(np.mean([float(row["dice"]) for row in rows]))
    assert summary["iou"]["mean"] == pytest.approx(np.mean([float(row["iou"]) for row in rows]))
    assert (tmp_path / "evaluation" / "overlay.png").stat().st_size > 10_000

    plain = {**settings, "dataset_dir": str(photographs / "ISIC-2017_Test_v2_Data")}
    run("inference", output_dir=str(tmp_path / "inference"), **plain)
    assert len(list((tmp_path / "inference").glob("*_seg.*"))) == 2, "without masks, and not of superpixels"
    for row in rows:
        # One prediction was made twice, by two configs: they must agree pixel for pixel, and with the metrics.
        file = f"{row['case']}_seg.png"
        first, second = (np.asarray(Image.open(tmp_path / kind / file)) for kind in ("evaluation", "inference"))
        assert np.array_equal(first, second)
        mask = Image.open(photographs / ISIC_FOLDERS["Test_v2"][1] / f"{row['case']}_segmentation.png")
        truth, found = np.asarray(mask) == 255, first == 255
        assert truth.shape == found.shape
        assert float(row["dice"]) == pytest.approx(2 * (truth & found).sum() / (truth.sum() + found.sum()))


class BlueIsLesion(torch.nn.Module):
    """A network whose right answer is known."""

    def forward(self, x):
        return 100 * (x[:, 2:] - 0.5)


@pytest.mark.parametrize("size", [(1030, 517), (301, 640), (90, 70)])
def test_masks_have_the_photographs_size_and_orientation(size, tmp_path):
    columns, rows = size
    pixels = np.zeros((rows, columns, 3), np.uint8)
    pixels[: rows // 2, : columns // 4, 2] = 255
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "my.photo.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "in" / "turned.jpg", quality=95, exif=exif)
    run(
        "inference",
        dataset_dir=str(tmp_path / "in"),
        output_dir=str(tmp_path / "out"),
        image_size=[128, 128],
        save_nifti=True,
        save_probabilities=True,
        network=BlueIsLesion(),
        initialize="$segan_monai.start_run(@output_dir, @seed)",
    )
    mask = Image.open(tmp_path / "out" / "my.photo_seg.png")
    assert (mask.size, mask.mode) == (size, "L")
    found = np.asarray(mask)
    assert set(np.unique(found)) == {0, 255}
    assert ((found == 255) != (pixels[..., 2] == 255)).mean() < 0.01
    turned = np.asarray(Image.open(tmp_path / "out" / "turned_seg.png"))
    assert ((turned == 255) != np.rot90(pixels[..., 2] == 255, -1)).mean() < 0.01
    nifti = nibabel.load(tmp_path / "out" / "my.photo_seg.nii.gz")
    assert nifti.get_data_dtype() == np.uint8
    assert np.array_equal(np.squeeze(np.asanyarray(nifti.dataobj)), found.T)
    assert nibabel.aff2axcodes(nifti.affine) == ("L", "P", "S")
    probabilities = nibabel.load(tmp_path / "out" / "my.photo_probabilities.nii.gz")
    assert np.array_equal(np.squeeze(probabilities.get_fdata()) >= 0.5, found.T == 255)


def draws(photographs, tmp_path, seed=0, count=24, **overrides):
    """Samples of the training's transforms, as a run of this seed draws them."""
    folders = {"dataset_dir": str(photographs), "output_dir": str(tmp_path / "run"), "ckpt_dir": str(tmp_path)}
    workflow = make_workflow(SKIN, "training", **{**SMALL_SKIN, **folders, "seed": seed, **overrides})
    workflow.initialize()
    dataset = workflow.parser.get_parsed_content("train#dataset")
    dataset.transform.set_random_state(seed)
    cached = [[tensor.shape for tensor in (item["image"], item["label"])] for item in dataset._cache]
    assert cached == [[(3, 60, 45), (1, 60, 45)]] * 4, "small pictures in memory, not megapixels"
    return [dataset[index % 4] for index in range(count)]


def test_coin_toss_of_resize_or_crop(photographs, tmp_path):
    samples = draws(photographs, tmp_path)
    areas = [float(sample["label"].sum()) for sample in samples]
    for sample in samples:
        assert sample["image"].shape == (3, 32, 32)
        assert set(sample["label"].unique().tolist()) <= {0, 1}
        dark, lesion = sample["image"][0] < 0.68, sample["label"][0] == 1
        assert (dark != lesion).float().mean() < 0.06, "image and label are cut, resized and flipped alike"
    # the whole picture at 32x32 is 0.38 of its area at 60x45; a crop keeps the scale
    whole = [float(sample["label"].sum()) for sample in draws(photographs, tmp_path, crop_probability=0.0)]
    assert whole[:4] == pytest.approx(whole[4:8], abs=0), "resizing and flips alone keep the area"
    kept = [area == whole[index % 4] for index, area in enumerate(areas)]
    assert 6 <= sum(kept) <= 18
    assert max(areas) > 1.5 * max(whole)


def test_flips_on_both_axes(photographs, tmp_path):
    samples = draws(photographs, tmp_path, crop_probability=0.0, count=64)
    seen = {sample["label"].numpy().tobytes() for sample in samples[::4]}
    assert len(seen) == 4


def test_augmentation_moves_the_mask_with_the_lesion_and_changes_colours_of_the_image_alone(photographs, tmp_path):
    samples = draws(photographs, tmp_path, crop_probability=0.0, augmentation_probability=1.0)
    dark = [sample["image"].mean(dim=0) for sample in samples]
    for sample, grey in zip(samples, dark, strict=True):
        lesion = sample["label"][0] == 1
        assert set(sample["label"].unique().tolist()) <= {0, 1}
        assert grey[lesion].median() < 0.8 * grey[~lesion].median()
    areas = [float(sample["label"].sum()) for sample in samples]
    assert max(areas[::4]) > 1.3 * min(areas[::4]), "scaled"
    ratios = torch.stack([sample["image"][0].mean() / sample["image"][2].mean() for sample in samples[::4]])
    unchanged = draws(photographs, tmp_path, crop_probability=0.0)
    (ratio,) = {round(float(x["image"][0].mean() / x["image"][2].mean()), 2) for x in unchanged[::4]}
    assert ratios.max() > 1.1 * ratio
    assert ratios.min() < 0.9 * ratio


def test_augmentation_turns_changes_contrast_and_blurs(photographs, tmp_path):
    """Each transform by itself: a horizontal bar, and a ramp beside a step."""
    folders = {"dataset_dir": str(photographs), "output_dir": str(tmp_path / "run"), "ckpt_dir": str(tmp_path)}
    workflow = make_workflow(SKIN, "training", **{**SMALL_SKIN, **folders, "augmentation_probability": 1.0})
    workflow.initialize()
    steps = {type(step).__name__: step for step in workflow.parser.get_parsed_content("train#preprocessing").transforms}
    bar = torch.zeros(1, 32, 32)
    bar[:, 14:18, 4:28] = 1
    ramp = torch.linspace(0, 1, 32).expand(3, 16, 32)
    image = torch.cat([ramp, (ramp > 0.5).float()], dim=1)

    def draw(name):
        steps[name].set_random_state(0)
        return [steps[name]({"image": image.clone(), "label": bar.clone()}) for _ in range(100)]

    boxes = [sample["label"][0].nonzero().float() for sample in draw("RandAffined")]
    heights, widths = torch.stack([box.max(0).values - box.min(0).values for box in boxes]).unbind(1)
    assert (heights > widths).any(), "turned by more than 45 degrees"
    assert (heights < widths).any()
    middle = [float(sample["image"][0, 8, 16]) for sample in draw("RandAdjustContrastd")]
    assert min(middle) < 0.47 < 0.55 < max(middle), "0.52 where the contrast is not changed"
    steepest = [float(sample["image"][0, 24].diff().abs().max()) for sample in draw("RandGaussianSmoothd")]
    assert min(steepest) < 0.7
    assert max(steepest) == pytest.approx(1), "a quarter of the pictures is blurred"


def test_draws_follow_from_the_seed(photographs, tmp_path):
    first, second, other = (draws(photographs, tmp_path, seed=seed, count=8) for seed in (1, 1, 2))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))


def test_runs_are_reproducible_bit_for_bit_also_when_resumed(photographs, tmp_path):
    def weights(folder):
        return torch.load(tmp_path / folder / "last.pt", weights_only=True)["network"]

    # validated every epoch, as the part before a resumed one is in its last: a loader's start draws a random number
    common = {"dataset_dir": str(photographs), "learning_rate_decay_epochs": 1, "val_interval": 1}
    for folder, epochs in (("once", (2,)), ("again", (2,)), ("resumed", (1, 2))):
        for epoch in epochs:
            folders = {"output_dir": str(tmp_path / folder), "ckpt_dir": str(tmp_path / folder)}
            run("training", epochs=epoch, resume=epoch != epochs[0], **folders, **common)
    for name, tensor in weights("once").items():
        assert torch.equal(tensor, weights("again")[name]), name
        assert torch.equal(tensor, weights("resumed")[name]), name


def test_both_learning_rates_are_halved_by_schedulers(photographs, tmp_path):
    folders = {"dataset_dir": str(photographs), "output_dir": str(tmp_path), "ckpt_dir": str(tmp_path)}
    workflow = run("training", epochs=5, learning_rate_decay_epochs=2, learning_rate=0.01, val_interval=5, **folders)
    for optimizer in (workflow.trainer.optimizer, workflow.trainer.critic_optimizer):
        assert isinstance(optimizer, torch.optim.Adam)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0025)
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    assert workflow.trainer.clamp == 0.05
    assert workflow.trainer.supervised_weight == 1


def test_loss_and_critics_of_the_published_code(photographs, tmp_path):
    folders = {"dataset_dir": str(photographs), "output_dir": str(tmp_path), "ckpt_dir": str(tmp_path)}
    sizes = {"image_size": [64, 64], "cached_size": [90, 68]}
    trainer = run("training", "segan_isic_code.json", epochs=1, **sizes, **folders).trainer
    assert len(trainer.critic.critics[0].encoder) == 6
    assert trainer.loss_function.reduction == "concat"
    assert trainer.loss_function.layer_weights == [1, 1, 2, 2, 2, 2, 4]  # one per block and one for the masked image
    assert len(trainer.clamped) == len(list(trainer.critic.parameters()))
    assert not trainer.supervised_loss.batch
    assert trainer.supervised_loss.squared_pred


def test_the_deeper_segmentor_is_about_that_of_the_published_code(monkeypatch):
    overlay = json.loads((OVERLAYS / "skin_deep_segmentor.json").read_text(encoding="utf-8"))
    settings = {key: overlay[key] for key in ("base_channels", "num_levels", "max_channels")}
    monkeypatch.setattr(UpsampledConv2d, "forward", UpsampledConv2d.as_written)  # as everyone counts
    with torch.device("meta"):
        network = SegANSegmentor(in_channels=3, out_channels=1, **settings).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 128, 128))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(156e6, rel=0.04)
    assert counter.get_total_flops() == pytest.approx(37.8e9, rel=0.07)
    for name in ("train", "evaluate", "inference"):
        assert settings.keys() <= json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8")).keys()


def test_rows_of_the_table_train_and_evaluate(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(BUNDLES.parent)
    table = load_tables("segan-isic")[0]
    assert table.published["SegAN"] == {"dice": {"lesion": 0.9189}, "iou": {"lesion": 0.8612}}
    known = set().union(
        *(json.loads((CONFIGS / f"{n}.json").read_text(encoding="utf-8")) for n in ("train", "evaluate"))
    )
    for overlay in (file for files in table.rows.values() for file in files):
        keys = json.loads(overlay.read_text(encoding="utf-8"))
        assert {key for key in keys if not key.startswith("_")} <= known
    settings = {"dataset_dir": str(photographs), "ckpt_dir": str(tmp_path / "models"), "base_channels": 4}
    report = "experiments/segan_isic/report.json"
    run("training", report, output_dir=str(tmp_path / "run"), **settings)
    run("evaluating", report, output_dir=str(tmp_path / "evaluation"), **settings)
    split = json.loads((tmp_path / "run" / "split.json").read_text(encoding="utf-8"))
    assert (split["held_out"], len(split["training"])) == (0.25, 3)
    assert [row["case"] for row in read_rows(tmp_path / "evaluation" / "metrics.csv")] == split["validation"]


def test_the_unet_baseline_is_the_same_overlay_as_elsewhere(photographs, tmp_path):
    settings = {"dataset_dir": str(photographs), "ckpt_dir": str(tmp_path / "models")}
    overlay = "experiments/segan_components/unet.json"
    workflow = run("training", overlay, output_dir=str(tmp_path / "run"), **settings)
    assert list(workflow.trainer.state.output["terms"]) == ["supervised"]
    run("evaluating", overlay, output_dir=str(tmp_path / "evaluation"), **settings)
    assert len(read_rows(tmp_path / "evaluation" / "metrics.csv")) == 4


def test_two_classes_by_override(photographs, tmp_path):
    images, masks = (photographs / folder for folder in ISIC_FOLDERS["Training"])
    (tmp_path / "data" / "masks").mkdir(parents=True)
    (tmp_path / "data" / "images").symlink_to(images)
    for file in masks.iterdir():
        mask = np.asarray(Image.open(file)) // 255
        mask[:, mask.shape[1] // 2 :] *= 2
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / file.name)
    regions = {"left": [1], "right": [2]}
    settings = {"dataset_dir": str(tmp_path / "data"), "ckpt_dir": str(tmp_path / "models"), "regions": regions}
    workflow = run("training", output_dir=str(tmp_path / "run"), **settings)
    assert len(workflow.trainer.critic.critics) == 2
    run("evaluating", output_dir=str(tmp_path / "evaluation"), **settings)
    rows = read_rows(tmp_path / "evaluation" / "metrics.csv")
    assert [row["region"] for row in rows] == ["left", "right"] * 2
    for file in (tmp_path / "evaluation").glob("*_seg.png"):
        assert set(np.unique(np.asarray(Image.open(file)))) <= {0, 1, 2}


def test_a_damaged_photograph_stops_the_training_with_its_name(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    bad = tmp_path / "data" / "ISIC-2017_Training_Data" / "ISIC_0000002.jpg"
    bad.write_bytes(bad.read_bytes()[:2000])
    folders = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path), "ckpt_dir": str(tmp_path)}
    with pytest.raises(RuntimeError) as caught:
        run("training", **folders)
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, DataError):
        error = error.__cause__ or error.__context__
    assert "ISIC_0000002.jpg cannot be read" in str(error)


@pytest.mark.real_data
def test_real_photographs_are_overfitted(data_dir, tmp_path):
    settings = {"dataset_dir": str(data_dir / "isic2017"), "ckpt_dir": str(tmp_path / "models"), "base_channels": 16}
    sizes = {"image_size": [96, 96], "cached_size": [128, 96]}
    schedule = {"epochs": 140, "val_interval": 140, "learning_rate": 1e-3, "learning_rate_decay_epochs": 35}
    run(
        "training",
        output_dir=str(tmp_path / "run"),
        held_out=0,
        batch_size=6,
        crop_probability=0.0,
        **schedule,
        **settings,
        **sizes,
    )
    run("evaluating", output_dir=str(tmp_path / "out"), subset="training", **settings, **sizes)
    rows = read_rows(tmp_path / "out" / "metrics.csv")
    assert len(rows) == 6
    assert np.mean([float(row["dice"]) for row in rows]) > 0.9, rows
    for row in rows:
        photograph = Image.open(data_dir / "isic2017" / "images" / f"{row['case']}.jpg")
        assert Image.open(tmp_path / "out" / f"{row['case']}_seg.png").size == photograph.size
