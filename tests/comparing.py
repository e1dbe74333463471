# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Comparison of nested states, such as checkpoints."""

from __future__ import annotations

import torch


def assert_same(found, expected, where=""):
    """Bit for bit, however deep."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    else:
        assert found == expected, where
