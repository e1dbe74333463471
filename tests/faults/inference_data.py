# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Images, weights and settings of inferences that meet a truncated file."""

from __future__ import annotations

import shutil

import torch

from segan_monai.networks import SegANSegmentor

START = "$segan_monai.start_run(@output_dir, @seed)"
UNTRAINED = {"initialize": START, "network": "$@network_def"}
"""Settings of an evaluation or inference by a network of random weights."""


def copy_images(hippocampi, tmp_path, count):
    """The first volumes in a folder, `case_1` truncated, and weights beside it."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(count):
        shutil.copy(hippocampi / "imagesTr" / f"case_{index}.nii.gz", folder)
    bad = folder / "case_1.nii.gz"
    bad.write_bytes(bad.read_bytes()[:500])
    save_weights(tmp_path, seed=0)
    return folder


def save_weights(tmp_path, seed):
    torch.manual_seed(seed)
    (tmp_path / "models").mkdir(exist_ok=True)
    network = SegANSegmentor(7, 2, base_channels=4, full_resolution_channels=8)
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")


def settings(tmp_path):
    folders = {"dataset_dir": "images", "output_dir": "out", "ckpt_dir": "models"}
    return {key: str(tmp_path / folder) for key, folder in folders.items()}
