# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Bundles that say they work in MONAI Label, with small networks, and generated cases as a viewer would have them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser

from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, PANCREAS

BRAIN = "brain_mri_adversarial_normalization_segmentation"
CLAIMING = sorted(
    file.parents[1].name
    for file in BUNDLES.glob("*/configs/metadata.json")
    if "monailabel" in json.loads(file.read_text(encoding="utf-8"))["supported_apps"]
)
CHANNELS = {BRATS: 3, HIPPOCAMPUS: 1, PANCREAS: 1, BRAIN: 1}
SLICES = {
    "device": "cpu",
    "num_workers": 0,
    "base_channels": 4,
    "slice_size": [32, 32],
    "batch_size": 8,
    "slices_per_volume": 4,
    "learning_rate": 0.02,
}
SMALL = {
    BRATS: SLICES,
    HIPPOCAMPUS: SLICES,
    PANCREAS: {**SLICES, "plane_size": [32, 32], "segmentor_depth": 18, "learning_rate": 0.005},
    BRAIN: {
        "device": "cpu",
        "num_workers": 0,
        "base_channels": 4,
        "num_levels": 3,
        "patch_size": [16, 16, 8],
        "patches_per_volume": 2,
        "patch_stride": [4, 4, 4],
        "discriminator_channels": [4, 8],
        "learning_rate": 0.01,
    },
}


def write_overlay(bundle: str, folder: Path) -> Path:
    """The overlay that makes a bundle's networks small."""
    file = folder / "small.json"
    file.write_text(json.dumps(SMALL[bundle]), encoding="utf-8")
    return file


def write_case(bundle: str, folder: Path, name: str, seed: int, affine: np.ndarray) -> tuple[Path, np.ndarray]:
    """An image in the form that the server takes, and its label map with the values that the bundle predicts."""
    generator = np.random.default_rng(seed)
    x, y, z = generator.integers(2, 6, 3)
    label = np.zeros((26, 24, 14), np.uint8)
    classes = {BRATS: 3, HIPPOCAMPUS: 2, PANCREAS: 1, BRAIN: 3}[bundle]
    for value in range(1, classes + 1):
        label[x + 2 * value : x + 18 - 2 * value, y + value : y + 15 - value, z + value : z + 8 - value] = value
    if bundle == HIPPOCAMPUS:
        label[label > 0] = 1
        label[:, y + 7 :][label[:, y + 7 :] > 0] = 2
    image = generator.normal(40, 4, label.shape) + 60 * label
    if CHANNELS[bundle] > 1:
        image = np.stack([image, generator.normal(60, 4, label.shape), image / 2], axis=-1)
    file = folder / f"{name}.nii.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), file)
    return file, label


def copy_with_weights(bundle: str, folder: Path) -> tuple[Path, Path]:
    """A copy of a bundle with small networks and weights that nobody trained; and the overlay that makes them small."""
    overlay = write_overlay(bundle, folder)
    copy = folder / "bundles" / bundle
    shutil.copytree(BUNDLES / bundle / "configs", copy / "configs")
    (copy / "models").mkdir()
    config = ConfigParser.load_config_files([str(copy / "configs" / "inference.json"), str(overlay)])
    torch.manual_seed(0)
    network = ConfigParser(config).get_parsed_content("network_def")
    torch.save(network.state_dict(), copy / "models" / "model.pt")
    return copy, overlay
