# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the exports of a bundle against its network and its label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segan_monai.errors import ConfigError
from segan_monai.export import inference_recipe
from segan_monai.export.formats import run_exported
from segan_monai.optional import require_modules
from segan_monai.verify.runs import read_voxels
from segan_monai.verify.trial import SkippedError, Trial, expect

ENDINGS = {"torchscript": ".ts", "onnx": ".onnx", "torch-export": ".pt2"}
TOLERANCE = 1e-4  # largest difference of two logits
ROUNDING = 1e-6
"""Probabilities that differ by less may be equal but for rounding: PyTorch and ONNX Runtime sum in different orders."""


def check_export(trial: Trial, kind: str) -> str:
    """Check that exported file and network give equal logits for two batch and image sizes."""
    if kind == "onnx":
        _skip_without_onnx()
    bundle = trial.exported
    file = bundle.export(kind, trial.work_dir / "exports" / f"model{ENDINGS[kind]}")
    images = [bundle.example(), bundle.example(other=True, any_size=kind != "torch-export")]
    differences = []
    for image in images:
        with torch.no_grad():
            expected = bundle.network(image)
        found = run_exported(kind, file, image)
        expect(found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
        differences.append(float((found - expected).abs().max()))
    worst = max(differences)
    expect(worst <= TOLERANCE, f"logits differ by {worst:.2g}, tolerance {TOLERANCE:g}")
    sizes = " and ".join("x".join(map(str, image.shape)) for image in images)
    fixed = "; image size fixed" if bundle.fixed_size else ""
    return f"{sizes}: logits differ by {worst:.1g}{fixed}"


def check_runner(trial: Trial) -> str:
    """Check that ``run_onnx`` reproduces the bundle's label maps with ONNX Runtime, NumPy and nibabel alone.

    Only voxels that rounding decides may differ, see ``margins``: the networks of this check are almost random, so some
    of the probabilities lie on the threshold, or two of them are equal.
    """
    try:
        inference_recipe(trial.exported.parser)
    except ConfigError as error:
        raise SkippedError(str(error)) from error
    _skip_without_onnx()
    expect(bool(trial.inferred), "no label maps to compare with: the check infer has written none")
    import onnxruntime

    from segan_monai.export.run_onnx import make_label_map, predict, read_recipe

    network = onnxruntime.InferenceSession(
        str(trial.work_dir / "exports" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    voxels = rounded = 0
    for image_files, label_file in trial.inferred:
        expected = read_voxels(label_file)[0]
        found = np.asanyarray(make_label_map(network, image_files).dataobj)
        different = found != expected
        if different.any():
            narrowest = margins(predict(network, image_files)[0], **read_recipe(network)["labels"])[different]
            clear = int((narrowest > ROUNDING).sum())
            expect(
                clear == 0,
                f"{clear} of {expected.size} voxels differ in {label_file.name}, with a margin of up to "
                f"{narrowest.max():.2g}; rounding explains {ROUNDING:g}",
            )
            rounded += int(different.sum())
        voxels += int((expected != 0).sum())
    but = f"but for {rounded} that rounding decides, " if rounded else ""
    return f"the same in every voxel, {but}{voxels} of them labelled"


def margins(maps: NDArray, rule: str, threshold: float, order: Sequence[int], **_: Any) -> NDArray:
    """Return by how much the probabilities of each voxel must change at least to change its label.

    Args:
        maps: probabilities (K, H, W, D).
        rule: see ``run_onnx.merge``, as are the other arguments.
        threshold: least probability of a region; without meaning for ``argmax``.
        order: regions that are painted.

    Returns:
        (H, W, D), a lower bound.
    """
    if rule not in ("argmax", "highest"):
        return np.abs(maps[list(order)] - threshold).min(axis=0)
    ascending = np.sort(maps, axis=0)
    lead = ascending[-1] - ascending[-2]
    return lead if rule == "argmax" else np.minimum(lead, np.abs(ascending[-1] - threshold))


def _skip_without_onnx() -> None:
    try:
        require_modules("export", "this check")
    except ConfigError as error:
        raise SkippedError(str(error)) from error
