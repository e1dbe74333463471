# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Output folder of a run: moves earlier results aside and writes ``run.json`` and ``log.txt``."""

from __future__ import annotations

import json
import logging
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from segan_monai.files import whole_file

logger = logging.getLogger(__name__)

PACKAGES = (
    "segan-monai",
    "torch",
    "monai",
    "pytorch-ignite",
    "numpy",
    "scipy",
    "nibabel",
    "SimpleITK",
    "itk-io",
    "pillow",
)
TRAINING_FILES = (
    "*.pt",
    "run*.json",
    "split.json",
    "model.json",
    "history.csv",
    "mlflow_run.json",
    "skipped_cases.csv",
    "log.txt",
    "events.out.tfevents.*",
)


def set_aside(folder: Path) -> None:
    """Move the files of an earlier training run to ``previous_1``, ``previous_2``...; other files stay."""
    earlier = sorted({file for pattern in TRAINING_FILES for file in folder.glob(pattern)})
    if not any(file.name in ("last.pt", "history.csv") for file in earlier):  # nothing was trained
        return
    aside = folder / f"previous_{1 + sum(1 for _ in folder.glob('previous_*'))}"
    aside.mkdir()
    for file in earlier:
        shutil.move(file, aside / file.name)
    logger.warning("%s contained an earlier run; moved its files to %s (--resume true resumes it)", folder, aside)


def keep_record(folder: Path) -> None:
    """Rename the ``run.json`` of a run to be resumed to ``run_before_resume_1.json``..."""
    if (folder / "run.json").is_file():
        number = 1 + sum(1 for _ in folder.glob("run_before_resume_*.json"))
        (folder / "run.json").rename(folder / f"run_before_resume_{number}.json")


def write_record(folder: Path, seed: int, config: Mapping[str, Any], bundle: str = "") -> None:
    """Write ``run.json``: command, config after all overlays and overrides, seed, versions and hardware.

    Args:
        folder: output folder of the run.
        seed: seed of the run.
        config: config after all overlays and overrides.
        bundle: name of the bundle's folder; empty if the config has no ``bundle_root``.
    """
    record = {
        "bundle": bundle,
        "command": shlex.join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": seed,
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            "platform": platform.platform(),
            "cpu_threads": torch.get_num_threads(),
            "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "config": config,
    }
    with whole_file(folder / "run.json") as file:
        file.write_text(json.dumps(record, indent=4, default=str) + "\n", encoding="utf-8")


def log_to(folder: Path) -> None:
    """Append all further log records to ``log.txt``. Repeated calls do not duplicate them."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if getattr(h, "baseFilename", None) == handler.baseFilename]:
        root.removeHandler(earlier)
        earlier.close()
    root.addHandler(handler)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
