# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading of the files in a run's output folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from segan_monai.data import read_split
from segan_monai.errors import DataError
from segan_monai.json_files import read_json_object
from segan_monai.member_weights import given_weights
from segan_monai.metrics.summary import COLUMNS
from segan_monai.report.history import with_phases
from segan_monai.report.previews import CasePreview, load_previews
from segan_monai.simulated_data import is_simulated

_HISTORY = ("epoch", "seconds", "name", "value")
_QUALITY = ("case", "region", "expected_dice", "lower_bound", "flag")
_TEXTS = ("name", "case", "region", "flag")


class NoResultsError(DataError):
    """Folder without the results of a run, such as that of an evaluation whose cases all failed."""


@dataclass
class RunFolder:
    """Contents of a run's output folder that a report shows. Missing files are None or empty.

    Attributes:
        folder: the output folder.
        record: ``run.json``: command, seed, versions, hardware and config.
        history: ``history.csv``, with columns epoch, seconds, name, value; see ``read_history``.
        split: ``split.json``: names of the training and validation cases.
        metrics: ``metrics.csv``, with one row per case and region.
        summary: ``summary.json``.
        quality: ``quality.csv`` of an inference, with one row per case and region.
        calibration: ``calibration.json``.
        journal: ``inference.json``.
        previews: ``previews.npz``.
        pictures: other PNG files in the folder.
    """

    folder: Path
    record: dict[str, Any] = field(default_factory=dict)
    history: pd.DataFrame | None = None
    split: dict[str, Any] = field(default_factory=dict)
    metrics: pd.DataFrame | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    quality: pd.DataFrame | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    journal: dict[str, Any] = field(default_factory=dict)
    previews: dict[str, CasePreview] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)

    @property
    def simulated(self) -> bool:
        """Whether the data are simulated, as recorded by the run or, if it recorded nothing, as their folder says."""
        recorded = self.record.get("simulated")
        return is_simulated(self.record.get("config", {}).get("dataset_dir")) if recorded is None else bool(recorded)


def read_run(folder: Path) -> RunFolder:
    """Read the files of a run's output folder.

    Raises:
        NoResultsError: The folder contains no results of a training, an evaluation or an inference.
        DataError: A file cannot be read.
    """
    run = RunFolder(folder)
    run.record = _json(folder / "run.json", ("config", "hardware", "versions"))
    run.split = _split(folder / "split.json")
    run.summary = _json(folder / "summary.json", ("regions", "not_evaluated"))
    run.calibration = _json(folder / "calibration.json")
    history = _table(folder / "history.csv", _HISTORY)
    run.history = None if history is None else with_phases(history)
    run.metrics = _table(folder / "metrics.csv", COLUMNS)
    run.quality = _table(folder / "quality.csv", _QUALITY)
    if run.quality is not None:  # else of another run in this folder
        run.journal = _json(folder / "inference.json", ("cases",))
    try:
        if (folder / "previews.npz").is_file():
            run.previews = load_previews(folder / "previews.npz")
    except Exception as error:  # from zip, numpy or JSON
        raise _damaged(folder / "previews.npz", error) from error
    if run.history is None and run.metrics is None and run.quality is None:
        raise NoResultsError(
            f"{folder} contains neither history.csv (from training) nor metrics.csv (from evaluation) nor quality.csv "
            "(from inference); expected the output_dir of a run of this project."
        )
    if run.quality is None:  # pictures of an inference are of single cases, see ``quality_of_cases``
        shown = {"overlay.png"} if run.previews else set()
        run.pictures = [file for file in sorted(folder.glob("*.png")) if file.name not in shown]
    return run


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Read several output folders, and add the training run of each evaluation if its folder still exists."""
    runs = [read_run(folder) for folder in folders]
    known = {run.folder.resolve() for run in runs}
    for run in list(runs):
        for candidate in _trained_in(run.record.get("config", {})):
            if run.history is None and candidate.resolve() not in known and (candidate / "history.csv").is_file():
                runs.append(read_run(candidate))
                known.add(candidate.resolve())
    return runs


def _trained_in(config: dict[str, Any]) -> list[Path]:
    """Return the folders in which the weights of an evaluation, or each member, may have been trained."""
    weights = config.get("weights")
    places = [config.get("ckpt_dir")] if weights is None else given_weights(weights)
    found: list[Path] = []
    for place in places:
        if isinstance(place, str) and not place.startswith(("$", "@")):
            folder = Path(place).parent if place.endswith(".pt") else Path(place)
            found += [folder, folder.parent]
    return found


def _json(file: Path, objects: Sequence[str] = ()) -> dict[str, Any]:
    """Read a JSON object, whose keys in ``objects`` must be objects if present; empty if the file does not exist."""
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


def _split(file: Path) -> dict[str, Any]:
    try:
        return read_split(file, remedy="") if file.is_file() else {}
    except DataError as error:
        raise _damaged(file, error) from error


def _table(file: Path, columns: Sequence[str]) -> pd.DataFrame | None:
    """Read a CSV table, or return None if the file does not exist.

    A last row that is incomplete because the run was killed is omitted.
    """
    if not file.is_file():
        return None
    texts = [name for name in columns if name in _TEXTS]
    try:
        # "NA" may be the name of a case; unknown numbers are empty fields
        unknown = {name: ["", "nan"] for name in columns if name not in texts}
        table = pd.read_csv(file, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=unknown)
        if missing := [name for name in columns if name not in table]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        table = table[(table[[name for name in texts if name != "flag"]] != "").all(axis=1)]
        return table.astype({name: int if name == "epoch" else float for name in columns if name not in texts})
    except (ValueError, OSError) as error:  # errors of pandas and Unicode are also ValueErrors
        raise _damaged(file, error) from error


def _damaged(file: Path, why: object) -> DataError:
    return DataError(
        f"{file.parent}: a file of the run cannot be read: {file.name} ({' '.join(str(why).split())[:300]}). Run the "
        "training or evaluation again, or delete that file to show the others."
    )
