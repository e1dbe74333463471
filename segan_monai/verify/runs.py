# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the workflows of a bundle: training, resuming, evaluation and inference."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from segan_monai.verify.trial import SkippedError, Trial, expect

EPOCHS = 2


def check_training(trial: Trial) -> str:
    """Check that two epochs of training write weights."""
    known = trial.config("training")
    epochs = {"epochs": EPOCHS} if "epochs" in known else {"train#trainer#max_epochs": EPOCHS}
    trainer = trial.run("training", **epochs).parser.get_parsed_content("train#trainer")
    expect(trainer.state.iteration >= 2, f"only {trainer.state.iteration} iteration in {EPOCHS} epochs")
    expect((trial.work_dir / "models" / "model.pt").is_file(), "no model.pt in ckpt_dir after training")
    return f"{trainer.state.iteration} iterations"


def check_resuming(trial: Trial) -> str:
    """Check that a training resumes from its last epoch."""
    if "resume" not in trial.config("training"):
        raise SkippedError("train.json has no key resume")
    trainer = trial.run("training", epochs=EPOCHS + 1, resume=True).parser.get_parsed_content("train#trainer")
    per_epoch = trainer.state.epoch_length
    expect(trainer.state.epoch == EPOCHS + 1, f"ended in epoch {trainer.state.epoch}, expected {EPOCHS + 1}")
    expect(
        trainer.state.iteration == (EPOCHS + 1) * per_epoch,
        f"iteration {trainer.state.iteration}, expected {(EPOCHS + 1) * per_epoch}: it began anew",
    )
    return f"from epoch {EPOCHS} to {EPOCHS + 1}"


def check_evaluation(trial: Trial) -> str:
    """Check that an evaluation writes the metrics of the held-out cases."""
    trial.run("evaluating")
    file = trial.work_dir / "evaluating" / "metrics.csv"
    if "output_dir" not in trial.config("evaluating"):
        return "ran"
    expect(file.is_file(), f"no {file.name} in output_dir")
    return f"{len(file.read_text(encoding='utf-8').splitlines()) - 1} rows in metrics.csv"


def check_inference(trial: Trial) -> str:
    """Check that each case has a label map on the grid of its image, with values named in the metadata."""
    trial.run("inference")
    found = predictions(trial)
    expect(bool(found), "no <case>_seg file in output_dir")
    values: set[int] = set()
    for image_file, label_file in found.items():
        label, affine = read_voxels(label_file)
        image, wanted = read_voxels(image_file)
        expect(label.dtype == np.uint8, f"{label_file.name} has {label.dtype}, expected uint8")
        expect(
            label.shape == image.shape[: label.ndim],
            f"{label_file.name} has shape {label.shape}, the image {image.shape}",
        )
        expect(np.allclose(affine, wanted, atol=1e-4), f"{label_file.name} has another affine than its image")
        values |= set(np.unique(label).tolist())
    expect(
        values <= trial.channel_def.keys(), f"values {sorted(values)}; channel_def names {sorted(trial.channel_def)}"
    )
    return f"{len(found)} label maps on their images' grids, values {sorted(values)}"


def predictions(trial: Trial) -> dict[Path, Path]:
    """Return the label map written by inference for each image file."""
    images = sorted((trial.data / "imagesTr").glob("*")) if (trial.data / "imagesTr").is_dir() else []
    written = {file.name.split("_seg.")[0]: file for file in (trial.work_dir / "inference").glob("*_seg.*")}
    return {file: written[file.name.split(".")[0]] for file in images if file.name.split(".")[0] in written}


def read_voxels(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels and affine of a volume; the pixels and the identity of a PNG or JPEG file."""
    if file.name.endswith((".png", ".jpg")):
        return np.asarray(Image.open(file)), np.eye(4)
    image = nibabel.load(file)
    return np.asanyarray(image.dataobj), image.affine
