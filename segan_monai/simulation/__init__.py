# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Simulated data: brain tumours in the MNI152 template, and small data sets in the layout of each bundle."""

from __future__ import annotations

from segan_monai.simulation.phantom import make_phantom
from segan_monai.simulation.phantom_files import write_phantoms

__all__ = ["make_phantom", "write_phantoms"]
