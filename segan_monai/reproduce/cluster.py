# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs tasks on a Ray cluster, or on all cores and GPUs of this machine."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, UserError
from segan_monai.optional import require_modules
from segan_monai.reproduce.runs import RunFailedError
from segan_monai.run.lock import FolderInUseError, output_folder

logger = logging.getLogger(__name__)

LOCAL = "local"
SECONDS_BETWEEN_TRIES = 5
SECONDS_TO_ANSWER = 10


@dataclass(frozen=True)
class Cluster:
    """Ray cluster and what one run needs of it.

    Attributes:
        address: ``local`` for this machine alone, ``auto`` for the cluster that this machine belongs to, or
            ``HOST:PORT`` of a cluster's head.
        cpus: CPU cores per run, above 0; PyTorch uses as many threads.
        gpus: GPUs per run; several runs share one if it is a fraction, such as 0.5. With 0, a run sees no GPU.
        retries: number of times that a run is started again because its machine or its worker was lost.

    Raises:
        ConfigError: A number is out of its range.
    """

    address: str
    cpus: float = 1
    gpus: float = 0
    retries: int = 3

    def __post_init__(self) -> None:
        for option, value, fits, expected in (
            ("--ray-cpus", self.cpus, self.cpus > 0, "a number above 0"),
            ("--ray-gpus", self.gpus, 0 <= self.gpus < 1 or self.gpus == int(self.gpus), "a fraction or whole number"),
            ("--ray-retries", self.retries, self.retries >= 0, "a whole number of at least 0"),
        ):
            if not fits:
                raise ConfigError(f"{option} {value:g}; expected {expected}.")

    def connect(self) -> None:
        """Connect to the cluster, or start one on this machine.

        Raises:
            ConfigError: Ray is not installed, no cluster answers, or this machine is too small for one run.
        """
        require_modules("ray", "--ray", names=("ray",), otherwise="omit --ray to run one after the other")
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = self.address == LOCAL
        if not ray.is_initialized():
            self._require_answer()
            try:
                ray.init(
                    address=LOCAL if local else self.address,
                    include_dashboard=False if local else None,
                    configure_logging=False,
                    log_to_driver=False,
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise self._no_answer(error) from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not self.gpus and any(node.get("GPU", 0) for node in nodes):
            logger.warning("the machines have GPUs, and --ray-gpus is 0: runs use none; add --ray-gpus 1")
        if any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in nodes):
            return
        found = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        text = (
            f"a run needs {self.cpus:g} CPUs and {self.gpus:g} GPUs, and no machine of the cluster has these ({found})"
        )
        if local:
            raise ConfigError(f"{text}. Use a smaller --ray-cpus or --ray-gpus.")
        logger.warning("%s; waiting for one that has", text)

    def _require_answer(self) -> None:
        """Check that something listens at an address ``HOST:PORT``, for which Ray would wait for minutes."""
        host, colon, port = self.address.rpartition(":")
        if not colon or "/" in host:  # local, auto, or ray://
            return
        try:
            socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
        except (OSError, ValueError) as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"--ray {self.address}: no cluster answers ({first_line(error)}). Start one by ray start --head and give "
            "its HOST:PORT, or use --ray local."
        )

    def outcomes(self, tasks: Sequence[Any], run: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
        """Run tasks wherever there is room, and yield each as it ends.

        A run whose machine is lost is started again elsewhere. Runs are resumed and not repeated, because all machines
        share the output folder. A run whose folder is in use, as by an earlier try on a lost machine that still
        computes, waits until it is free.

        Args:
            tasks: tasks with a ``title``. Relative paths refer to the current folder, which all machines must have.
            run: function that runs a task, or reads the results of a finished one.

        Yields:
            A task, and its result or its ``RunFailedError``.

        Raises:
            UserError: A task raised another error that the user can fix; after all others have ended.
        """
        import ray
        from ray.exceptions import RayError

        folder, gpus = str(Path.cwd()), self.gpus
        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries)(_outcome_of)
        running = {remote.remote(run, task, folder, gpus): task for task in tasks}
        refusal: UserError | None = None
        try:
            while running:
                (ended,), _ = ray.wait(list(running), num_returns=1)
                task = running.pop(ended)
                try:
                    outcome = ray.get(ended)
                except RayError as error:
                    outcome = self._failed(task, error, folder)
                if isinstance(outcome, FolderInUseError):
                    logger.warning("%s waits: %s", task.title, outcome)
                    running[remote.remote(run, task, folder, gpus, outcome.folder)] = task
                elif isinstance(outcome, UserError) and not isinstance(outcome, RunFailedError):
                    logger.error("%s: %s", task.title, outcome)
                    refusal = refusal or outcome
                else:
                    yield task, outcome
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
        if refusal is not None:
            raise refusal

    def _failed(self, task: Any, error: Exception, folder: str) -> RunFailedError:
        """Return the error of a task that raised no ``UserError``, or whose machine was lost."""
        from ray.exceptions import RayTaskError

        if isinstance(error, RayTaskError):  # not retried
            cause = error.cause
            return RunFailedError(
                f"{task.title}: {type(cause).__name__}: {_first_and_last_line(cause)}. All machines need this package, "
                f"its data, and the folder {folder}, under the same paths."
            )
        return RunFailedError(
            f"{task.title}: Ray gave up after {self.retries} retries: {first_line(error)}. The same command goes on "
            "where it stopped."
        )


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _first_and_last_line(error: Exception) -> str:
    """Return what matters of a message; Ray's error of a package that a machine lacks has a traceback in it."""
    first, last = first_line(error).rstrip("."), (str(error).strip().splitlines() or [""])[-1].strip()
    return first if last.rstrip(".") in ("", first) else f"{first} ({last})"


def hide_gpus(gpus: float) -> None:
    """Hide all GPUs from this process and those that it starts if a run has none.

    Ray 2.60 hides them only with ``RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO``.

    Args:
        gpus: GPUs per run.
    """
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _outcome_of(run: Callable[[Any], Any], task: Any, folder: str, gpus: float, in_use: Path | None = None) -> Any:
    """Return the result of a task, or the error that the user can fix.

    Args:
        run: function that runs a task.
        task: the task.
        folder: current folder of the command.
        gpus: GPUs of the task.
        in_use: folder that was in use at the last try.
    """
    os.chdir(folder)
    hide_gpus(gpus)
    if in_use is not None:
        wait_until_free(in_use)
    try:
        return run(task)
    except UserError as error:
        return error


def wait_until_free(folder: Path) -> None:
    """Wait while a process uses a folder: that of an earlier try, on a machine that Ray has lost, may still compute."""
    waiting = False
    while True:
        try:
            with output_folder(folder):
                return
        except FolderInUseError as error:
            if not waiting:
                logger.warning("waiting: %s", error)
            waiting = True
            time.sleep(SECONDS_BETWEEN_TRIES)
