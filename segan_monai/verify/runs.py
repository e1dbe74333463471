# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the workflows of a bundle: training, resuming, evaluation and inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import ensure_tuple
from PIL import Image

from segan_monai.file_kinds import file_id, is_picture
from segan_monai.verify.trial import SkippedError, Trial, expect
from segan_monai.volume_files import read_volume

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
    parser = trial.run("inference").parser
    images = _images(parser.get_parsed_content("cases")) if "cases" in parser else _images_of_folder(trial.data)
    written = {file.name.split("_seg.")[0]: file for file in (trial.work_dir / "inference").glob("*_seg.*")}
    found = [(files, written[case]) for case, files in images.items() if case in written]
    expect(bool(found), "no <case>_seg file in output_dir")
    trial.inferred = found
    values: set[int] = set()
    for image_files, label_file in found:
        label, affine = read_voxels(label_file)
        image, wanted = read_voxels(image_files[0])
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


def _images(cases: Sequence[Mapping[str, Any]]) -> dict[str, list[Path]]:
    """Return the image files of each case."""
    return {case["case"]: [Path(file) for file in ensure_tuple(case["image"])] for case in cases}


def _images_of_folder(data: Path) -> dict[str, list[Path]]:
    """Return the image file of each case of a folder in the decathlon's layout, for a config without cases."""
    return {file_id(file): [file] for file in sorted((data / "imagesTr").glob("*"))}


def read_voxels(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels and affine of a volume; the pixels and the identity of a picture."""
    if is_picture(file):
        return np.asarray(Image.open(file)), np.eye(4)
    volume = read_volume(file)
    return volume.values, volume.affine
