# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""One training of a sweep: starts or resumes it, and follows its validations in ``history.csv``."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from segan_monai.errors import UserError
from segan_monai.json_files import read_json_object, write_json
from segan_monai.reproduce.cluster import wait_until_free
from segan_monai.reproduce.overlays import by_file_name, contents_of
from segan_monai.reproduce.published import is_packaged
from segan_monai.sweep.results import TRIAL, validations
from segan_monai.sweep.space import Space
from segan_monai.typed import config_values

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_STOP = 120  # a training ends its iteration and saves a checkpoint


class TrainingFailedError(UserError):
    """Training that ended with an error; the message has its last line and its log file."""


class TrainingKilledError(TrainingFailedError):
    """Training that a signal ended, such as that of a machine that shuts down: it can be resumed."""


@dataclass(frozen=True)
class Sweep:
    """Settings of a sweep. All paths are absolute, because Ray runs trials in folders of its own.

    Attributes:
        bundle: folder of the bundle.
        dataset_dir: folder of the data.
        output_dir: folder of the sweep.
        space: search space.
        epochs: epochs of a training that is not stopped early.
        metric: name in ``history.csv``.
        largest: whether larger values are better.
        datalist: decathlon JSON; None to search ``dataset_dir``.
        overlays: configs merged over the bundle's ``train.json``.
        settings: keys of ``train.json`` for all trials.
        working_dir: folder from which relative paths in settings and overlays are read.
    """

    bundle: Path
    dataset_dir: Path
    output_dir: Path
    space: Space
    epochs: int
    metric: str = "validation/mean_dice"
    largest: bool = True
    datalist: Path | None = None
    overlays: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    working_dir: Path = field(default_factory=Path.cwd)

    def folder(self, trial: str) -> Path:
        """Return the folder of a trial."""
        return self.output_dir / "trials" / trial

    def config_of(self, trial: str) -> Path:
        """Return the last config of a trial, with its data and all settings, which is merged over ``overlays``."""
        return self.folder(trial) / "training.json"

    def record(self) -> dict[str, Any]:
        """Return the settings on which the results depend, with the content of the user's own overlays.

        That of this package's overlays is left out, as in ``reproduce``: a new version goes on with an earlier sweep.
        """
        return {
            "bundle": self.bundle.name,
            "dataset_dir": str(self.dataset_dir),
            "datalist": None if self.datalist is None else str(self.datalist),
            "overlays": [file.name for file in self.overlays],
            "contents": contents_of(by_file_name(file for file in self.overlays if not is_packaged(file))),
            "settings": dict(self.settings),
            "space": dict(self.space.ranges),
            "epochs": self.epochs,
            "metric": self.metric,
            "largest": self.largest,
        }


class Training:
    """Training of one trial in a process of its own.

    A training that was interrupted is resumed, and its earlier validations are reported again. One that is complete is
    not started. ``trial.json`` has the time at which it was first started.

    Args:
        sweep: the sweep.
        trial: name of the trial's folder.
        drawn: drawn values by key, see ``Space.settings``.
    """

    def __init__(self, sweep: Sweep, trial: str, drawn: Mapping[str, Any]) -> None:
        self.sweep = sweep
        self.folder = sweep.folder(trial)
        self.training = self.folder / "training"
        self.log = self.folder / "training.log"
        self.reported = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.training.mkdir(parents=True, exist_ok=True)
        settings = sweep.space.settings(drawn)
        record = self.folder / TRIAL
        earlier = read_json_object(record) if record.is_file() else {}
        started = earlier.get("started") or datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        write_json(record, {"drawn": dict(drawn), "settings": settings, "started": started})
        wait_until_free(self.training)
        values = validations(self.training, sweep.metric)
        if not (len(values) and values.index.max() >= sweep.epochs):
            self._start(settings)

    def next_validation(self) -> dict[str, Any]:
        """Wait for the next validation.

        Returns:
            ``epoch``, ``value`` (the best so far, which is that of the weights saved) and ``done``; ``done`` alone if
            the training failed by itself, with the message as ``failed`` in ``trial.json``.

        Raises:
            TrainingKilledError: A signal ended the training.
        """
        try:
            return self._next_validation()
        except TrainingKilledError:
            raise
        except TrainingFailedError as error:
            record = self.folder / TRIAL
            write_json(record, {**read_json_object(record), "failed": str(error)})
            return {"done": True}

    def _next_validation(self) -> dict[str, Any]:
        while True:
            ended = self.process is None or self.process.poll() is not None
            values = validations(self.training, self.sweep.metric)
            if len(values) > self.reported:
                self.reported += 1
                so_far = values.iloc[: self.reported]
                epoch = int(so_far.index[-1])
                best = so_far.max() if self.sweep.largest else so_far.min()
                return {"epoch": epoch, "value": float(best), "done": epoch >= self.sweep.epochs}
            if ended:
                raise self._failed()
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def stop(self) -> None:
        """End the training after its current iteration; it keeps a checkpoint."""
        if self.process is None or self.process.poll() is not None:
            return
        if self.reported and self._is_complete():
            self.process.wait()  # it is writing its report
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _is_complete(self) -> bool:
        return int(validations(self.training, self.sweep.metric).index.max()) >= self.sweep.epochs

    def _start(self, settings: Mapping[str, Any]) -> None:
        sweep = self.sweep
        config = {
            "dataset_dir": str(sweep.dataset_dir),
            **({} if sweep.datalist is None else {"datalist": str(sweep.datalist)}),
            **sweep.settings,
            **settings,
            "epochs": sweep.epochs,
            "output_dir": str(self.training),
            "ckpt_dir": str(self.training),
            "resume": (self.training / "last.pt").is_file(),
        }
        own = sweep.config_of(self.folder.name)
        write_json(own, config_values(config))
        files = [str(file) for file in (sweep.bundle / "configs" / "train.json", *sweep.overlays, own)]
        command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(files)]
        with self.log.open("w", encoding="utf-8") as stream:
            # a machine of a cluster may lack the folder, and need it only for relative paths
            folder = sweep.working_dir if sweep.working_dir.is_dir() else None
            self.process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=folder)

    def _failed(self) -> TrainingFailedError:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        status = None if self.process is None else self.process.returncode
        if status == 0:
            return TrainingFailedError(
                f"{self.folder}: the training ended without a value of {self.sweep.metric} in epoch "
                f"{self.sweep.epochs}. Expected a name in history.csv, such as validation/mean_dice."
            )
        killed = status is not None and (status < 0 or status > 128)  # 128 + signal: it saved a checkpoint
        return (TrainingKilledError if killed else TrainingFailedError)(
            f"{self.folder}: the training ended with status {status}: {lines[-1] if lines else 'it printed nothing'}. "
            f"See {self.log}."
        )
