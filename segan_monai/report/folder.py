# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the folders of a run hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai.errors import DataError
from segan_monai.json_files import read_json_object
from segan_monai.metrics.summary import COLUMNS
from segan_monai.report.history import with_phases
from segan_monai.report.previews import CasePreview, load_previews

_HISTORY = ("epoch", "seconds", "name", "value")
_TEXTS = ("name", "case", "region")


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
    run.record = _json(folder / "run.json", ("config", "hardware", "versions"))
    run.split = _json(folder / "split.json")
    run.summary = _json(folder / "summary.json", ("regions",))
    history = _table(folder / "history.csv", _HISTORY)
    run.history = None if history is None else with_phases(history)
    run.metrics = _table(folder / "metrics.csv", COLUMNS)
    try:
        if (folder / "previews.npz").is_file():
            run.previews = load_previews(folder / "previews.npz")
    except Exception as error:  # of zip, numpy and JSON
        raise _damaged(folder / "previews.npz", error) from error
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


def _json(file: Path, objects: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON object, of which some keys hold objects if they are there; empty if there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = read_json_object(file, remedy="")
    except DataError as error:
        raise _damaged(file, error) from error
    for key in objects:
        if not isinstance(content.get(key, {}), dict):
            raise _damaged(file, f"'{key}' is {str(content[key])[:100]}")
    return content


def _table(file: Path, columns: Sequence[str]) -> pd.DataFrame | None:
    """A table, its texts first and then numbers; None if there is no such file.

    A last row that was cut off when the run was killed is left out.
    """
    if not file.is_file():
        return None
    texts = [name for name in columns if name in _TEXTS]
    try:
        # "NA" may be the name of a case; a number that is unknown is written as nothing
        unknown = {name: ["", "nan"] for name in columns if name not in texts}
        table = pd.read_csv(file, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=unknown)
        if missing := [name for name in columns if name not in table]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        table = table[(table[texts] != "").all(axis=1)]
        return table.astype({name: int if name == "epoch" else float for name in columns if name not in texts})
    except (ValueError, OSError) as error:  # pandas' and Unicode's errors are ValueErrors too
        raise _damaged(file, error) from error


def _damaged(file: Path, why: object) -> DataError:
    return DataError(
        f"{file.parent}: a file of the run cannot be read: {file.name} ({' '.join(str(why).split())[:300]}). Run the "
        "training or evaluation again, or delete that file to see the rest."
    )
