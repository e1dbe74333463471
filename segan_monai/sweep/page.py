# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Page of a sweep in the style of the report: table, progress, importance and parallel coordinates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai._version import __version__
from segan_monai.files import write_text
from segan_monai.simulated_data import is_simulated
from segan_monai.sweep.plots import importance_bars, parallel_coordinates, progress
from segan_monai.sweep.results import SweepTrial
from segan_monai.sweep.training import Sweep


def importances(sweep: Sweep, trials: Sequence[SweepTrial]) -> dict[str, float]:
    """Return how much of the variance between trials each key explains, by Optuna's PED-ANOVA (sum 1).

    Watanabe et al., PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces (IJCAI 2023).

    Returns:
        Share by key; empty with fewer than 4 trials, equal values, or no Optuna.
    """
    try:
        import optuna
    except ImportError:
        return {}

    valued = [trial for trial in trials if trial.value is not None]
    if len(valued) < 4 or len({trial.value for trial in valued}) == 1:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if sweep.largest else "minimize")
    distributions = sweep.space.distributions()
    for trial in valued:
        study.add_trial(
            optuna.trial.create_trial(params=dict(trial.drawn), distributions=distributions, value=trial.value)
        )
    # the best quarter against all others
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def write_sweep_page(sweep: Sweep, trials: Sequence[SweepTrial], command: str = "") -> Path:
    """Write ``sweep.html`` to the sweep's folder: one file that needs no other files and no network.

    Args:
        sweep: the sweep.
        trials: all trials, the best first; at least one has a value.
        command: command line that made them.

    Raises:
        OutputError: The file cannot be written.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, select_autoescape

    loader = ChoiceLoader([PackageLoader("segan_monai.sweep", "."), PackageLoader("segan_monai.report", ".")])
    environment = Environment(loader=loader, autoescape=select_autoescape(["html", "j2"]), trim_blocks=True)
    keys = list(sweep.space.ranges)
    page = environment.get_template("sweep.html.j2").render(
        title=f"Sweep of {sweep.bundle.name.replace('_', ' ')}",
        version=__version__,
        simulated=is_simulated(sweep.dataset_dir),
        command=command,
        facts=_facts(sweep, trials),
        keys=keys,
        metric=sweep.metric,
        trials=[_line(trial, keys) for trial in trials],
        progress=progress(trials, sweep.metric, sweep.largest),
        importance=importance_bars(importances(sweep, trials)),
        parallel=parallel_coordinates(trials, sweep.space, sweep.metric, sweep.largest),
        best=json.dumps(trials[0].settings, indent=4),
    )
    file = sweep.output_dir / "sweep.html"
    write_text(file, page, errors="backslashreplace")
    return file


def _facts(sweep: Sweep, trials: Sequence[SweepTrial]) -> dict[str, str]:
    states = [trial.state for trial in trials]
    return {
        "folder": str(sweep.output_dir),
        "data": str(sweep.dataset_dir),
        "trials": ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
        "epochs": f"{sum(trial.epochs for trial in trials)} of {sweep.epochs * len(trials)}",
        "training time": f"{sum(trial.seconds for trial in trials) / 3600:.2f} h, all trials together",
        "best": f"{sweep.metric} {trials[0].value:.4f} in epoch {trials[0].best_epoch} of trial {trials[0].name}",
    }


def _line(trial: SweepTrial, keys: Sequence[str]) -> dict[str, Any]:
    settings: Mapping[str, Any] = trial.settings
    return {
        "name": trial.name,
        "value": "" if trial.value is None else f"{trial.value:.4f}",
        "epochs": trial.epochs,
        "best_epoch": "" if trial.best_epoch is None else trial.best_epoch,
        "state": trial.state,
        "failure": trial.failure,
        "settings": [
            f"{settings[key]:.4g}" if isinstance(settings[key], float) else json.dumps(settings[key]) for key in keys
        ],
    }
