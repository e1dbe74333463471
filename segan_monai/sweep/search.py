# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Search by Ray Tune: Optuna proposes settings, and ASHA stops the trainings that fall behind."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError
from segan_monai.json_files import read_json_object, write_json
from segan_monai.optional import require_modules
from segan_monai.reproduce.cluster import Cluster, hide_gpus
from segan_monai.reproduce.overlays import changed_keys
from segan_monai.sweep.results import TRIAL
from segan_monai.sweep.training import Sweep, Training

logger = logging.getLogger(__name__)

REDUCTION = 3  # the best third of the trainings continues at each step
_EXPERIMENT = "tune"


def run_sweep(sweep: Sweep, trials: int, cluster: Cluster, min_epochs: int, seed: int = 0) -> int:
    """Run or resume a sweep.

    Finished, stopped and failed trials are not repeated, and interrupted ones are resumed from their last checkpoints.
    A trial whose machine or worker is lost is started again up to ``cluster.retries`` times; one that fails by itself
    is not.

    Args:
        sweep: the sweep.
        trials: number of trainings.
        cluster: cluster to run them on, and what each needs.
        min_epochs: epochs before a training may be stopped.
        seed: seed of Optuna's sampler (tree-structured Parzen estimator).

    Returns:
        Number of trials that Ray gave up, because their machines or workers were lost too often.

    Raises:
        ConfigError: Ray or Optuna is not installed, or the folder holds a sweep with other settings.
    """
    require_modules("ray", "segan-monai sweep")
    record = {**sweep.record(), "trials": trials, "min_epochs": min_epochs, "seed": seed}
    _claim(sweep.output_dir / "sweep.json", record)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # history.csv and TensorBoard have everything
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a training that failed has no value
    cluster.connect()
    from ray import tune

    trainable = tune.with_resources(_trainable(sweep, cluster.gpus), {"cpu": cluster.cpus, "gpu": cluster.gpus})
    experiment = sweep.output_dir / _EXPERIMENT
    if tune.Tuner.can_restore(str(experiment)):
        tuner = tune.Tuner.restore(str(experiment), trainable, resume_unfinished=True, resume_errored=True)
    else:
        tuner = _new_tuner(sweep, trainable, trials, cluster.retries, min_epochs, seed)
    return tuner.fit().num_errors


def _new_tuner(sweep: Sweep, trainable: Any, trials: int, retries: int, min_epochs: int, seed: int) -> Any:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    mode = "max" if sweep.largest else "min"
    early = ASHAScheduler(
        time_attr="epoch",
        metric="value",
        mode=mode,
        max_t=sweep.epochs,
        grace_period=min_epochs,
        reduction_factor=REDUCTION,
    )
    search = OptunaSearch(sweep.space.distributions(), metric="value", mode=mode, seed=seed)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(num_samples=trials, search_alg=search, scheduler=early),
        run_config=tune.RunConfig(
            name=_EXPERIMENT,
            storage_path=str(sweep.output_dir),
            failure_config=tune.FailureConfig(max_failures=retries),
            callbacks=[_follows(sweep)],
            verbose=0,
        ),
    )


def _trainable(sweep: Sweep, gpus: float) -> Any:
    """Return the class whose instances Ray Tune creates on the machines of the cluster."""
    from ray import tune

    class Trial(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            hide_gpus(gpus)
            self.training = Training(sweep, self.trial_id, config)

        def step(self) -> dict[str, Any]:
            return self.training.next_validation()

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Save nothing: the checkpoint of the training lies in the folder of the trial."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """Load nothing: ``Training`` resumes by itself."""

        def cleanup(self) -> None:
            self.training.stop()

    return Trial


def _follows(sweep: Sweep) -> Any:
    """Return the callback that logs each validation, and records which trials have ended in any way."""
    from ray import tune

    class Follow(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if "value" in result:
                said = (trial.trial_id, result["epoch"], result["value"], trial.config)
                logger.info("trial %s, epoch %d: %.4f (%s)", *said)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            file = sweep.folder(trial.trial_id) / TRIAL
            record = {**read_json_object(file), "ended": True}
            if "failed" in record:
                logger.error("trial %s failed: %s", trial.trial_id, record["failed"])
            write_json(file, record)

    return Follow()


def _claim(file: Path, record: dict[str, Any]) -> None:
    """Record the settings of a sweep in its folder, or refuse the folder of one with other settings."""
    if file.is_file():
        found = read_json_object(file, "Choose another --output-dir.")
        complete = "contents" in found  # earlier versions did not record it, and what they used is not known
        compared = [key for key in record if complete or key != "contents"]
        differing = [key for key in compared if found.get(key) != json.loads(json.dumps(record[key]))]
        if differing:
            names = [*differing, *(changed_keys(found["contents"], record["contents"]) if complete else [])]
            raise ConfigError(
                f"{file.parent} holds a sweep with other settings ({', '.join(names)} differ). Choose another "
                "--output-dir, or type the same command to resume it."
            )
        return
    write_json(file, record)
