# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from segan_monai.bundles_by_name import (
    BUNDLES,
    CONFIGS,
    bundle_names,
    bundle_of_run,
    find_bundle,
    find_bundle_or_run,
    find_overlay,
)
from segan_monai.command_line import bundle_root
from segan_monai.errors import ConfigError, DataError

SKIN = "skin_dermoscopy_segan_segmentation"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_are_those_of_the_checkout():
    top = Path(__file__).parents[1] / "bundles"
    assert bundle_names() == sorted(file.name for file in top.iterdir() if (file / "configs").is_dir())


@pytest.mark.parametrize("name", [SKIN, "skin", "s"])
def test_a_bundle_of_the_package_is_found_from_any_folder(name):
    assert find_bundle(name) == BUNDLES / SKIN


def test_a_folder_comes_first(elsewhere):
    (elsewhere / "skin" / "configs").mkdir(parents=True)
    assert find_bundle("skin") == Path("skin")
    assert find_bundle(str(elsewhere / "skin")) == elsewhere / "skin"


def test_a_folder_of_results_does_not_hide_a_bundle(elsewhere):
    (elsewhere / SKIN).mkdir()
    assert find_bundle(SKIN) == BUNDLES / SKIN


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hipocampus",
            r"no bundle 'hipocampus'\. Did you mean hippocampus_mri_segan_segmentation\? Expected one of brain",
        ),
        ("brain2", r"Did you mean brain_mri_adversarial_normalization_segmentation or brats_mri_segan_segmentation\?"),
        ("skin_segan_segmentation", "Did you mean skin_dermoscopy_segan_segmentation"),
        ("xyz", r"no bundle 'xyz'\. Expected one of brain_.*, or the folder of a bundle or of a training run"),
        ("b", r"several bundles begin with 'b': brain_mri_\w+, brats_mri_\w+\. Type more"),
        ("", "there is no bundle ''"),
        ("data", "data is not a bundle: it has no folder configs"),
    ],
)
def test_a_wrong_name_lists_the_nearest(elsewhere, name, message):
    (elsewhere / "data").mkdir()
    with pytest.raises(ConfigError, match=message):
        find_bundle(name)


def write_record(folder: Path, **record) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_the_bundle_of_a_run(elsewhere):
    mine = elsewhere / "mine_segmentation"
    (mine / "configs").mkdir(parents=True)
    root = "$segan_monai.bundle_root('x')"
    assert bundle_of_run(write_record(elsewhere / "a", bundle=mine.name, config={"bundle_root": str(mine)})) == mine
    # started as monai.bundle run, or on another machine
    assert bundle_of_run(write_record(elsewhere / "b", bundle=SKIN, config={"bundle_root": root})) == BUNDLES / SKIN
    assert bundle_of_run(write_record(elsewhere / "c", bundle=SKIN, config={"bundle_root": "/no"})) == BUNDLES / SKIN


def test_a_run_whose_bundle_is_gone(elsewhere):
    folder = write_record(elsewhere / "run", bundle="liver_segmentation", config={"bundle_root": "/no/liver"})
    with pytest.raises(
        ConfigError, match=r"names the bundle 'liver_segmentation', which is not found.*--ckpt_dir .*run"
    ):
        bundle_of_run(folder)
    (folder / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"run.json is not valid JSON.*Give the bundle by name"):
        bundle_of_run(folder)


def test_a_folder_of_weights_alone_names_its_bundle(elsewhere):
    """Copied weights, without the files of their run."""
    weights = elsewhere / "weights"
    weights.mkdir()
    file = weights / "model.json"
    file.write_text(json.dumps({"bundle": SKIN}), encoding="utf-8")
    assert find_bundle_or_run(str(weights)) == (BUNDLES / SKIN, weights)
    file.write_text(json.dumps({"bundle": "liver_segmentation"}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model\.json names the bundle 'liver_segm.*; expected .* --ckpt_dir .*weig"):
        find_bundle_or_run(str(weights))
    file.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"model\.json is not valid JSON.* add --ckpt_dir .*weights"):
        find_bundle_or_run(str(weights))


@pytest.mark.parametrize("name", ["cpu.json", "cpu", "configs/cpu.json", "configs/cpu"])
def test_an_overlay_of_the_package(name):
    assert find_overlay(name) == CONFIGS / "cpu.json"


def test_an_overlay_of_a_bundle_or_of_the_user(elsewhere):
    assert find_overlay("multi_gpu_train", BUNDLES / SKIN) == BUNDLES / SKIN / "configs" / "multi_gpu_train.json"
    (elsewhere / "cpu.json").write_text("{}", encoding="utf-8")
    assert find_overlay("cpu.json") == Path("cpu.json")
    with pytest.raises(ConfigError, match=r"there is no config gpu\. .*or one of configs/axial_slices.json"):
        find_overlay("gpu")


def test_bundle_root_in_a_config_is_found_from_any_folder():
    assert bundle_root(SKIN) == str(BUNDLES / SKIN)
    assert bundle_root("skin") == ".", "the name in a config is a whole name"
