# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""MLflow tracking of training: settings, metrics per epoch and report."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler

from segan_monai.errors import ConfigError, DataError, UserError
from segan_monai.handlers.live_view import current_learning_rates, epoch_scalars
from segan_monai.json_files import read_json_object, write_json
from segan_monai.optional import require_modules
from segan_monai.processes import process_rank

logger = logging.getLogger(__name__)
_MAX_PARAMETER_LENGTH = 500  # maximum length of a parameter in all MLflow versions
_INVALID_CHARACTERS = re.compile(r"[^\w\-./ ]")  # characters that metric names must not contain
ARTIFACTS = ("report.html", "run.json", "split.json", "history.csv")


class TrackedRun(MLFlowHandler):
    """MONAI's ``MLFlowHandler`` for a trainer and its validator, in one MLflow run.

    The MLflow run receives

    - ``settings`` as parameters,
    - the values of ``epoch_scalars`` as metrics per epoch,
    - ``report.html``, ``run.json``, ``split.json`` and ``history.csv`` as artifacts at the end,
    - the status finished, killed (by a signal) or failed.

    Its id is stored in ``mlflow_run.json``, so resumed training continues the same MLflow run. Errors of MLflow during
    training are logged, and training continues. MLflow's telemetry is disabled. Under ``torchrun``, only rank 0 uses
    MLflow. Attach this handler after ``RunReport``.

    Args:
        tracking: URI of an MLflow server or database, or a folder, in which the database ``mlruns.db`` is created.
        output_dir: the run's folder.
        validator: the trainer's evaluator.
        experiment: name of the MLflow experiment; of a path, the last part is used.
        settings: parameters of the run.
    """

    def __init__(
        self,
        tracking: str | os.PathLike[str],
        output_dir: str | os.PathLike[str],
        validator: Engine,
        experiment: str,
        settings: Mapping[str, Any],
    ) -> None:
        self.tracking = tracking
        self.output_dir = Path(output_dir)
        self.validator = validator
        self.experiment_path = experiment
        self.settings = settings
        self.learning_rates: dict[str, float] = {}

    @property
    def file(self) -> Path:
        """Path of the file with the MLflow run id."""
        return self.output_dir / "mlflow_run.json"

    def attach(self, engine: Engine) -> None:
        """Connect to MLflow and register with the trainer.

        Raises:
            ConfigError: MLflow is not installed or does not accept the URI.
        """
        if process_rank() > 0:
            return
        self._connect()
        super().attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self.note_learning_rates)
        engine.add_event_handler(Events.COMPLETED, lambda: self.end("FINISHED"))
        engine.add_event_handler(Events.TERMINATE, lambda: self.end("KILLED"))
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self, engine: Engine) -> None:
        """Start an MLflow run, or continue that of the training being resumed."""
        try:
            if engine.state.epoch and self.file.is_file():
                self.cur_run = self.client.get_run(self._earlier_run())
                self.client.update_run(self.cur_run.info.run_id, status="RUNNING")
                self._delete_exist_param_in_dict(self.experiment_param or {})  # MLflow parameters cannot be changed
            super().start(engine)
        except UserError:
            raise
        except Exception as error:  # from MLflow, its database or the network
            raise ConfigError(
                f"the MLflow run cannot start ({type(error).__name__}: {str(error).splitlines()[0]}). Check that the "
                "server is running, or omit --mlflow; training does not need it."
            ) from error
        write_json(self.file, {"run_id": self.cur_run.info.run_id})

    def _earlier_run(self) -> str:
        remedy = "Delete the file; the resumed training then starts a new MLflow run."
        run_id = read_json_object(self.file, remedy).get("run_id")
        if not isinstance(run_id, str):
            raise DataError(f"{self.file} contains no 'run_id'. {remedy}")
        return run_id

    def note_learning_rates(self, engine: Engine) -> None:
        """Store the epoch's learning rates before schedulers change them."""
        self.learning_rates = current_learning_rates(engine)

    def epoch_completed(self, engine: Engine) -> None:
        """Send the metrics of the completed epoch."""
        values = epoch_scalars(engine, self.validator, self.learning_rates)
        named = {_INVALID_CHARACTERS.sub("_", name): value for name, value in values.items()}
        self._attempt(lambda: self._log_metrics(named, step=engine.state.epoch))

    def complete(self) -> None:
        """Send the report and its source files."""
        self._attempt(super().complete)

    def end(self, status: str) -> None:
        """End the MLflow run with status ``FINISHED``, ``KILLED`` or ``FAILED``."""
        if self.cur_run:
            self.run_finish_status = status
            self._attempt(self.close)

    def fail(self, engine: Engine, error: BaseException) -> None:
        """End the MLflow run as failed and re-raise the error."""
        self.end("FAILED")
        raise error

    def _connect(self) -> None:
        """Initialize the parent class, which connects to MLflow in its constructor; done on rank 0 only."""
        uri = tracking_uri(self.tracking)
        _require_packages(uri)
        try:
            super().__init__(
                tracking_uri=uri,
                iteration_log=False,
                experiment_name=Path(self.experiment_path).resolve().name,
                run_name=f"{self.output_dir.resolve().name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
                experiment_param={name: str(value)[:_MAX_PARAMETER_LENGTH] for name, value in self.settings.items()},
                artifacts=[self.output_dir / name for name in ARTIFACTS],
            )
        except Exception as error:  # from MLflow or its database
            raise ConfigError(
                f"--mlflow {self.tracking} cannot be used ({type(error).__name__}: {str(error).splitlines()[0]}). "
                "Expected a folder, sqlite:///FILE, or the address of an MLflow server (http://HOST:5000)."
            ) from error

    def _attempt(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception:  # a server error must not end days of training
            logger.exception("an MLflow request failed; training continues")


def tracking_uri(tracking: str | os.PathLike[str]) -> str:
    """Return the tracking URI. A folder is created and mapped to a database in it.

    Raises:
        ConfigError: The folder cannot be created.
    """
    text = os.fspath(tracking)
    if "://" in text and not text.startswith("file://"):
        return text
    folder = Path(text.removeprefix("file://")).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--mlflow {text} cannot be created ({error.strerror}). Expected a folder, sqlite:///FILE, or the address "
            "of an MLflow server (http://HOST:5000)."
        ) from error
    return f"sqlite:///{(folder / 'mlruns.db').as_posix()}"


def _require_packages(uri: str) -> None:
    needed = ["mlflow", *(["sqlalchemy", "alembic"] if uri.startswith("sqlite:") else [])]
    require_modules("mlflow", "--mlflow", needed, otherwise="omit --mlflow: TensorBoard does not need it")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.telemetry.client import set_telemetry_client

    set_telemetry_client()  # MONAI has already imported MLflow
