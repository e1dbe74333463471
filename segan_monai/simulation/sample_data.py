# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Writing of small labelled data sets in the decathlon's layout, with any channels and label values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segan_monai.simulated_data import MARK

SHAPE = (40, 44, 20)  # at 1 mm


def write_sample_data(
    folder: str | Path,
    channels: Sequence[str],
    labels: Sequence[int],
    domains: Sequence[str] = (),
    convention: str | None = None,
    photographs: bool = False,
    cases: int = 4,
) -> Path:
    """Write noisy images in which each label is a block with a distinct intensity.

    The affines of the volumes have different orientations; the first is oblique.

    Args:
        folder: Output folder of ``dataset.json``, ``imagesTr`` and ``labelsTr``.
        channels: Names of the modalities; several are written as one 4-D image.
        labels: Label values.
        domains: Names of scanners, assigned to the cases in turn.
        convention: Name of the label convention, recorded with each case.
        photographs: Whether to write JPEG and PNG instead of NIfTI.
        cases: Number of cases.

    Returns:
        The folder.
    """
    folder = Path(folder)
    generator = np.random.default_rng(0)
    entries = []
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        label, voxels = _case(generator, len(channels), labels)
        image_file, label_file = (f"{kind}/case_{number}" for kind in ("imagesTr", "labelsTr"))
        if photographs:
            image_file, label_file = f"{image_file}.jpg", f"{label_file}.png"
            middle = SHAPE[2] // 2
            grey = (voxels[:, :, middle] if voxels.ndim == 4 else voxels[:, :, middle, None]).clip(0, 255)
            Image.fromarray(grey.astype(np.uint8)).resize((66, 60)).save(folder / image_file, quality=95)
            mask = Image.fromarray(label[:, :, middle])
            mask.resize((66, 60), Image.Resampling.NEAREST).save(folder / label_file)
        else:
            image_file, label_file = f"{image_file}.nii.gz", f"{label_file}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(voxels, _affine(number)), folder / image_file)
            nibabel.save(nibabel.Nifti1Image(label, _affine(number)), folder / label_file)
        entry = {"image": image_file, "label": label_file}
        if domains:
            entry["domain"] = domains[number % len(domains)]
        if convention:
            entry["convention"] = convention
        entries.append(entry)
    content = {
        "name": "generated, no patients",
        "description": f"{MARK}: blocks in noise, no patients",
        "modality": {str(number): name for number, name in enumerate(channels)},
        "labels": {"0": "background", **{str(value): f"label {value}" for value in labels}},
        "training": entries,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=4), encoding="utf-8")
    return folder


def _case(generator: np.random.Generator, channels: int, labels: Sequence[int]) -> tuple[NDArray, NDArray]:
    """Return label map (H, W, D) and image (H, W, D[, C]): blocks in a row along W, in tissue, surrounded by 0."""
    label, order = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.float32)
    x, z = generator.integers(10, 14), generator.integers(4, 7)
    edges = np.linspace(8, 36, len(labels) + 1).astype(int) + generator.integers(-2, 3)
    for number, (value, first, last) in enumerate(zip(labels, edges[:-1], edges[1:], strict=True), start=1):
        label[x : x + 16, first:last, z : z + 9] = value
        order[x : x + 16, first:last, z : z + 9] = number
    tissue = np.zeros(SHAPE, bool)
    tissue[4:36, 4:40, 2:18] = True
    image = np.stack(
        [
            np.where(tissue, 40 + 150 / (len(labels) + channel) * order + generator.normal(0, 8, SHAPE), 0)
            for channel in range(channels)
        ],
        axis=-1,
    ).astype(np.float32)
    return label, image[..., 0] if channels == 1 else image


def _affine(number: int) -> NDArray:
    """Return an affine of 1 mm voxels: oblique, RAS, LPS and PIR in turn."""
    if number % 4 == 0:
        cosine, sine = np.cos(np.pi / 6), np.sin(np.pi / 6)
        return np.array([[cosine, -sine, 0, -12.5], [sine, cosine, 0, 7.25], [0, 0, 1, 40], [0, 0, 0, 1]])
    axes = ("RAS", "LPS", "PIR")[number % 4 - 1]
    orientation = nibabel.orientations.axcodes2ornt(axes)
    return np.linalg.inv(nibabel.orientations.inv_ornt_aff(orientation, SHAPE)) @ np.eye(4)
