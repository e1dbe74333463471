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
    from segan_monai import data, engines, handlers, inferers, losses, metrics, networks, quality, transforms
    from segan_monai.data import find_cases, number_of_regions, split_cases
    from segan_monai.earlier_runs import was_restarted
    from segan_monai.engines import AdversarialNormalizationTrainer, LSNetTrainer, SegANTrainer
    from segan_monai.export import load_inferer, load_network, load_preprocessing
    from segan_monai.inferers import NormalizingWindowInferer, RoISliceInferer, VolumeSliceInferer
    from segan_monai.losses import MultiScaleL1Loss, WeightedDiceLoss
    from segan_monai.member_weights import split_files, weight_files
    from segan_monai.metrics import evaluate_case, evaluate_folders
    from segan_monai.mixed_precision import has_fast_bfloat16
    from segan_monai.networks import (
        DomainDiscriminator,
        LSNet,
        NormalizerSegmentor,
        SegANCritics,
        SegANSegmentor,
        kaiming_initialize,
        load_members,
        load_weights,
        network_of_weights,
        with_initial_weights,
    )
    from segan_monai.processes import device_of_process, init_process_group_for, process_rank, shard
    from segan_monai.quality import can_estimate_quality, has_quality_file
    from segan_monai.run import bundle_root, run_settings, start_run, trained_settings, unlabeled_cases
    from segan_monai.transforms import merged_regions

__all__ = [
    "AdversarialNormalizationTrainer",
    "DomainDiscriminator",
    "LSNet",
    "LSNetTrainer",
    "MultiScaleL1Loss",
    "NormalizerSegmentor",
    "NormalizingWindowInferer",
    "RoISliceInferer",
    "SegANCritics",
    "SegANSegmentor",
    "SegANTrainer",
    "VolumeSliceInferer",
    "WeightedDiceLoss",
    "__version__",
    "bundle_root",
    "can_estimate_quality",
    "data",
    "device_of_process",
    "engines",
    "evaluate_case",
    "evaluate_folders",
    "find_cases",
    "handlers",
    "has_fast_bfloat16",
    "has_quality_file",
    "inferers",
    "init_process_group_for",
    "kaiming_initialize",
    "load_inferer",
    "load_members",
    "load_network",
    "load_preprocessing",
    "load_weights",
    "losses",
    "merged_regions",
    "metrics",
    "network_of_weights",
    "networks",
    "number_of_regions",
    "process_rank",
    "quality",
    "register_components",
    "run_settings",
    "shard",
    "split_cases",
    "split_files",
    "start_run",
    "trained_settings",
    "transforms",
    "unlabeled_cases",
    "was_restarted",
    "weight_files",
    "with_initial_weights",
]

_COMPONENTS = ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks", "quality", "transforms")
_EXPORTS = {
    "data": (
        "find_cases",
        "number_of_regions",
        "split_cases",
    ),
    "engines": (
        "AdversarialNormalizationTrainer",
        "LSNetTrainer",
        "SegANTrainer",
    ),
    "inferers": (
        "NormalizingWindowInferer",
        "RoISliceInferer",
        "VolumeSliceInferer",
    ),
    "losses": (
        "MultiScaleL1Loss",
        "WeightedDiceLoss",
    ),
    "earlier_runs": ("was_restarted",),
    "member_weights": ("split_files", "weight_files"),
    "metrics": (
        "evaluate_case",
        "evaluate_folders",
    ),
    "mixed_precision": ("has_fast_bfloat16",),
    "networks": (
        "DomainDiscriminator",
        "LSNet",
        "NormalizerSegmentor",
        "SegANCritics",
        "SegANSegmentor",
        "kaiming_initialize",
        "load_members",
        "load_weights",
        "network_of_weights",
        "with_initial_weights",
    ),
    "processes": (
        "device_of_process",
        "init_process_group_for",
        "join_processes",
        "process_rank",
        "shard",
        "share_of_process",
    ),
    "quality": ("can_estimate_quality", "has_quality_file"),
    "run": ("bundle_root", "run_settings", "start_run", "trained_settings", "unlabeled_cases"),
    "transforms": ("merged_regions",),
}
# imported on first use, because no config refers to them and they import onnxruntime
_ON_USE = dict.fromkeys(("load_inferer", "load_network", "load_preprocessing"), "export")


def register_components() -> None:
    """Import all components and register their short names with MONAI. Repeated calls have no effect."""
    from monai.bundle.config_item import ComponentLocator

    for package in (*_COMPONENTS, *_EXPORTS):
        module = import_module(f"{__name__}.{package}")
        globals().update({name: getattr(module, name) for name in _EXPORTS.get(package, ())})
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
    if name in _ON_USE:
        return getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    return globals()[name]


# The segan-monai command registers components when a command runs, so that --help does not wait for PyTorch
_is_command = Path(*sys.argv[:1]).stem == "segan-monai"
_is_module = sys.argv[:1] == ["-m"] and __name__ in sys.orig_argv  # python -m segan_monai, before its module is found
if not (_is_command or _is_module):
    register_components()
