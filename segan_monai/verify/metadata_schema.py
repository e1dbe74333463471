# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""JSON schema of ``configs/metadata.json``: requirements of the MONAI bundle specification and the model zoo."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_VERSION = {"type": "string", "pattern": r"^\d+(\.\d+)+"}
_TENSOR: dict[str, Any] = {
    "type": "object",
    "required": [
        "type",
        "format",
        "num_channels",
        "spatial_shape",
        "dtype",
        "value_range",
        "is_patch_data",
        "channel_def",
    ],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": _TEXT,
        "modality": _TEXT,
        "num_channels": {"type": "integer", "minimum": 1},
        # a size, "*" for any size, or an expression in n and p such as 16*n or 2**p
        "spatial_shape": {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^(\*|[0-9np*+\-/ ()]+)$"}]
            },
        },
        "dtype": {"type": "string", "pattern": r"^(u?int|b?float)\d+$"},
        "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {
            "type": "object",
            "minProperties": 1,
            "patternProperties": {r"^\d+$": _TEXT},
            "additionalProperties": False,
        },
    },
}
_TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": _TENSOR}

METADATA_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": [
        "schema",
        "version",
        "changelog",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
    ],
    "properties": {
        "schema": {"type": "string", "pattern": r"^https://.+\.json$"},
        "version": _VERSION,
        "changelog": {"type": "object", "minProperties": 1, "additionalProperties": _TEXT},
        "monai_version": _VERSION,
        "pytorch_version": _VERSION,
        "numpy_version": _VERSION,
        "required_packages_version": {"type": "object", "additionalProperties": _VERSION},
        "optional_packages_version": {"type": "object", "additionalProperties": _VERSION},
        **dict.fromkeys(("name", "task", "description", "authors", "copyright", "intended_use", "data_source"), _TEXT),
        **dict.fromkeys(("data_type", "image_classes", "label_classes", "pred_classes"), _TEXT),
        "supported_apps": {"type": "object"},
        "eval_metrics": {"type": "object"},
        "references": {"type": "array", "items": _TEXT},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {**_TENSORS, "required": ["image"]},
                "outputs": {**_TENSORS, "required": ["pred"]},
            },
        },
    },
}
