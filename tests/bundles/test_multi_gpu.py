# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Every bundle trained and evaluated by two processes, against one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from segan_monai.data import write_phantoms
from segan_monai.networks import load_weights
from segan_monai.networks.weights import read_checkpoint
from tests.bundles.workflow import (
    BRAIN,
    BRATS,
    BUNDLES,
    HIPPOCAMPUS,
    PANCREAS,
    SKIN,
    SMALL_BRAIN_TRAINING,
    SMALL_PANCREAS,
    SMALL_SKIN,
    make_workflow,
    run_workflow,
)
from tests.torchrun import torchrun, torchrun_in_forks

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]

OF_BUNDLE = {
    BRATS: {},
    HIPPOCAMPUS: {},
    SKIN: {**SMALL_SKIN, "subset": "all"},
    PANCREAS: {**SMALL_PANCREAS, "subset": "all", "count_operations": True},
    BRAIN: {**SMALL_BRAIN_TRAINING, "subset": "all"},
}


def history(folder):
    with (folder / "history.csv").open(encoding="utf-8") as stream:
        return {(int(row["epoch"]), row["name"]): float(row["value"]) for row in csv.DictReader(stream)}


def overlays(bundle, name=None):
    pictures = ["ct_pictures.json"] if bundle == PANCREAS else []
    return pictures + ([str(BUNDLES / bundle / "configs" / f"multi_gpu_{name}.json")] if name else [])


@pytest.fixture
def phantoms(tmp_path):
    """Five cases: three for validation, which two processes cannot share evenly."""
    write_phantoms(tmp_path / "phantoms", cases=5, seed=0, spacing_mm=8.0, layout="brats2021", workers=1)
    return tmp_path / "phantoms"


def test_two_processes_give_the_figures_of_one(request, tmp_path):
    fixtures = ("phantoms", "hippocampi", "photographs", "slices", "brains")
    data = dict(zip(OF_BUNDLE, map(request.getfixturevalue, fixtures), strict=True))
    common = {
        bundle: {**settings, "dataset_dir": str(data[bundle]), "ckpt_dir": str(tmp_path / bundle / "models")}
        for bundle, settings in OF_BUNDLE.items()
    }
    jobs = []
    for bundle, settings in common.items():
        for run_id, name in (("training", "train"), ("evaluating", "evaluate")):
            job = {"bundle": bundle, "run_id": run_id, "overlay": overlays(bundle, name), **settings}
            jobs.append({**job, "output_dir": str(tmp_path / bundle / run_id)})
            jobs[-1].pop("device", None)
        jobs.insert(-1, {**jobs[-2], "resume": True, "epochs": 3})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    done = torchrun_in_forks(Path(__file__).with_name("distributed_run.py"), tmp_path / "jobs.json")
    assert done.returncode == 0, done.stderr[-4000:]

    for bundle, settings in common.items():
        trained, evaluated, alone = (tmp_path / bundle / name for name in ("training", "evaluating", "alone"))
        writers = {file.name.split(".")[-2] for file in trained.glob("events.out.tfevents.*")}
        assert len(writers) == 1, f"{bundle}: the first process alone writes"

        workflow = make_workflow(bundle, "training", overlays(bundle), **{**settings, "output_dir": str(alone)})
        workflow.initialize()
        validator = workflow.parser.get_parsed_content("validate#evaluator")
        load_weights(validator.network, trained / "model.pt")
        validator.run()
        found = history(trained)
        assert (3, "validation/mean_dice") in found, "resumed"
        epoch = read_checkpoint(trained / "last.pt")["best_metric_epoch"]
        for name, value in validator.state.metrics.items():
            if not isinstance(value, dict):
                assert found[epoch, f"validation/{name}"] == pytest.approx(float(value), abs=1e-6), (bundle, name)

        run_workflow(bundle, "evaluating", overlays(bundle), **settings, output_dir=str(alone))
        written = {file.name for file in evaluated.glob("[!.]*")}
        assert written == {file.name for file in alone.glob("[!.]*")} - {"split.json"} - {
            file.name for file in alone.glob("events*")
        }, bundle
        for name in {"metrics.csv", "summary.json", "normalization.json", "overlay.png"} & written:
            assert (evaluated / name).read_bytes() == (alone / name).read_bytes(), (bundle, name)
    assert (
        len(json.loads((tmp_path / BRATS / "training" / "split.json").read_text(encoding="utf-8"))["validation"]) == 3
    )


def test_after_a_kill_torchrun_starts_again_and_the_training_goes_on(phantoms, tmp_path):
    (tmp_path / "kill.json").write_text(
        json.dumps({"+train#handlers": [{"_target_": "tests.bundles.distributed_run.KilledOnce"}]}), encoding="utf-8"
    )
    files = [*overlays(BRATS, "train"), str(tmp_path / "kill.json")]
    where = {"dataset_dir": str(phantoms), "output_dir": str(tmp_path / "run"), "ckpt_dir": str(tmp_path / "run")}
    job = {"bundle": BRATS, "run_id": "training", "overlay": files, **where, "epochs": 2}
    (tmp_path / "jobs.json").write_text(json.dumps([job]), encoding="utf-8")
    script = Path(__file__).with_name("distributed_run.py")
    done = torchrun_in_forks(script, tmp_path / "jobs.json", max_restarts=1)
    assert done.returncode == 0, done.stderr[-4000:]
    with (tmp_path / "run" / "history.csv").open(encoding="utf-8") as stream:
        rows = [row["epoch"] for row in csv.DictReader(stream) if row["name"] == "training/supervised"]
    assert rows == ["1", "2"], "no epoch was repeated"
    assert (tmp_path / "run" / "run_before_resume_1.json").is_file()
    assert not (tmp_path / "run" / "previous_1").exists()
    assert read_checkpoint(tmp_path / "run" / "last.pt")["epoch"] == 2


def test_a_pretraining_is_shared_out_whatever_the_order_of_the_overlays(hippocampi, tmp_path):
    """Two images: each process has one, and takes one step per epoch."""
    files = ["pretraining.json", *overlays(HIPPOCAMPUS, "train")]
    settings = {"dataset_dir": str(hippocampi), "num_levels": 2, "batch_size": 2, "epochs": 1}
    orders = {"first": files, "last": files[::-1]}
    jobs = [
        {"bundle": HIPPOCAMPUS, "run_id": "training", "overlay": order, "output_dir": str(tmp_path / name), **settings}
        for name, order in orders.items()
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    done = torchrun_in_forks(Path(__file__).with_name("distributed_run.py"), tmp_path / "jobs.json")
    assert done.returncode == 0, done.stderr[-4000:]
    first, last = (read_checkpoint(tmp_path / name / "last.pt") for name in orders)
    assert len(json.loads((tmp_path / "first" / "split.json").read_text(encoding="utf-8"))["training"]) == 2
    for found in (first, last):
        assert found["optimizer"]["state"][0]["step"] == 1
    assert all(torch.equal(last["network"][name], weight) for name, weight in first["network"].items())


def test_from_the_command_line(phantoms, tmp_path):
    configs = BUNDLES / BRATS / "configs"
    options = {"dataset_dir": phantoms, "ckpt_dir": tmp_path / "models", "output_dir": tmp_path / "run", "folds": 2}
    options |= {"base_channels": 4, "slice_size": "[32,32]", "batch_size": 4, "slices_per_volume": 2, "num_workers": 0}
    options["cases_per_epoch"] = 4
    files = str([str(configs / "train.json"), str(configs / "multi_gpu_train.json")])
    words = [f"--{key}={value}" for key, value in {**options, "epochs": 1}.items()]
    done = torchrun("-m", "monai.bundle", "run", "training", "--config_file", files, *words)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("epoch 1/1 ") == 1, "the first process alone reports"
    assert (1, "validation/mean_dice") in history(tmp_path / "run")
    assert (tmp_path / "models" / "model.pt").is_file()
    steps = read_checkpoint(tmp_path / "run" / "last.pt")["optimizer"]["state"][0]["step"]
    assert steps == 1, "each process has 2 of the 4 cases of an epoch, one batch"


def test_the_overlays_are_the_same_for_all_bundles():
    """But for the key of cases per epoch, which adversarial normalization lacks."""
    of_cases = "train#dataloader#sampler#num_samples"
    for name in ("train", "evaluate"):
        configs = {
            bundle: json.loads((BUNDLES / bundle / "configs" / f"multi_gpu_{name}.json").read_text(encoding="utf-8"))
            for bundle in OF_BUNDLE
        }
        own = {bundle: config.pop(of_cases, None) for bundle, config in configs.items()}
        assert all(config == configs[BRATS] for config in configs.values())
        assert own == {bundle: None if bundle == BRAIN else own[BRATS] for bundle in OF_BUNDLE}
    assert {folder.name for folder in BUNDLES.iterdir()} == set(OF_BUNDLE)
