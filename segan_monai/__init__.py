# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Adversarial segmentation of medical images with MONAI.

Importing the package registers its public classes and functions with MONAI, so that a bundle config finds them by their
full path and by their short name: ``{"_target_": "SegANSegmentor"}``.
"""

from __future__ import annotations

from monai.bundle.config_item import ComponentLocator

from segan_monai import data, engines, handlers, inferers, losses, metrics, networks, transforms
from segan_monai._version import __version__
from segan_monai.data import number_of_regions
from segan_monai.engines import has_fast_bfloat16
from segan_monai.networks import kaiming_initialize, load_weights
from segan_monai.processes import device_of_process, join_processes, process_rank, share_of_process
from segan_monai.run import bundle_root, run_settings, start_run
from segan_monai.transforms import merged_regions

__all__ = [
    "__version__",
    "bundle_root",
    "data",
    "device_of_process",
    "engines",
    "handlers",
    "has_fast_bfloat16",
    "inferers",
    "join_processes",
    "kaiming_initialize",
    "load_weights",
    "losses",
    "merged_regions",
    "metrics",
    "networks",
    "number_of_regions",
    "process_rank",
    "run_settings",
    "share_of_process",
    "start_run",
    "transforms",
]

# MONAI looks for short names in loaded modules whose name starts with MOD_START; str.startswith also takes a tuple.
_starts: str | tuple[str, ...] = ComponentLocator.MOD_START
_starts = (_starts,) if isinstance(_starts, str) else tuple(_starts)
if __name__ not in _starts:
    ComponentLocator.MOD_START = (*_starts, __name__)  # type: ignore[assignment]
