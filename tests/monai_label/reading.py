# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Bundles as MONAI Label reads them."""

from __future__ import annotations

import json

from monai.bundle import ConfigParser


def read_as_monai_label(bundle, name="inference"):
    """A config as `BundleInferTask` and `BundleTrainTask` read it: one file, and another root."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / f"{name}.json"))
    parser.config.update({"bundle_root": str(bundle)})
    return parser


def labels_of(bundle):
    """Name to voxel value, as a viewer gets them."""
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    pred = next(iter(metadata["network_data_format"]["outputs"].values()))
    return {name.lower(): int(value) for value, name in pred["channel_def"].items() if name.lower() != "background"}
