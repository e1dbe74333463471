# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import logging
import re
import sys

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from segan_monai import run as runs
from segan_monai.data.split_file import write_split
from segan_monai.deferred import defer_writes, training_begins
from segan_monai.errors import ConfigError, DataError
from segan_monai.run.folder import command_to_paste, write_record
from segan_monai.simulated_data import MARK
from tests.forked import run_python

pytestmark = pytest.mark.usefixtures("process_as_before")


def start(folder, argv=(), config=None, monkeypatch=None, resume=None, overrides=None, run_id="training"):
    content = {
        "imports": ["$import segan_monai"],
        "output_dir": str(folder),
        "seed": 7,
        "learning_rate": 0.1,
        "options": {"lr": "@learning_rate"},
        "optimizer": "$dict(@options)",
        "initialize": f"$segan_monai.start_run(@output_dir, @seed, {resume})",
        "training": ["$@optimizer"],
        **(config or {}),
    }
    if monkeypatch is not None:
        (folder.parent / "train.json").write_text(json.dumps(content), encoding="utf-8")
        files = ["--config_file", str([str(folder.parent / "train.json")])]
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", run_id, *files, *argv])
        content.update(overrides or {})
    return ConfigParser(content).get_parsed_content("initialize")


def test_run_json_has_config_seed_versions_and_command(tmp_path, monkeypatch):
    start(tmp_path / "run", ["--learning_rate", "0.5"], None, monkeypatch, overrides={"learning_rate": 0.5})
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["config"]["learning_rate"] == 0.5
    assert record["config"]["options"] == {"lr": "@learning_rate"}
    assert record["seed"] == 7
    assert record["versions"]["torch"] == torch.__version__
    assert record["command"].startswith("monai.bundle run training --config_file ")
    assert record["command"].endswith(" --learning_rate 0.5")


def test_an_evaluation_a_training_and_an_inference_share_no_folder(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    write_record(tmp_path / "run", 7, {"evaluating": ["$@evaluator.run()"]})
    start(tmp_path / "run", monkeypatch=monkeypatch)  # an evaluation without results, such as one that failed
    write_record(tmp_path / "run", 7, {"evaluating": ["$@evaluator.run()"]})
    (tmp_path / "run" / "metrics.csv").touch()
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(RuntimeError) as caught:
        start(tmp_path / "run", monkeypatch=monkeypatch)
    message = "run has the results of an evaluation, which a training would overwrite in part. Choose another folder."
    assert str(caught.value.__cause__).endswith(message)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        ([monai.bundle.__file__.replace("__init__", "__main__"), "run", "a b"], "python -m monai.bundle run 'a b'"),
        (["/opt/venv/bin/segan-monai", "train"], "segan-monai train"),
        (["C:/venv/Scripts/segan-monai.exe", "train"], "segan-monai train"),
        (["train.py", "--epochs", "2"], "train.py --epochs 2"),
        (["a.py", "['b','c d']", "it's $5", ""], """a.py "['b','c d']" 'it'"'"'s $5' ''"""),
    ],
)
def test_the_command_is_as_typed(argv, command):
    assert command_to_paste(argv) == command


def test_run_json_says_whether_data_are_simulated(tmp_path):
    (tmp_path / "data").mkdir()
    for simulated in (False, True):
        if simulated:
            (tmp_path / "data" / "README.txt").write_text(MARK, encoding="utf-8")
        write_record(tmp_path, 0, {"dataset_dir": str(tmp_path / "data")})
        assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["simulated"] is simulated


@pytest.mark.parametrize("root", [".", "$'../bundle_segmentation'", "{here}"])
def test_run_json_names_the_bundle(root, tmp_path, monkeypatch):
    bundle = tmp_path / "bundle_segmentation"
    bundle.mkdir()
    monkeypatch.chdir(bundle)
    start(tmp_path / "run", config={"bundle_root": root.format(here=bundle)})
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["bundle"] == "bundle_segmentation"


def test_every_generator_is_seeded(tmp_path):
    drawn = []
    for _ in range(2):
        start(tmp_path)
        drawn.append((torch.rand(()).item(), np.random.rand()))
    assert drawn[0] == drawn[1]


def test_titles_of_sections_are_no_part_of_the_record(tmp_path):
    start(tmp_path, config={"_run_": "---- the run ----"})
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert "learning_rate" in record["config"]
    assert not [key for key in record["config"] if key.startswith("_")]


def test_a_mistyped_override_is_refused_with_the_nearest_key(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError) as caught:
        start(tmp_path / "run", ["--learningrate", "9"], None, monkeypatch, overrides={"learningrate": 9})
    cause = caught.value.__cause__
    assert isinstance(cause, ConfigError)
    assert str(cause).startswith("unknown key --learningrate: ")
    assert "has no such key. Did you mean --learning_rate" in str(cause)
    assert "Known keys: learning_rate, optimizer, options, output_dir, seed." in str(cause)
    assert not (tmp_path / "run").exists()


def test_known_overrides_pass_in_every_spelling(tmp_path, monkeypatch):
    argv = ["--learning_rate=1", "--options#lr", "1", "--options::lr", "1", "--logging_file", "x.conf"]
    start(tmp_path / "run", argv, monkeypatch=monkeypatch)
    assert (tmp_path / "run" / "run.json").is_file()


def write_run(folder, text="days of training"):
    """The files of a training."""
    folder.mkdir(exist_ok=True)
    for name in ("last.pt", "model.pt", "domains.json", "history.csv", "split.json", "report.html", "log.txt"):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "run.json").write_text('{"seed": 1}', encoding="utf-8")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")


def contents(folder):
    return {
        file.name: file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.is_file() and file.name != ".running.json"
    }


def test_an_earlier_run_stays_until_training_begins_and_is_then_set_aside(tmp_path, caplog):
    write_run(tmp_path)
    before = contents(tmp_path)
    start(tmp_path, resume=False)
    logging.getLogger().warning("while cases are read")
    write_split(tmp_path / "split.json", {"training": [], "validation": []}, {})
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob("previous_*"))

    training_begins(tmp_path)
    notes = before.pop("notes.txt")
    assert contents(tmp_path / "previous_1") == before
    assert f"{tmp_path} contained an earlier run; moved its files to {tmp_path}/previous_1" in caplog.text
    now = contents(tmp_path)
    assert set(now) == {"run.json", "log.txt", "split.json", "notes.txt"}
    assert json.loads(now["run.json"])["seed"] == 7
    assert json.loads(now["split.json"])["training"] == []
    assert now["notes.txt"] == notes
    logging.getLogger().warning("while it trains")
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "days of training" not in log
    assert log.index("while cases are read") < log.index("while it trains")
    assert log.count("while cases are read") == 1

    training_begins(tmp_path)  # as in the second round of federated learning
    assert not (tmp_path / "previous_2").exists()


def test_run_json_has_the_config_of_the_start_if_it_is_written_later(tmp_path):
    config = {"epochs": [1, 2], "device": torch.device("cpu")}
    defer_writes(tmp_path, lambda: None)
    write_record(tmp_path, 7, config)
    config["epochs"].append(3)
    training_begins(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert record["config"] == {"epochs": [1, 2], "device": "cpu"}


def test_a_start_without_training_leaves_nothing_to_keep(tmp_path):
    for _ in range(2):
        start(tmp_path, resume=False)
        training_begins(tmp_path)
    assert set(contents(tmp_path)) == {"run.json", "log.txt"}
    assert not list(tmp_path.glob("previous_*"))


def test_a_run_that_is_started_twice_sets_the_earlier_one_aside_once(tmp_path):
    write_run(tmp_path)
    start(tmp_path, resume=False)
    start(tmp_path, resume=False)
    logging.getLogger().warning("only once")
    training_begins(tmp_path)
    assert [path.name for path in tmp_path.glob("previous_*")] == ["previous_1"]
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").count("only once") == 1


def test_a_resumed_run_keeps_its_files_and_its_earlier_record(tmp_path):
    write_run(tmp_path)
    start(tmp_path, resume=True)
    assert not (tmp_path / "run_before_resume_1.json").exists()
    training_begins(tmp_path)
    assert (tmp_path / "last.pt").read_text(encoding="utf-8") == "days of training"
    assert (tmp_path / "run_before_resume_1.json").read_text(encoding="utf-8") == '{"seed": 1}'
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["seed"] == 7
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").startswith("days of training")


def test_resuming_where_there_is_nothing_names_the_run_that_was_moved(tmp_path):
    text = r"--resume true, but .*/last.pt does not exist. Set --output_dir to the folder of the run to resume"
    with pytest.raises(RuntimeError) as caught:
        start(tmp_path, resume=True)
    assert re.match(text, runs.what_to_do(caught.value))
    for number in (2, 10):
        write_run(tmp_path / f"previous_{number}")
    with pytest.raises(RuntimeError) as caught:
        start(tmp_path, resume=True)
    assert runs.what_to_do(caught.value) == (
        f"--resume true, but {tmp_path}/last.pt does not exist. {tmp_path}/previous_10 holds an earlier run of this "
        f"folder. To resume that run, pass --output_dir {tmp_path}/previous_10; to start a new run, omit --resume."
    )
    write_run(tmp_path)
    start(tmp_path, resume=False)
    training_begins(tmp_path)
    assert (tmp_path / "previous_11" / "last.pt").is_file()


@pytest.mark.parametrize(
    ("run_id", "text"),
    [
        ("trainig", "nothing to run is called 'trainig'. Did you mean training? This config has training."),
        ("options", "'options' is a part of the config that does not run anything. This config has training."),
    ],
)
def test_an_unknown_run_is_refused_with_the_nearest_one(run_id, text, tmp_path, monkeypatch):
    write_run(tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(RuntimeError) as caught:
        start(tmp_path / "run", monkeypatch=monkeypatch, run_id=run_id)
    assert runs.what_to_do(caught.value) == text
    assert contents(tmp_path / "run") == before


def test_a_run_that_is_started_twice_logs_once(tmp_path):
    start(tmp_path, resume=False)
    start(tmp_path, resume=False)
    logging.getLogger().warning("only once")
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").count("only once") == 1


def test_a_batch_of_another_size_than_asked_for_is_in_the_log(tmp_path, monkeypatch):
    start(tmp_path / "run", config={"batch_size": 4, "slices_per_volume": 8}, monkeypatch=monkeypatch)
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert log.count("WARNING segan_monai.run.start: --batch_size 4 with --slices_per_volume 8: a batch has all 8") == 1


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    start(tmp_path, resume=False)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_an_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"output_dir .*file/run cannot be written .*Pass --output_dir"):
        runs.start_run(str(tmp_path / "file" / "run"), seed=0)


@pytest.mark.slow
def test_the_last_line_of_a_failed_run_is_what_the_user_can_mend(tmp_path):
    code = (
        "from segan_monai import run as runs\nfrom segan_monai.errors import DataError\n"
        f"runs.start_run({str(tmp_path)!r}, seed=0)\n"
        "try:\n    raise DataError('scan.nii.gz: truncated; copy it again')\n"
        "except DataError as error:\n    raise RuntimeError('applying transform') from error\n"
    )
    result = run_python("-c", code)
    assert result.returncode == 1
    assert result.stderr.rstrip().splitlines()[-1] == "error: scan.nii.gz: truncated; copy it again"
    assert "Traceback" in result.stderr
    assert issubclass(DataError, ValueError)


def test_json_literals_of_the_command_line_are_what_they_are_in_json(tmp_path):
    content = {
        "imports": ["$import segan_monai"],
        "output_dir": str(tmp_path),
        "resume": "false",
        "amp": "false",
        "datalist": "null",
        "network": {"_target_": "dict", "amp": "@amp", "datalist": "@datalist", "resume": "@resume"},
        "initialize": ["$segan_monai.start_run(@output_dir, 0, @resume)"],
    }
    (tmp_path / "last.pt").write_text("", encoding="utf-8")
    parser = ConfigParser(content)
    parser.get_parsed_content("initialize")
    training_begins(tmp_path)
    assert parser.get_parsed_content("network") == {"amp": False, "datalist": None, "resume": False}
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["config"]["amp"] is False
    assert (tmp_path / "previous_1" / "last.pt").is_file(), "false does not resume"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "out/metrics.csv"),
            r"out/metrics.csv cannot be written \(No sp",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "the accelerator is out of memory .*--batch_size"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "a data loader process was killed",
        ),
        (DataError("scan.nii.gz: truncated"), "scan.nii.gz: truncated"),
    ],
)
def test_what_to_do_about_errors_of_others_too(error, text):
    wrapped = RuntimeError("evaluate failed")
    wrapped.__cause__ = error
    assert re.match(text, runs.what_to_do(wrapped))
    assert runs.what_to_do(OSError(errno.ENOENT, "No such file")) is None
    assert runs.what_to_do(RuntimeError("shapes differ")) is None


def test_settings_are_the_keys_above_initialize_with_their_values():
    content = {
        "imports": ["$import segan_monai"],
        "_run_": "---- the run ----",
        "epochs": 10,
        "start": "$1 + int(0.7 * @epochs)",
        "transform": "$lambda x: x",
        "mlflow": None,
        "initialize": [],
        "never": "$1 / 0",
        "settings": "$segan_monai.run_settings()",
    }
    assert ConfigParser(content).get_parsed_content("settings") == {"epochs": 10, "start": 8, "mlflow": None}
    with pytest.raises(ConfigError, match=r"run_settings\(\) was called from Python"):
        runs.run_settings()
