# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A small data set for each bundle; ``tests/conftest.py`` has a fixture for each."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from tests.data.challenges import write_iseg, write_mrbrains


def write_hippocampi(folder, oblique, write_volume):
    """Write four small cases in decathlon format, one with an oblique affine."""
    generator = np.random.default_rng(0)
    training = []
    for index in range(4):
        label = np.zeros((18, 24, 12), np.uint8)
        label[5:10, 6:12, 3:9] = 1
        label[5:10, 12:18, 3:9] = 2
        image = (generator.normal(100, 10, label.shape) + 50 * label).astype(np.float32)
        affine = oblique if index == 0 else np.diag([1.0, 1, 1, 1])
        for kind, array in (("imagesTr", image), ("labelsTr", label)):
            write_volume(folder / kind / f"hippocampus_{index:03}.nii.gz", array, affine)
        name = f"hippocampus_{index:03}.nii.gz"
        training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    content = {"name": "Hippocampus", "modality": {"0": "MRI"}, "labels": labels, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


ISIC_FOLDERS = {
    section: (f"ISIC-2017_{section}_Data", f"ISIC-2017_{section}_Part1_GroundTruth")
    for section in ("Training", "Validation", "Test_v2")
}


def write_photograph(image_file, mask_file, generator, size=(240, 160)):
    """Write skin with a dark lesion, off the centre."""
    columns, rows = size
    x, y = np.meshgrid(np.arange(columns) / columns, np.arange(rows) / rows)
    (cx, cy), radius = generator.uniform(0.35, 0.65, 2), generator.uniform(0.15, 0.3)
    lesion = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
    pixels = np.where(lesion[..., None], (120, 70, 50), (230, 180, 160)) + generator.normal(0, 6, (rows, columns, 3))
    for file in (image_file, mask_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(image_file, quality=95)
    Image.fromarray(lesion.astype(np.uint8) * 255).save(mask_file)


def write_photographs(folder):
    """Write four photographs for training, two for validation, two for test, all of different sizes."""
    generator = np.random.default_rng(0)
    number = 0
    for (images, masks), count in zip(ISIC_FOLDERS.values(), (4, 2, 2), strict=True):
        for _ in range(count):
            name = f"ISIC_{number:07}"
            files = folder / images / f"{name}.jpg", folder / masks / f"{name}_segmentation.png"
            write_photograph(*files, generator, size=(240 - 7 * number, 160 + 3 * number))
            Image.new("RGB", (4, 4)).save(folder / images / f"{name}_superpixels.png")
            number += 1
        (folder / images / f"{images}_metadata.csv").write_text("image_id,age_approximate,sex\n", encoding="utf-8")
    return folder


def write_slices(folder):
    """Write eight slices of four patients as JPEG, upside down, with a bright organ; one slice without it."""
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for patient in range(4):
        for number in range(2):
            mask = np.zeros((64, 64), np.uint8)
            if (patient, number) != (3, 1):
                y, x = generator.integers(10, 34, 2)
                mask[y : y + 16, x : x + 20] = 255
            name = f"PANCREAS_{patient:04}-{1100 + number}.jpg"
            grey = np.clip(60 + 0.5 * mask + generator.normal(0, 8, mask.shape), 0, 255).astype(np.uint8)
            Image.fromarray(grey).convert("RGB").save(folder / "images" / name, quality=95)
            Image.fromarray(mask).convert("RGB").save(folder / "masks" / name, quality=95)
    return folder


def write_brains(folder):
    """Write two subjects of each challenge, in one folder."""
    write_iseg(folder / "iSEG")
    write_mrbrains(folder / "MRBrainS" / "TrainingData")
    return folder
