# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Earlier training runs in an output folder: the one that can be resumed there, and those that were moved aside."""

from __future__ import annotations

import json
import os
from pathlib import Path

from segan_monai.errors import ConfigError

PREVIOUS = "previous_"
"""Prefix of the subfolders with the files of earlier runs: ``previous_1``, ``previous_2``..."""


def was_trained_in(folder: Path) -> bool:
    """Return whether a folder holds results of a training."""
    return any((folder / name).is_file() for name in ("last.pt", "model.pt", "history.csv"))


def launch_of_process() -> dict[str, str]:
    """Return torchrun's id of this launch, as ``run.json`` has it; empty for a process that torchrun did not start."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID")
    return {"torchrun_run_id": launch} if launch else {}


def was_restarted(output_dir: str | os.PathLike[str]) -> bool:
    """Return whether torchrun restarted a training, after a process had failed, that left a checkpoint to resume.

    A checkpoint of an earlier launch is none of this training: a first start that fails before the training begins
    leaves it in the folder.

    Args:
        output_dir: output folder of the training.

    Raises:
        ConfigError: a restart of a training on several machines, which do not all count restarts alike.
    """
    folder = Path(output_dir)
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) == 0:
        return False
    machines = int(os.environ.get("GROUP_WORLD_SIZE", 1))
    if machines > 1:
        raise ConfigError(
            f"torchrun restarted a process on one of {machines} machines; --max-restarts needs a training on one "
            "machine. Start the training again with --resume true and without --max-restarts."
        )
    if not (folder / "last.pt").is_file():
        return False
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(launch := launch_of_process()) and launch.items() <= record.items()


def next_previous(folder: Path) -> Path:
    """Return the subfolder for the files of the run that is in the folder now."""
    numbers = [
        int(text) for path in folder.glob(f"{PREVIOUS}*") if (text := path.name.removeprefix(PREVIOUS)).isdigit()
    ]
    return folder / f"{PREVIOUS}{1 + max(numbers, default=0)}"


def nothing_to_resume(folder: Path) -> ConfigError:
    """Return the error for ``--resume true`` in a folder without a checkpoint; it names the run to resume, if any."""
    moved = [path for path in folder.glob(f"{PREVIOUS}*") if (path / "last.pt").is_file()]
    if moved:
        newest = max(moved, key=lambda path: (path / "last.pt").stat().st_mtime_ns)
        remedy = (
            f"{newest} holds an earlier run of this folder. To resume that run, pass --output_dir {newest}; to start a "
            "new run, omit --resume."
        )
    else:
        remedy = "Set --output_dir to the folder of the run to resume, or omit --resume to start a new run."
    return ConfigError(f"--resume true, but {folder / 'last.pt'} does not exist. {remedy}")
