# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Output folder of a run: moves earlier results aside and writes ``run.json`` and ``log.txt``."""

from __future__ import annotations

import json
import logging
import logging.handlers
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from segan_monai.deferred import are_deferred, write_in_time
from segan_monai.earlier_runs import launch_of_process, next_previous, was_trained_in
from segan_monai.errors import ConfigError
from segan_monai.files import write_text
from segan_monai.json_files import read_json_object
from segan_monai.simulated_data import is_simulated

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
    "pillow",
)
COMPARISON = "comparison"
ESTIMATE = "estimate"
_KINDS = {
    "training": "a training",
    "evaluating": "an evaluation",
    "inference": "an inference",
    COMPARISON: "a comparison of label maps",
    ESTIMATE: "an estimate of label maps",
}
"""Kinds of results: those of runs by their id in the config, and those of commands without a run."""
_RESULTS = {"training": "*.pt", "evaluating": "metrics.csv", "inference": "inference*.jsonl"}
"""Files that a run of each kind has once it has results."""
TRAINING_FILES = (
    "*.pt",
    "run*.json",
    "split.json",
    "model.json",
    "quality.json",
    "domains.json",
    "history.csv",
    "mlflow_run.json",
    "skipped_cases.csv",
    "log.txt",
    "report.html",
    "events.out.tfevents.*",
)


def set_aside(folder: Path) -> None:
    """Move the files of an earlier training run to ``previous_1``, ``previous_2``...; other files stay."""
    if not was_trained_in(folder):
        return
    aside = next_previous(folder)
    aside.mkdir()
    for file in sorted({file for pattern in TRAINING_FILES for file in folder.glob(pattern)}):
        shutil.move(file, aside / file.name)
    logger.warning("%s contained an earlier run; moved its files to %s", folder, aside)


def refuse_other_kind(folder: Path, config: Collection[str]) -> None:
    """Refuse a folder that an evaluation, a training and an inference would share.

    Label maps, ``run.json`` and the report of one would replace those of the other, and its tables would stay.

    Args:
        folder: output folder of the run.
        config: config of the run; of a command without one, its kind.

    Raises:
        ConfigError: The folder has the ``run.json`` of a run of another kind, and results of it.
    """
    record = folder / "run.json"
    kind = _kind(config)
    if kind is None or not record.is_file():
        return
    recorded = read_json_object(record, "Delete it.").get("config")
    found = _kind(recorded) if isinstance(recorded, dict) else None
    if found not in (None, kind) and any(folder.glob(_RESULTS[found])):
        raise ConfigError(
            f"output_dir: {folder} has the results of {_KINDS[found]}, which {_KINDS[kind]} would overwrite in part. "
            "Choose another folder."
        )


def _kind(config: Collection[str]) -> str | None:
    return next((kind for kind in _KINDS if kind in config), None)


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
        "command": command_to_paste(sys.argv),
        "working_directory": str(Path.cwd()),
        "simulated": is_simulated(config.get("dataset_dir")),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": seed,
        **launch_of_process(),
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            "platform": platform.platform(),
            "cpu_threads": torch.get_num_threads(),
            "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "config": config,
    }
    text = json.dumps(record, indent=4, default=str) + "\n"  # now: the config may change before the file is written
    write_in_time(folder, partial(write_text, folder / "run.json", text))


class _KeptLog(logging.handlers.MemoryHandler):
    """Log records of a run that may not write its log yet."""

    def __init__(self, folder: Path) -> None:
        super().__init__(sys.maxsize, flushLevel=sys.maxsize)
        self.folder = folder.resolve()


def command_to_paste(argv: Sequence[str]) -> str:
    """Return the command line of a process, quoted, with the program as a user types it.

    Python replaces the module of ``python -m`` in ``sys.argv`` by its file, and a command by its path.
    """
    program, *arguments = argv
    file = Path(program)
    if file.name == "__main__.py":
        names = [file.parent.name]
        for folder in file.parents[1:]:
            if not (folder / "__init__.py").is_file():
                break
            names.insert(0, folder.name)
        words = ["python", "-m", ".".join(names)]
    else:
        words = ["segan-monai" if file.stem == "segan-monai" else program]
    return " ".join(map(_quoted, [*words, *arguments]))


def _quoted(word: str) -> str:
    """Quote a word for the shell: a list such as ['a.json','b.json'] in double quotes, as the docs write it."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def log_to(folder: Path) -> None:
    """Append all further log records to ``log.txt``. Repeated calls do not duplicate them.

    While writes into the folder are deferred, the records are kept in memory.
    """
    root = logging.getLogger()
    if are_deferred(folder) and not _kept_logs(folder):
        root.addHandler(_KeptLog(folder))
    write_in_time(folder, partial(_open_log, folder))


def _kept_logs(folder: Path) -> list[_KeptLog]:
    handlers = logging.getLogger().handlers
    return [handler for handler in handlers if isinstance(handler, _KeptLog) and handler.folder == folder.resolve()]


def _open_log(folder: Path) -> None:
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if getattr(h, "baseFilename", None) == handler.baseFilename]:
        root.removeHandler(earlier)
        earlier.close()
    for kept in _kept_logs(folder):
        root.removeHandler(kept)
        kept.setTarget(handler)
        kept.close()  # writes its records
    root.addHandler(handler)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
