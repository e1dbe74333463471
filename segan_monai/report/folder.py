# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the folders of a run hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai.errors import DataError
from segan_monai.report.history import read_history
from segan_monai.report.previews import CasePreview, load_previews


@dataclass
class RunFolder:
    """The files of a run that a report shows; those that are not there are None or empty.

    Attributes:
        folder: where they lie.
        record: of ``run.json``: command, seed, versions, hardware, config.
        history: of ``history.csv``, columns epoch, seconds, name, value; see `read_history`.
        split: of ``split.json``: names of the training and validation cases.
        metrics: of ``metrics.csv``, a row a case and region.
        summary: of ``summary.json``.
        previews: of ``previews.npz``.
        pictures: other PNG files of the folder.
    """

    folder: Path
    record: dict[str, Any] = field(default_factory=dict)
    history: pd.DataFrame | None = None
    split: dict[str, Any] = field(default_factory=dict)
    metrics: pd.DataFrame | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    previews: dict[str, CasePreview] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)


def read_run(folder: Path) -> RunFolder:
    """Read the files of a run's output folder.

    Raises:
        DataError: the folder holds neither a training nor an evaluation, or a file cannot be read.
    """
    run = RunFolder(folder)
    try:
        run.record = _json(folder / "run.json")
        run.split = _json(folder / "split.json")
        run.summary = _json(folder / "summary.json")
        if (folder / "history.csv").is_file():
            run.history = read_history(folder / "history.csv")
        if (folder / "metrics.csv").is_file():
            run.metrics = pd.read_csv(folder / "metrics.csv", dtype={"case": str})
        if (folder / "previews.npz").is_file():
            run.previews = load_previews(folder / "previews.npz")
    except (ValueError, OSError, KeyError) as error:
        raise DataError(
            f"{folder}: a file of the run cannot be read: {error}. Run the training or evaluation again."
        ) from error
    if run.history is None and run.metrics is None:
        raise DataError(
            f"{folder} holds neither history.csv (of a training) nor metrics.csv (of an evaluation); expected the "
            "output_dir of a run of this project."
        )
    shown = {"overlay.png"} if run.previews else set()
    run.pictures = [file for file in sorted(folder.glob("*.png")) if file.name not in shown]
    return run


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Read several folders; an evaluation brings in the training whose weights it used, if that still lies there."""
    runs = [read_run(folder) for folder in folders]
    known = {run.folder.resolve() for run in runs}
    for run in list(runs):
        place = run.record.get("config", {}).get("ckpt_dir")
        trained_in = Path(place) if isinstance(place, str) and not place.startswith(("$", "@")) else None
        for candidate in (trained_in, trained_in.parent) if trained_in else ():
            if run.history is None and candidate.resolve() not in known and (candidate / "history.csv").is_file():
                runs.append(read_run(candidate))
                known.add(candidate.resolve())
    return runs


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
