# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A copied bundle, used by the functions of MONAI that tutorials show, from a folder that is not the bundle's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, load

from segan_monai.data import find_cases
from segan_monai.errors import ConfigError, DataError
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS

pytestmark = pytest.mark.usefixtures("process_as_before")

NAME = "copied_segmentation"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the bundle with weights of its own; the current folder is another one."""
    folder = tmp_path / "bundles" / NAME
    shutil.copytree(BUNDLES / HIPPOCAMPUS / "configs", folder / "configs")
    config = ConfigParser.load_config_file(str(folder / "configs" / "inference.json"))
    torch.manual_seed(0)
    network = ConfigParser(config).get_parsed_content("network_def")
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    monkeypatch.chdir(tmp_path)
    return folder


def holds(network, folder):
    """Whether a network has the weights of a bundle's folder."""
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    return all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def workflow_of(folder, **settings):
    configs = folder / "configs"
    return ConfigWorkflow(
        config_file=str(configs / "inference.json"),
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type="inference",
        device="cpu",
        **settings,
    )


def test_a_workflow_uses_the_bundle_of_its_config(copied, hippocampi, tmp_path):
    workflow = workflow_of(copied, dataset_dir=str(hippocampi), output_dir=str(tmp_path / "out"))
    workflow.initialize()
    assert Path(workflow.bundle_root) == copied
    assert holds(workflow.parser.get_parsed_content("network"), copied)


def test_a_config_read_without_a_workflow_names_its_bundle_in_the_log(copied, caplog):
    parser = ConfigParser()
    parser.read_config(str(copied / "configs" / "inference.json"))
    assert Path(parser.get_parsed_content("bundle_root")) == BUNDLES / HIPPOCAMPUS
    assert f"so bundle_root is {BUNDLES / HIPPOCAMPUS}, with its weights" in caplog.text


def test_an_evaluator_that_was_not_initialized_has_the_weights(copied):
    parser = ConfigParser()
    parser.read_config(str(copied / "configs" / "inference.json"))
    parser["bundle_root"], parser["device"] = str(copied), "cpu"
    assert holds(parser.get_parsed_content("network"), copied)
    (copied / "models" / "model.pt").unlink()
    parser.parse(True)
    with pytest.raises(RuntimeError) as refused:
        parser.get_parsed_content("network")
    assert isinstance(refused.value.__cause__, ConfigError)
    assert str(copied / "models" / "model.pt") in str(refused.value.__cause__)


@pytest.mark.parametrize("workflow_type", ["train", "inference"])
def test_monais_load_returns_the_network_with_its_weights_and_writes_nothing(copied, workflow_type):
    before = sorted(copied.rglob("*"))
    network = load(NAME, bundle_dir=str(copied.parent), workflow_type=workflow_type)
    assert holds(network, copied)
    assert sorted(copied.rglob("*")) == before


def test_a_run_without_its_data_says_so_in_python_too(copied, tmp_path):
    workflow = workflow_of(copied, dataset_dir=str(tmp_path / "no_such_folder"), output_dir=str(tmp_path / "out"))
    workflow.initialize()
    with pytest.raises(RuntimeError) as refused:
        workflow.run()
    causes = [refused.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    assert any(isinstance(cause, DataError) and "no_such_folder" in str(cause) for cause in causes)
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_given_its_cases_starts_without_the_folder(copied, hippocampi, tmp_path):
    """MONAI Label replaces the data of the training; the data set of the config need not exist."""
    cases = find_cases(str(hippocampi), require_labels=True)
    configs = copied / "configs"
    workflow = ConfigWorkflow(
        config_file=str(configs / "train.json"),
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        dataset_dir=str(tmp_path / "no_such_folder"),
        output_dir=str(tmp_path / "out"),
        device="cpu",
        **{"train#dataset#data": cases[:2], "validate#dataset#data": cases[2:]},
    )
    workflow.initialize()
    assert (tmp_path / "out" / "run.json").is_file()
    assert (tmp_path / "out" / "log.txt").is_file()
