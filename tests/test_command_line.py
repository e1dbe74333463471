# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import fire
import pytest
from monai.bundle import ConfigWorkflow, run

from segan_monai import run as runs
from segan_monai.command_line import arguments_of_process, config_files, file_argument, read_arguments
from segan_monai.errors import ConfigError

ODD_NAMES = ["20240131", "1e5", "1_000", "007", "0x10", "-1", "a,b", "[x]", "(a)", "{a}", "None", "True", "'q'", "a #2"]
ODD_NAMES += ["$x"]


@pytest.fixture
def args_file(tmp_path):
    file = tmp_path / "args.json"

    def write(**content):
        file.write_text(json.dumps(content), encoding="utf-8")
        return str(file)

    return write


def test_arguments_are_read_as_monai_bundle_does(args_file):
    argv = ["training", "--config_file", "['a.json','b.json']", "--learning-rate=1e-4", "--network#size", "[32,32]"]
    argv += ["--amp", "false", "--regions", "{'lesion': [1]}", "--resume", "True", "-fold", "-1", "--check"]
    assert read_arguments([*argv, "--", "--trace"]) == {
        "run_id": "training",
        "config_file": ["a.json", "b.json"],
        "learning_rate": 1e-4,
        "network#size": [32, 32],
        "amp": "false",
        "regions": {"lesion": [1]},
        "resume": True,
        "fold": -1,
        "check": True,
    }
    assert read_arguments(["--args_file", args_file(config_file="c.json", epochs=3, fold=1), "--fold", "2"]) == {
        "config_file": "c.json",
        "epochs": 3,
        "fold": 2,
    }


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_is_the_text_that_was_typed(name):
    given = {"output_dir": name, "cases#datalist": name}
    assert read_arguments([f"--output-dir={name}", f"--cases#datalist={name}"]) == given
    assert read_arguments(["--output_dir", name, "--cases#datalist", name]) == given


def test_home_is_expanded_wherever_it_is_typed(monkeypatch, args_file):
    monkeypatch.setenv("HOME", "/home/me")
    argv = ["--args_file", args_file(dataset_dir="~/data #1", output_dir="~/no", cache_dir=20240131, datalist=None)]
    assert read_arguments([*argv, "--output_dir=~/out", "--ckpt_dir", "~/models"]) == {
        "dataset_dir": "/home/me/data #1",
        "output_dir": "/home/me/out",
        "ckpt_dir": "/home/me/models",
        "cache_dir": "20240131",
        "datalist": None,
    }


@pytest.mark.parametrize("argv", ["--output_dir", "--output_dir --epochs 3", "--output_dir="])
def test_a_missing_path_is_named(argv):
    with pytest.raises(ConfigError, match=r"--output_dir has no value; expected a file or folder after it"):
        read_arguments(["training", *argv.split()])


def test_an_empty_path_is_named():  # "$OUT" in a shell that has none
    with pytest.raises(ConfigError, match=r"--output_dir has no value"):
        read_arguments(["training", "--output_dir", ""])


@pytest.mark.parametrize("option", ["config_file", "args_file", "run_id"])
def test_a_missing_value_of_an_option_of_monai_is_named(option):
    with pytest.raises(ConfigError, match=f"--{option} has no value; expected"):
        read_arguments([f"--{option}", "--epochs", "3"])


def test_a_config_file_of_which_monai_would_make_another_is_refused():
    with pytest.raises(
        ConfigError, match=r"--config_file dir #2/a.json: monai.bundle reads this as 'dir'. Write ./dir #2"
    ):
        read_arguments(["--config_file", "dir #2/a.json"])
    for file in ("./dir #2/a.json", "/dir #2/a.json", "a,b/c.json"):
        assert read_arguments(["--config_file", file]) == {"config_file": file_argument(file)}
    assert file_argument("dir #2/a.json") == "./dir #2/a.json"
    assert file_argument("dir/a.json") == "dir/a.json"


@pytest.mark.parametrize(("text", "found"), [("{", "cannot be read"), ("[1]", r"contains a list|cannot be read")])
def test_a_damaged_args_file_is_named(tmp_path, text, found):
    (tmp_path / "args.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"args.json {found}"):
        read_arguments(["--args_file", str(tmp_path / "args.json"), "--epochs", "1"])
    with pytest.raises(ConfigError, match=r"args_file none.yaml cannot be read \(.*No such file"):
        read_arguments(["--args_file", "none.yaml"])


def test_no_config_file():
    with pytest.raises(ConfigError, match="no --config_file"):
        config_files({"run_id": "training"})


@pytest.mark.parametrize("argv", [["pytest", "tests"], ["x", "run"], ["x", "start", "--config_file", "a.json"], ["x"]])
def test_a_process_that_is_no_run_has_no_arguments(monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", argv)
    assert arguments_of_process() == {}


def test_bundle_root_is_found_from_the_top_and_from_inside(tmp_path, monkeypatch):
    bundle = tmp_path / "bundles" / "brats"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "metadata.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert Path(runs.bundle_root("brats")) == Path("bundles/brats")
    monkeypatch.chdir(bundle)
    assert runs.bundle_root("brats") == "."
    monkeypatch.chdir("/")
    assert runs.bundle_root("brats") == "."


@pytest.mark.parametrize(
    ("folder", "form"),
    [("mine", "{0}"), ("mine", "['{0}','{1}']"), ("mine", "{1},{0}"), ("mine #2", "['{1}','{0}']"), ("a,b #2", "{0}")],
)
def test_bundle_root_is_where_the_config_of_the_command_lies(tmp_path, monkeypatch, args_file, form, folder):
    bundle = tmp_path / "anywhere" / folder
    (bundle / "configs").mkdir(parents=True)
    for file in ("metadata.json", "train.json"):
        (bundle / "configs" / file).write_text("{}", encoding="utf-8")
    files = form.format(bundle / "configs" / "train.json", tmp_path / "configs" / "cpu.json")
    argv = ["monai.bundle", "run", "training", "--config_file", files]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", argv)
    assert runs.bundle_root("another_name") == str(bundle)
    in_file = args_file(config_file=ast.literal_eval(files) if files.startswith("[") else files)
    monkeypatch.setattr(sys, "argv", [*argv[:3], "--args_file", in_file])
    assert runs.bundle_root("another_name") == str(bundle)


CONFIG = {
    "imports": ["$import segan_monai", "$import json", "$import pathlib"],
    "bundle_root": "$segan_monai.bundle_root('mine')",
    "dataset_dir": "data",
    "datalist": None,
    "output_dir": "$@bundle_root + '/out'",
    "ckpt_dir": "$@output_dir + '/models'",
    "seed": 0,
    "resume": False,
    "initialize": ["$segan_monai.start_run(@output_dir, @seed, @resume)"],
    "cases": {"_target_": "dict", "dataset_dir": "@dataset_dir", "datalist": "@datalist", "cache_dir": None},
    "seen": {"cases": "@cases", "file": "$@output_dir + '/split.json'", "ckpt_dir": "@ckpt_dir"},
    "training": ["$pathlib.Path('seen.json').write_text(json.dumps(@seen))"],
}


@pytest.fixture
def started(tmp_path, monkeypatch, process_as_before):
    """Run a config by MONAI's own entry point in a folder of its own; return what its parts were given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(CONFIG), encoding="utf-8")

    def start(*argv):
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "training", *argv])
        fire.Fire({"run": run})
        return json.loads((tmp_path / "seen.json").read_text(encoding="utf-8"))

    return start


@pytest.mark.parametrize("name", [*ODD_NAMES, "a@b#1", "a::b", "%"])
def test_a_run_gets_paths_as_typed(started, tmp_path, name):
    name = f"./{name}" if name in ("$x", "%") else name
    argv = [f"--dataset_dir={name}", f"--output_dir={name}/x", f"--cases#cache_dir={name}"]
    seen = started("--config_file", "train.json", *argv)
    assert seen["cases"] == {"dataset_dir": name, "datalist": None, "cache_dir": name}
    assert seen["file"] == f"{name}/x/split.json"
    assert seen["ckpt_dir"] == f"{name}/x/models"
    (record,) = tmp_path.rglob("run.json")
    assert record == tmp_path / name / "x" / "run.json"
    assert json.loads(record.read_text(encoding="utf-8"))["config"]["dataset_dir"] == name


def test_signs_of_monai_are_text_where_a_run_can_still_say_so(started):
    seen = started("--config_file", "train.json", "--dataset_dir", "$x", "--ckpt_dir", "@seed", "--datalist", "@none")
    assert seen["cases"] == {"dataset_dir": "$x", "datalist": "@none", "cache_dir": None}
    assert seen["ckpt_dir"] == "@seed"


def test_home_is_expanded_in_a_config_too(started, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home #1"))
    (tmp_path / "overlay.json").write_text('{"dataset_dir": "~/data", "datalist": "a #2/d.json"}', encoding="utf-8")
    seen = started("--config_file", "['train.json','overlay.json']", "--output_dir=~/out")
    home = f"{tmp_path}/home #1"
    assert seen["cases"] == {"dataset_dir": f"{home}/data", "datalist": "a #2/d.json", "cache_dir": None}
    assert seen["file"] == f"{home}/out/split.json"


def test_a_bundle_root_is_typed_and_what_lies_in_it_follows(started, tmp_path):
    assert started("--config_file", "train.json", "--bundle_root", "mine #1")["file"] == "mine #1/out/split.json"
    assert (tmp_path / "mine #1" / "out" / "run.json").is_file()


def test_an_args_file_is_read_as_the_command_line_is(started, args_file, tmp_path):
    content = {"config_file": "train.json", "dataset_dir": "patient #2", "output_dir": 20240131, "datalist": "no #1"}
    seen = started("--args_file", args_file(**content), "--datalist", "null")
    assert seen["cases"] == {"dataset_dir": "patient #2", "datalist": None, "cache_dir": None}
    assert seen["file"] == "20240131/split.json"
    with pytest.raises(RuntimeError) as caught:
        started("--args_file", args_file(config_file="train.json", dataset_dri="x", output_dir="new"))
    assert str(caught.value.__cause__).startswith("unknown key --dataset_dri: train.json has no such key. Did you mean")
    assert not (tmp_path / "new").exists()


def test_options_of_monai_are_no_unknown_keys(started):
    options = ["--workflow_type", "infer", "--init_id=initialize", "--nologging_file"]
    seen = started("--config_file", "train.json", *options)
    assert seen["cases"]["dataset_dir"] == "data"


def test_a_run_without_a_path_stops_before_it_writes(started, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        started("--config_file", "train.json", "--dataset_dir", "x", "--output_dir")
    assert str(caught.value.__cause__).startswith("--output_dir has no value")
    assert not (tmp_path / "True").exists()


def test_a_run_from_python_gets_paths_too(tmp_path, monkeypatch, process_as_before):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (tmp_path / "patient #2").mkdir()
    workflow = ConfigWorkflow("train.json", dataset_dir="patient #2", output_dir=f"{tmp_path}/a #1", logging_file=False)
    for _ in range(2):  # a federated client starts twice
        workflow.initialize()
        assert workflow.parser.get_parsed_content("cases")["dataset_dir"] == "patient #2"
        assert workflow.parser.get_parsed_content("ckpt_dir") == f"{tmp_path}/a #1/models"
    assert (tmp_path / "a #1" / "run.json").is_file()
