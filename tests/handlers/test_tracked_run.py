# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from segan_monai import optional
from segan_monai.errors import ConfigError
from segan_monai.handlers import TrackedRun
from segan_monai.handlers.tracked_run import tracking_uri

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow


def train(folder, epochs=2, begin=0, fail=None, terminate=False, **settings):
    """Run a trainer that learns nothing; the finished run as MLflow's client reads it back."""

    def step(engine, batch):
        engine.state.metrics["term"] = engine.state.epoch / 4
        if fail:
            raise fail
        if terminate:
            engine.terminate(skip_completed=True)

    trainer = Engine(step)
    trainer.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    validator = SimpleNamespace(state=SimpleNamespace(epoch=2, metrics={"mean_dice": 0.75, "core (T1)": 0.5}))
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "report.html").write_text("a report", encoding="utf-8")

    @trainer.on(Events.STARTED)
    def resume():
        trainer.state.epoch = begin

    parameters = {"epochs": epochs, "regions": {"core": [1]}, **settings}
    handler = TrackedRun(folder / "tracking", folder / "run", validator, "bundles/some_bundle", parameters)
    handler.attach(trainer)
    try:
        trainer.run([0], max_epochs=epochs)
    finally:
        client = mlflow.MlflowClient(f"sqlite:///{folder}/tracking/mlruns.db")
        (experiment,) = (e for e in client.search_experiments() if e.name == "some_bundle")
        runs = client.search_runs([experiment.experiment_id])
        trainer.found = client, runs
    return trainer.found


def test_what_the_client_reads_back(tmp_path):
    client, (run,) = train(tmp_path)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("run 20")
    assert run.data.params["epochs"] == "2"
    assert run.data.params["regions"] == "{'core': [1]}"
    history = client.get_metric_history(run.info.run_id, "training/term")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.5)]
    (dice,) = client.get_metric_history(run.info.run_id, "validation/mean_dice")
    assert (dice.step, dice.value) == (2, 0.75)
    assert run.data.metrics["validation/core _T1_"] == 0.5, "MLflow takes no brackets"
    assert run.data.metrics["learning_rate/optimizer"] == 0.5
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


def test_a_resumed_training_goes_on_in_its_run_and_a_new_one_does_not(tmp_path):
    _, (first,) = train(tmp_path)
    client, (run,) = train(tmp_path, epochs=3, begin=2)
    assert run.info.run_id == first.info.run_id
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "training/term")]
    assert steps == [1, 2, 3]
    assert run.data.params["epochs"] == "2", "of its start"
    assert run.info.status == "FINISHED"
    _, runs = train(tmp_path)
    assert len(runs) == 2
    assert json.loads((tmp_path / "run" / "mlflow_run.json").read_text(encoding="utf-8"))["run_id"] != first.info.run_id


def test_a_run_that_is_stopped_or_fails_says_so(tmp_path):
    _, (run,) = train(tmp_path, terminate=True)
    assert run.info.status == "KILLED"
    with pytest.raises(ArithmeticError, match="a bug"):
        train(tmp_path, fail=ArithmeticError("a bug"))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/tracking/mlruns.db")
    experiment = client.get_experiment_by_name("some_bundle")
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"KILLED", "FAILED"}


def test_folders_become_data_bases_and_addresses_stay(tmp_path):
    assert tracking_uri(tmp_path / "a" / "b") == f"sqlite:///{tmp_path}/a/b/mlruns.db"
    assert tracking_uri(f"file://{tmp_path}/a") == f"sqlite:///{tmp_path}/a/mlruns.db"
    assert (tmp_path / "a" / "b").is_dir()
    for address in ("http://127.0.0.1:5000", "sqlite:////x/y.db"):
        assert tracking_uri(address) == address


def connect(tracking, folder):
    trainer = Engine(lambda engine, batch: None)
    TrackedRun(tracking, folder, SimpleNamespace(), "x", {}).attach(trainer)
    return trainer


def test_what_cannot_be_used_is_said_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"--mlflow .*file/sub cannot be created .*Expected a folder, sqlite:///FILE, or"
    ):
        connect(tmp_path / "file" / "sub", tmp_path)
    with pytest.raises(ConfigError, match=r"--mlflow nonsense://x cannot be used .*Expected a folder, sqlite:///FILE"):
        connect("nonsense://x", tmp_path)


@pytest.mark.parametrize(("missing", "package"), [("mlflow", "mlflow-skinny"), ("alembic", "alembic")])
def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch, missing, package):
    monkeypatch.setattr(optional, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(ConfigError, match=rf"--mlflow needs {package}, .* pip install {package}, or omit"):
        connect(tmp_path / "tracking", tmp_path)


def test_other_processes_than_the_first_have_nothing_to_do_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    connect(tmp_path / "tracking", tmp_path).run([0], max_epochs=1)
    assert not list(tmp_path.iterdir())
