# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Export of bundles for use without MONAI: TorchScript, ONNX, torch.export, and a script that runs ONNX on NIfTI."""

from __future__ import annotations

from segan_monai.export.components import load_inferer, load_network, load_preprocessing
from segan_monai.export.formats import FORMATS, ExportedBundle
from segan_monai.export.included import include_weights
from segan_monai.export.recipe import inference_recipe

__all__ = [
    "FORMATS",
    "ExportedBundle",
    "include_weights",
    "inference_recipe",
    "load_inferer",
    "load_network",
    "load_preprocessing",
]
