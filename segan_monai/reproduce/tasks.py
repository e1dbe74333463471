# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs of tables and folds as independent tasks, which processes and machines can share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from segan_monai.errors import ConfigError
from segan_monai.parts import Part
from segan_monai.reproduce.cluster import Cluster
from segan_monai.reproduce.plan import Plan, run_folder
from segan_monai.reproduce.runs import RunFailedError


@dataclass(frozen=True)
class Task:
    """One training and its evaluation.

    Attributes:
        plan: the settings shared by all rows.
        row: name of the row.
        seed: seed of split and initialization.
        fold: the held-out part of the split; None for that of the bundle.
        labels: number of labelled training cases and the seed that chooses them; None for all.
    """

    plan: Plan
    row: str
    seed: int
    fold: int | None = None
    labels: tuple[int, int] | None = None

    @property
    def folder(self) -> Path:
        """Folder of the run; rows of two tables with the same overlays share it."""
        return run_folder(self.plan, self.row, self.seed, self.fold, self.labels)

    @property
    def title(self) -> str:
        """Title for a progress bar or an error."""
        return (
            f"{self.row}, seed {self.seed}"
            + ("" if self.fold is None else f", fold {self.fold}")
            + ("" if self.labels is None else f", {self.labels[0]} labelled, draw {self.labels[1]}")
        )


def once_per_folder(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks without those whose run another task does, in their order."""
    return list({task.folder: task for task in reversed(tasks)}.values())[::-1]


def tasks_of_part(tasks: Sequence[Task], part: Part) -> list[Task]:
    """Return the tasks of a part. No two parts have tasks of the same folder.

    Raises:
        ConfigError: There are more parts than tasks.
    """
    single = once_per_folder(tasks)
    if part.parts > len(single):
        raise ConfigError(
            f"--part {part.number}/{part.parts}: there are only {len(single)} runs, so some parts would be empty. Use "
            f"at most {len(single)} parts."
        )
    return part.of(single)


def refuse_measured_time(train_seconds: float | None, option: str) -> None:
    """Check that the number of epochs need not be measured, which processes would do at the same time.

    Raises:
        ConfigError: ``train_seconds`` is given.
    """
    if train_seconds is not None:
        raise ConfigError(
            f"{option} and --train-seconds exclude each other: the epochs that fit into a time are measured on one "
            f"machine. Run the command without {option} first, or use --set epochs=NUMBER instead of --train-seconds."
        )


def run_tasks(
    tasks: Sequence[Task],
    run: Callable[[Task], Any],
    description: str,
    unit: str = "run",
    cluster: Cluster | None = None,
) -> Iterator[tuple[Task, Any]]:
    """Run tasks one after the other or on a cluster, with a progress bar.

    Args:
        tasks: tasks.
        run: function that runs a task, or reads the results of a finished one.
        description: title of the progress bar.
        unit: what is counted.
        cluster: cluster to which ``Cluster.connect`` has connected; None for this process.

    Yields:
        A task, and its result or the ``RunFailedError`` of its run.
    """
    with logging_redirect_tqdm(), tqdm(total=len(tasks), desc=description, unit=unit, disable=None) as bar:
        outcomes = cluster.outcomes(tasks, run) if cluster else _one_by_one(tasks, run, bar.set_postfix_str)
        for task, outcome in outcomes:
            yield task, outcome
            bar.update()


def _one_by_one(
    tasks: Sequence[Task], run: Callable[[Task], Any], show: Callable[[str], None]
) -> Iterator[tuple[Task, Any]]:
    for task in tasks:
        show(task.title)
        try:
            outcome = run(task)
        except RunFailedError as error:
            outcome = error
        yield task, outcome
