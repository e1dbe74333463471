# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Adversarial segmentation of medical images with MONAI.

Importing the package registers its public classes and functions with MONAI. Bundle configs can then refer to them by
full path or by short name: ``{"_target_": "SegANSegmentor"}``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segan_monai._version import __version__

if TYPE_CHECKING:
    from segan_monai import data, engines, handlers, inferers, losses, metrics, networks, transforms
    from segan_monai.data import number_of_regions
    from segan_monai.engines import has_fast_bfloat16
    from segan_monai.networks import kaiming_initialize, load_weights
    from segan_monai.processes import device_of_process, init_process_group_for, process_rank, shard
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
    "init_process_group_for",
    "kaiming_initialize",
    "load_weights",
    "losses",
    "merged_regions",
    "metrics",
    "networks",
    "number_of_regions",
    "process_rank",
    "register_components",
    "run_settings",
    "shard",
    "start_run",
    "transforms",
]

_COMPONENTS = ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks", "transforms")
_FUNCTIONS = {
    "data": ("number_of_regions",),
    "engines": ("has_fast_bfloat16",),
    "networks": ("kaiming_initialize", "load_weights"),
    "processes": (
        "device_of_process",
        "init_process_group_for",
        "join_processes",
        "process_rank",
        "shard",
        "share_of_process",
    ),
    "run": ("bundle_root", "run_settings", "start_run"),
    "transforms": ("merged_regions",),
}


def register_components() -> None:
    """Import all components and register their short names with MONAI. Repeated calls have no effect."""
    from monai.bundle.config_item import ComponentLocator

    for package in (*_COMPONENTS, *_FUNCTIONS):
        module = import_module(f"{__name__}.{package}")
        globals().update({name: getattr(module, name) for name in _FUNCTIONS.get(package, ())})
    # MONAI searches loaded modules whose name starts with MOD_START for short names; str.startswith accepts a tuple
    starts: str | tuple[str, ...] = ComponentLocator.MOD_START
    starts = (starts,) if isinstance(starts, str) else tuple(starts)
    if __name__ not in starts:
        ComponentLocator.MOD_START = (*starts, __name__)  # type: ignore[assignment]


def __getattr__(name: str) -> Any:
    """Register components on first access if the import did not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    register_components()
    return globals()[name]


# The segan-monai command registers components when a command runs, so that --help does not wait for PyTorch
if Path(*sys.argv[:1]).stem != "segan-monai":
    register_components()
