# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The commands ``train``, ``predict`` and ``evaluate``, beside what ``monai.bundle run`` does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segan_monai.bundles_by_name import BUNDLES, CONFIGS
from segan_monai.cli.bundle_runs import run_arguments, run_bundle
from segan_monai.cli.main import app
from segan_monai.errors import ConfigError
from tests.forked import run_python

HIPPOCAMPUS = BUNDLES / "hippocampus_mri_segan_segmentation"
TINY = {"base_channels": "4", "epochs": "1", "batch_size": "4", "folds": "2", "slice_size": "32,32", "amp": "false"}
MODULE = ["-m", "segan_monai"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def options(settings):
    return [word for name, text in settings.items() for word in (f"--{name}", text)]


def invoke(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def record_of(folder):
    return json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))


# ---- arguments ----


def test_arguments_of_a_training():
    found = run_arguments("train", "hippo", Path("data"), None, ["cpu"], {"slice_size": "32,32", "seed": "3"})
    assert found == {
        "run_id": "training",
        "config_file": [str(HIPPOCAMPUS / "configs" / "train.json"), str(CONFIGS / "cpu.json")],
        "bundle_root": str(HIPPOCAMPUS),
        "dataset_dir": "data",
        "output_dir": "hippocampus_mri_segan_segmentation_training",
        "ckpt_dir": "hippocampus_mri_segan_segmentation_training",
        "slice_size": [32, 32],
        "seed": 3,
    }


def test_a_key_as_typed_comes_before_the_command_s_own_value():
    found = run_arguments("train", "hippo", Path("data"), Path("out"), (), {"ckpt_dir": "weights #1"})
    assert (found["output_dir"], found["ckpt_dir"]) == ("out", "weights #1")


@pytest.mark.parametrize(("command", "folder"), [("evaluate", "evaluation"), ("predict", "inference")])
def test_the_weights_of_a_bundle_are_its_own(command, folder):
    found = run_arguments(command, "hippo", Path("data"), None, (), {})
    assert "ckpt_dir" not in found
    assert found["output_dir"] == f"hippocampus_mri_segan_segmentation_{folder}"


def test_a_run_gives_its_bundle_and_its_weights(elsewhere):
    run = elsewhere / "my_run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"bundle": HIPPOCAMPUS.name, "config": {}}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"my_run has no trained weights \(model.pt\); expected the output folder of"):
        run_arguments("predict", "my_run", Path("data"), None, (), {})
    (run / "model.pt").touch()
    found = run_arguments("predict", "my_run", Path("data"), None, (), {})
    assert found["config_file"] == [str(HIPPOCAMPUS / "configs" / "inference.json")]
    assert (found["ckpt_dir"], found["output_dir"]) == ("my_run", "my_run_inference")
    with pytest.raises(ConfigError, match=r"train takes a bundle.*add --output-dir my_run --resume true"):
        run_arguments("train", "my_run", Path("data"), None, (), {})
    (run / "run.json").rename(run / "model.json")
    with pytest.raises(ConfigError, match=r"my_run is a folder of weights; .* train \S+ data --initial_weights my_run"):
        run_arguments("train", "my_run", Path("data"), None, (), {})


def test_a_bundle_without_the_config(elsewhere):
    (elsewhere / "mine" / "configs").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"mine cannot train: it has no configs/train.json"):
        run_arguments("train", "mine", Path("data"), None, (), {})


# ---- usage ----


@pytest.mark.parametrize(
    "words",
    [
        ["train", "hippo"],
        ["train", "hippo", "data", "more"],
        ["predict", "hippo"],
        ["predict", "hippo", "data"],
        ["evaluate", "hippo"],
        ["evaluate", "hippo", ".", "--workers", "2"],
        ["evaluate", "hippo", ".", "--references", "."],
        ["evaluate", "--predictions", ".", "--references", ".", "-o", "out", "--subset", "all"],
        ["evaluate", "--predictions", ".", "--references", ".", "-o", "out", "--overlay", "cpu"],
    ],
)
def test_wrong_usage_has_status_2(words):
    assert invoke(*words).exit_code == 2


def test_help_lists_the_keys_of_a_bundle():
    shown = invoke("train", "hippo", "--help")
    assert shown.exit_code == 0
    assert "--epochs 200 " in shown.stdout
    assert "Keys of" not in invoke("train", "--help").stdout


@pytest.mark.slow
def test_help_and_a_wrong_name_do_not_wait_for_pytorch():
    code = (
        "import sys; from segan_monai.cli.main import main\ntry: main()\nfinally: print({'torch'} & set(sys.modules))"
    )
    for words in (["train", "hippo", "--help"], ["predict", "hipo", "-i", "."]):
        command = [sys.executable, "-c", f"import sys; sys.argv[0] = 'segan-monai'\n{code}", *words]
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.stdout.endswith("set()\n"), done.stderr


# ---- runs ----


@pytest.mark.slow
def test_errors_are_one_line(tmp_path):
    words = ["predict", "hippo", "-i", tmp_path / "none"]
    failed = run_python(*MODULE, *words)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"segan-monai: error: dataset_dir {tmp_path / 'none'}: there is no such file or")
    assert len(failed.stderr.splitlines()) == 1
    told = run_python(*MODULE, *words, "--verbose")
    assert told.returncode == 1
    assert told.stderr.startswith("Traceback")
    assert told.stderr.splitlines()[-1] == failed.stderr.strip()

    unknown = run_python(*MODULE, "predict", "hippo", "-i", tmp_path, "--base_chanels", "3")
    assert unknown.returncode == 1
    assert "error: unknown key --base_chanels" in unknown.stderr
    assert "Did you mean --base_channels" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_program_error_keeps_its_traceback(elsewhere, hippocampi):
    (elsewhere / "broken.json").write_text(json.dumps({"inference": ["$1 // 0"]}), encoding="utf-8")
    failed = run_python(*MODULE, "predict", "hippo", "-i", hippocampi / "imagesTr", "--overlay", "broken.json")
    assert failed.returncode == 1
    note, first, *_ = failed.stderr.splitlines()
    assert note.startswith("note: a config can run any code")
    assert note.endswith("lists the code of broken.json.")
    assert first.startswith("Traceback")
    assert "ZeroDivisionError" in failed.stderr
    assert "segan-monai: error" not in failed.stderr


@pytest.mark.slow
def test_prediction_equals_monai_bundle(elsewhere, hippocampi):
    images = hippocampi / "imagesTr"
    before = {file: file.stat().st_mtime_ns for file in HIPPOCAMPUS.rglob("*")}
    short = run_python(*MODULE, "predict", "hippo", "-i", images, "-o", "short", "--output_labels", "3,7")
    assert short.returncode == 0, short.stderr
    assert short.stderr == ""
    assert "monai.bundle" not in short.stdout
    config = HIPPOCAMPUS / "configs" / "inference.json"
    words = ["--config_file", config, "--bundle_root", HIPPOCAMPUS, "--dataset_dir", images, "--output_dir", "long"]
    long = run_python("-m", "monai.bundle", "run", "inference", *words, "--output_labels", "[3,7]")
    assert long.returncode == 0, long.stderr
    configs = [record_of(folder)["config"] for folder in ("short", "long")]
    assert [config.pop("output_dir") for config in configs] == ["short", "long"]
    assert configs[0] == configs[1]
    written = sorted(file.name for file in Path("short").glob("*_seg.nii.gz"))
    assert len(written) == 4
    for name in written:
        assert (Path("short") / name).read_bytes() == (Path("long") / name).read_bytes()
    assert {file.name for file in elsewhere.iterdir()} == {"short", "long"}
    assert {file: file.stat().st_mtime_ns for file in HIPPOCAMPUS.rglob("*")} == before


@pytest.mark.slow
def test_train_then_evaluate_and_predict_with_the_run(elsewhere, hippocampi):
    trained = run_python(*MODULE, "train", "hippo", hippocampi, *options(TINY), "--overlay", "cpu")
    assert trained.returncode == 0, trained.stderr
    run = "hippocampus_mri_segan_segmentation_training"
    assert trained.stdout.splitlines()[-2:] == [
        f"next:    segan-monai evaluate {run} {hippocampi}",
        f"         segan-monai predict {run} -i IMAGES -o OUT",
    ]
    record = record_of(run)
    assert record["config"]["slice_size"] == [32, 32]
    assert record["config"]["amp"] is False
    assert record["command"].startswith("segan-monai train hippo ")
    same = ["--base_channels", "4", "--slice_size", "32,32"]
    evaluated = run_python(*MODULE, "evaluate", run, hippocampi, *same)
    assert evaluated.returncode == 0, evaluated.stderr
    summary = json.loads((elsewhere / f"{run}_evaluation" / "summary.json").read_text(encoding="utf-8"))
    held_out = json.loads((elsewhere / run / "split.json").read_text(encoding="utf-8"))["validation"]
    assert {region["cases"] for region in summary["regions"].values()} == {len(held_out)}
    predicted = run_python(*MODULE, "predict", run, "-i", hippocampi / "imagesTr", "-o", "out", *same)
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((elsewhere / "out").glob("*_seg.nii.gz"))) == 4


@pytest.mark.slow
def test_check_only_writes_no_results(elsewhere, hippocampi):
    checked = run_python(*MODULE, "train", "hippo", hippocampi, *options(TINY), "--check-only", "-o", "out")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.splitlines()[-1] == "written: out/check/check.json"
    assert {file.name for file in (elsewhere / "out").iterdir()} == {"check"}
    failed = run_python(*MODULE, "train", "hippo", hippocampi, "--epochs", "0", "--check-only")
    assert failed.returncode == 1
    assert "epochs" in failed.stdout


@pytest.mark.slow
def test_a_bundle_of_one_s_own_with_odd_paths(elsewhere, hippocampi, process_as_before):
    mine = shutil.copytree(HIPPOCAMPUS, elsewhere / "mine #1")
    shutil.copytree(hippocampi / "imagesTr", elsewhere / "a,b #2")
    arguments = run_arguments("predict", str(mine), Path("a,b #2"), Path("out #3"), (), {})
    run_bundle(arguments)
    assert len(list((elsewhere / "out #3").glob("*_seg.nii.gz"))) == 4
    assert record_of("out #3")["config"]["bundle_root"] == str(mine)


def test_a_workflow_from_python_afterwards_has_no_arguments_of_the_run():
    from segan_monai.command_line import arguments_of_process, given_arguments

    with given_arguments({"config_file": ["a.json"], "seed": 1}):
        assert arguments_of_process() == {"config_file": ["a.json"], "seed": 1}
    assert arguments_of_process() == {}
