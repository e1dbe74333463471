# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Adversarial segmentation of medical images with MONAI."""

from __future__ import annotations

from segan_monai._version import __version__

__all__ = ["__version__"]
