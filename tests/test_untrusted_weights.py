# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights come from strangers: nothing in a file of them is ever run, whatever the way in which it is read."""

from __future__ import annotations

import ast
import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.handlers import CheckpointLoader

import segan_monai
from segan_monai.errors import ConfigError
from segan_monai.handlers import RunCheckpoint
from segan_monai.networks import ResNetPyramid, SegANSegmentor, load_weights
from segan_monai.networks.weights import read_checkpoint
from tests.bundles.workflow import BUNDLES, make_workflow

PACKAGE = Path(segan_monai.__file__).parent
ALL_BUNDLES = sorted(path.name for path in BUNDLES.iterdir() if (path / "configs").is_dir())
WAYS = ("pickle", "zip", "legacy", "in_state_dict")


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.fixture
def marker(tmp_path):
    """A file that is there afterwards if code in the weights was run; the test fails then."""
    marker = tmp_path / "executed"
    yield marker
    assert not marker.exists(), "code in a file of weights was run"


def write_malicious(file, marker, way):
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"network": SegANSegmentor(1, 1, 2).state_dict(), "epoch": Malicious(marker)}
    if way == "pickle":
        file.write_bytes(pickle.dumps(content["epoch"]))
    elif way == "in_state_dict":
        torch.save({**content["network"], "extra": Malicious(marker)}, file)
    else:
        torch.save(content, file, _use_new_zipfile_serialization=way == "zip")
    return file


@pytest.mark.parametrize("way", WAYS)
def test_these_files_do_run_code_where_they_are_trusted(tmp_path, way):
    """Without which the tests below would show nothing."""
    file = write_malicious(tmp_path / "model.pt", tmp_path / "executed", way)
    if way == "pickle":
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert (tmp_path / "executed").exists()


@pytest.mark.usefixtures("process_as_before")
@pytest.mark.parametrize("run_id", ["evaluating", "inference"])
@pytest.mark.parametrize("bundle", ALL_BUNDLES)
def test_evaluation_and_inference(bundle, run_id, tmp_path, marker):
    for way in WAYS:
        write_malicious(tmp_path / "models" / "model.pt", marker, way)
        overrides = {"output_dir": str(tmp_path / "out"), "ckpt_dir": str(tmp_path / "models")}
        with pytest.raises(Exception, match="") as caught:
            make_workflow(bundle, run_id, **overrides).initialize()
        error = caught.value
        while not isinstance(error, ConfigError):
            error = error.__cause__ or error.__context__
        assert "model.pt: cannot be read as a checkpoint of tensors and plain values" in str(error)


@pytest.mark.parametrize("way", WAYS)
def test_resuming(tmp_path, marker, way):
    write_malicious(tmp_path / "last.pt", marker, way)
    network = SegANSegmentor(1, 1, 2)
    checkpoint = RunCheckpoint(str(tmp_path), str(tmp_path), network, {"network": network}, resume=True)
    with pytest.raises(ConfigError, match=r"last\.pt: cannot be read as a checkpoint"):
        checkpoint.load(Engine(lambda engine, batch: None))


@pytest.mark.parametrize("way", WAYS)
def test_imagenet_weights(tmp_path, marker, way):
    file = write_malicious(tmp_path / "resnet18.pth", marker, way)
    with pytest.raises(ConfigError, match=r"resnet18\.pth: cannot be read as a checkpoint"):
        ResNetPyramid(in_channels=1, depth=18, weights=str(file))


@pytest.mark.parametrize("way", WAYS)
def test_the_handler_that_monai_label_adds(tmp_path, marker, way):
    file = write_malicious(tmp_path / "model.pt", marker, way)
    loader = CheckpointLoader(load_path=str(file), load_dict={"model": SegANSegmentor(1, 1, 2)})
    with pytest.raises(pickle.UnpicklingError):
        loader(Engine(lambda engine, batch: None))


def test_every_bundle_resumes_and_loads_by_these_ways_alone():
    for config in (*BUNDLES.glob("*/configs/*.json"), *BUNDLES.parent.glob("configs/**/*.json")):
        text = config.read_text(encoding="utf-8")
        for name in ("CheckpointLoader", "PersistentDataset", "LMDBDataset", "torch.load", "pickle", "extract"):
            assert name not in text, f"{config} names {name}"
        if config.name == "train.json":
            assert '"_target_": "TrainingHandlers"' in text
        elif config.name in ("evaluate.json", "inference.json"):
            assert json.loads(text)["initialize"][1] == "@network"
            assert json.loads(text)["network"] == (
                "$segan_monai.network_of_weights(@network_def, @weight_files).to(@device)"
            )


def calls(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_the_package_unpickles_nothing_and_unpacks_archives_in_one_place():
    """No archive of weights or bundles is opened; those of data sets by `prepare` alone, see its tests."""
    loads = 0
    for file in (*PACKAGE.rglob("*.py"), *PACKAGE.parent.glob("scripts/*.py")):
        for name, call in calls(file):
            if name == "torch.load":
                loads += 1
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords), file
            if name == "np.load":
                assert any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in call.keywords), file
            assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "joblib.load"), f"{file}: {name}"
            assert name.partition(".")[0] not in ("dill", "shelve", "marshal"), f"{file}: {name}"
            if file == PACKAGE / "prepare" / "archives.py":
                continue
            last = name.rpartition(".")[2]
            assert last not in ("extractall", "unpack_archive", "download_and_extract", "extractfile"), (
                f"{file}: {name}"
            )
            assert name.partition(".")[0] not in ("tarfile", "zipfile"), f"{file}: {name}"
    assert loads == 2, "weights are read in one place, prepared cases in another"


FUZZ = settings(max_examples=60, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])


@pytest.mark.slow
@FUZZ
@given(st.binary(max_size=300), st.floats(0, 1, exclude_max=True), st.booleans())
def test_noise_and_truncated_files(tmp_path_factory, noise, part, new):
    file = tmp_path_factory.getbasetemp() / "fuzzed.pt"
    torch.save(SegANSegmentor(1, 1, 2).state_dict(), file, _use_new_zipfile_serialization=new)
    whole = file.read_bytes()
    for content in (noise, whole[: int(part * len(whole))], whole[:40] + noise + whole[40:300]):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"fuzzed\.pt"):
            load_weights(SegANSegmentor(1, 1, 2), file)


@pytest.mark.parametrize("content", [[1, 2], 5, "weights", None, torch.zeros(3)])
def test_other_things_than_weights(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"model\.pt: cannot be read as a checkpoint .*it contains a "):
        read_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": [1]}, {"network": {"a": torch.zeros(1)}, "epoch": 3}])
def test_other_values_than_weights(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"model\.pt: contains .*; expected network weights by name"):
        load_weights(SegANSegmentor(1, 1, 2), tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"model\.pt: weights of another ResNet"):
        ResNetPyramid(in_channels=1, depth=18, weights=str(tmp_path / "model.pt"))
