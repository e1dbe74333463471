# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings that travel with the weights, from the training to everything that uses them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from segan_monai.check import check_command_line
from segan_monai.errors import ConfigError, causes
from segan_monai.export import ExportedBundle
from segan_monai.label_bundle import place_bundle
from segan_monai.member_weights import weight_files
from segan_monai.trained import (
    apply_trained_settings,
    cases_of_region_rules,
    contradictions,
    read_trained_settings,
    record_of_training,
    write_region_rules,
    write_trained_settings,
)
from segan_monai.trained.compare import is_same
from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, make_workflow, run_workflow
from tests.forked import run_python

SETTINGS = {
    "mirror_axes": [0, 1],
    "modalities": ["t1c", "flair"],
    "regions": {"tumour": [1, 2, 4]},
    "slice_size": [32, 32],
}
BUNDLE = BUNDLES / BRATS


def test_regions_and_modalities_are_compared_by_meaning():
    assert is_same("modalities", ["t1ce", "FLAIR"], ["t1c", "flair"])
    assert not is_same("modalities", ["flair", "t1c"], ["t1c", "flair"])
    assert is_same("regions", {"a": [1]}, {"a": [1]})
    assert not is_same("regions", {"b": [1], "a": [2]}, {"a": [2], "b": [1]})  # the order of the channels
    brats2021 = {"whole_tumour": [1, 2, 4], "tumour_core": [1, 4], "enhancing_tumour": [4]}
    assert is_same("regions", "auto", brats2021)
    assert is_same("regions", "brats2023", brats2021)  # the same regions of other label values
    assert not is_same("regions", "auto", {"tumour": [1]})
    assert is_same("clip", 1, 1.0)
    assert not is_same("switch", True, 1)
    assert contradictions({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 4}, ["c"]) == {"b": (2, 3)}


def test_a_file_of_settings_evaluates_nothing(tmp_path):
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    assert read_trained_settings(weights) == {}
    write_trained_settings(weights, {"settings": {"base_channels": 8}})
    assert read_trained_settings(weights) == {"base_channels": 8}
    for content, message in [
        ("[]", "model.json contains a list"),
        ("{", "model.json"),
        ('{"settings": 3}', "model.json has no 'settings'; expected an object of config keys"),
        ('{"settings": {"regions": "$__import__(1)"}}', "the value of 'regions' is .*expected a plain value"),
        ('{"settings": {"network_def": {"_target_": "os.system"}}}', "the value of 'network_def' is"),
    ]:
        (tmp_path / "model.json").write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            read_trained_settings(weights)


def test_weights_that_were_replaced_are_named(tmp_path, caplog):
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    write_trained_settings(weights, {"settings": {}})
    weights.write_bytes(b"others")
    with caplog.at_level(logging.WARNING):
        read_trained_settings(weights)
    assert "model.pt has changed since" in caplog.text


def test_rules_of_regions_travel_and_null_switches_them_off(tmp_path):
    weights, rules = tmp_path / "model.pt", {"tumour": {"threshold": 0.4}}
    weights.write_bytes(b"weights")
    write_trained_settings(weights, {"settings": {"neighbours": 1}})
    write_region_rules(weights, rules, {"cases": ["a"]})
    assert cases_of_region_rules(weights) == ["a"]
    for own, given, expected in (
        (None, {}, rules),
        (None, None, rules),
        (None, {"region_rules": "--region_rules"}, None),
        ({"tumour": {"threshold": 0.6}}, {"region_rules": "--region_rules"}, {"tumour": {"threshold": 0.6}}),
    ):
        parser = ConfigParser({"region_rules": own, "neighbours": 0, "initialize": []})
        apply_trained_settings(parser, weights, given)
        assert (parser["region_rules"], parser["neighbours"]) == (expected, 1)
    write_trained_settings(weights, {"settings": {"neighbours": 1}})  # the next training's
    assert cases_of_region_rules(weights) == []
    assert "region_rules" not in read_trained_settings(weights)


@pytest.mark.parametrize(("overlay", "recorded"), [({"spacing_known": False}, {"spacing_known": False}), ({}, {})])
def test_what_an_overlay_says_of_distances_travels(overlay, recorded, tmp_path):
    """No part of a training uses it; an evaluation without the overlay must not take pixels for mm."""
    network = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": "@width", "kernel_size": 1}
    validate = {"preprocessing": {"_target_": "monai.transforms.Compose", "transforms": []}, "inferer": None}
    config = {"width": 2, "unused": 3, "initialize": [], "network_def": network, "validate": validate, **overlay}
    record = record_of_training(ConfigParser(config))
    assert record["settings"] == {"width": 2, **recorded}
    write_trained_settings(tmp_path / "model.pt", record)
    for given, expected in (({}, not overlay), ({"spacing_known": "--spacing_known"}, True)):
        later = ConfigParser({"width": 1, "spacing_known": True, "initialize": []})
        apply_trained_settings(later, tmp_path / "model.pt", given)
        assert (later["width"], later["spacing_known"]) == (2, expected)


@pytest.mark.parametrize(("trained", "recorded"), [(True, {"pad_small_images": True}), (False, {})])
def test_padding_of_small_images_travels_if_the_training_needed_it(trained, recorded, tmp_path):
    pad = {"_target_": "monai.transforms.SpatialPad", "spatial_size": 8, "_disabled_": "$not @pad_small_images"}
    steps = {"_target_": "monai.transforms.Compose", "transforms": [pad]}
    config = {"pad_small_images": trained, "window_overlap": 0.25, "initialize": []}
    validate = {"preprocessing": steps, "inferer": ["@window_overlap"]}
    record = record_of_training(ConfigParser({**config, "network_def": "$torch.nn.Identity()", "validate": validate}))
    assert record["settings"] == recorded, "the overlap of windows is of each inference"
    write_trained_settings(tmp_path / "model.pt", record)
    for own, given, expected in (
        (False, {}, trained),
        (False, None, trained),
        (True, {}, True),
        (True, None, True),
        (False, {"pad_small_images": "--pad_small_images"}, False),
        (True, {"pad_small_images": "--pad_small_images"}, True),
    ):
        parser = ConfigParser({"pad_small_images": own, "initialize": []})
        apply_trained_settings(parser, tmp_path / "model.pt", given)
        assert parser["pad_small_images"] is expected


def test_rois_of_earlier_weights_are_cut_from_the_small_plane(tmp_path):
    weights = tmp_path / "model.pt"
    for network, expected in (("LSNet", [96, 64]), ("SegANSegmentor", None)):
        write_trained_settings(weights, {"settings": {"slice_size": [96, 64]}, "network": network})
        assert read_trained_settings(weights).get("plane_size") == expected


@pytest.mark.parametrize(
    ("bundle", "folder", "width"),
    [(HIPPOCAMPUS, "models", 16), ("pancreas_ct_lsnet_segmentation", "models/ct_pictures", 24)],
)
def test_included_weights_have_settings(bundle, folder, width, caplog):
    for weights in weight_files(None, BUNDLES / bundle / folder):
        with caplog.at_level(logging.WARNING):
            settings = read_trained_settings(weights)
        assert not caplog.records
        assert settings["base_channels"] == width
        assert len(settings["regions"]) == settings["num_classes"]


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    """The output folder of a training with two modalities and one region."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run_workflow(BRATS, "training", dataset_dir=str(phantoms), output_dir=str(folder), **SETTINGS)
    return folder


def command(*words):
    return run_python("-m", "segan_monai", *words)


@pytest.mark.slow
def test_a_training_writes_what_its_network_depends_on(trained):
    record = json.loads((trained / "model.json").read_text(encoding="utf-8"))
    assert record["settings"] == {
        **SETTINGS,
        "num_classes": 1,
        "base_channels": 4,
        "num_levels": 4,
        "norm": "batch",
        "full_resolution_channels": 0,
        "deep_supervision": 0,
        "spatial_dims": 2,
        "level_strides": None,
        "patch_size": [128, 128, 64],
        "slice_axis": 2,
        "neighbours": 0,
        "in_channels": 2,
        "test_crop_size": None,
        "spacing_mm": None,
        "intensity_window": None,
        "skull_stripped": True,
        "ignore_label": None,
        "background_labels": None,
    }
    assert record["bundle"] == BRATS
    assert record["preprocessing"] == ["LoadCased", "Orientationd", "LabelToRegionsd", "ScaleForegroundd"]
    assert next(iter(torch.load(trained / "model.pt", weights_only=True))).startswith("encoder")


@pytest.mark.slow
def test_evaluation_and_inference_need_no_setting_again(trained, phantoms, tmp_path):
    done = command("evaluate", trained, phantoms, "-o", tmp_path / "evaluation")
    assert done.returncode == 0, done.stderr
    assert "tumour" in (tmp_path / "evaluation" / "metrics.csv").read_text(encoding="utf-8")
    case = sorted(path for path in phantoms.iterdir() if path.is_dir())[0]
    done = command("predict", trained, "-i", case, "-o", tmp_path / "inference")
    assert done.returncode == 0, done.stderr
    (found,) = (tmp_path / "inference").glob("*_seg.nii.gz")
    assert set(np.unique(np.asanyarray(nibabel.load(found).dataobj))) <= {0, 1}


@pytest.mark.slow
def test_a_contradiction_is_refused_by_name_and_an_intended_one_has_a_key(trained, phantoms, tmp_path):
    swapped = ["evaluate", trained, phantoms, "--modalities", "flair,t1c", "-o", tmp_path / "evaluation"]
    done = command(*swapped)
    assert done.returncode == 1
    assert "--modalities is ['flair', 't1c'], but the network was trained with ['t1c', 'flair']" in done.stderr
    assert "add --allow_other_settings \"['modalities']\"" in done.stderr
    assert command(*swapped, "--allow_other_settings", "modalities").returncode == 0


@pytest.mark.slow
def test_mirroring_is_that_of_the_training_unless_a_user_wants_speed(trained, phantoms, tmp_path):
    case = sorted(path for path in phantoms.iterdir() if path.is_dir())[0]
    maps, axes = [], []
    for number, more in enumerate([(), ("--mirror_axes", "[]"), ("--mirror_axes", "0,1")]):
        folder = tmp_path / str(number)
        done = command("predict", trained, "-i", case, "-o", folder, "--save_probabilities", "true", *more)
        assert done.returncode == 0, done.stderr
        maps.append(nibabel.load(next(folder.glob("*_probabilities.nii.gz"))).get_fdata())
        axes.append(json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"]["mirror_axes"])
    assert axes == [[0, 1], [], [0, 1]]
    assert np.array_equal(maps[0], maps[2])
    assert not np.array_equal(maps[0], maps[1])


@pytest.mark.slow
def test_check_names_the_contradiction_too(trained, phantoms, tmp_path):
    arguments = {
        "run_id": "evaluating",
        "config_file": [str(BUNDLE / "configs" / "evaluate.json")],
        "dataset_dir": str(phantoms),
        "ckpt_dir": str(trained),
        "output_dir": str(tmp_path),
        "device": "cpu",
    }
    report, _ = check_command_line(arguments, quick=True)
    assert not report.errors
    report, _ = check_command_line({**arguments, "modalities": ["flair", "t1c"]}, quick=True)
    assert [finding.rule for finding in report.errors] == ["settings"]


@pytest.mark.slow
def test_a_resumed_training_has_the_same_settings(trained, phantoms, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    other = {**SETTINGS, "slice_size": [64, 64]}
    workflow = make_workflow(
        BRATS, "training", dataset_dir=str(phantoms), output_dir=str(folder), resume=True, **{**other, "epochs": 2}
    )
    workflow.initialize()
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    (error,) = (cause for cause in causes(caught.value) if isinstance(cause, ConfigError))
    assert "slice_size is [64, 64], but [32, 32] in the checkpoint" in str(error)


@pytest.mark.slow
def test_exports_and_monai_label_take_them_from_there(trained, tmp_path):
    exported = ExportedBundle(BUNDLE, trained / "model.pt")
    assert exported.network(torch.zeros(1, 2, 32, 32)).shape == (1, 1, 32, 32)
    with pytest.raises(ConfigError, match="base_channels is 8, but the network was trained with 4"):
        _ = ExportedBundle(BUNDLE, trained / "model.pt", overrides={"base_channels": 8}).network
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"base_channels": 8}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"overlay\.json is 8, but .* with 4 .*Omit it, or the whole overlay: the tr"):
        _ = ExportedBundle(BUNDLE, trained / "model.pt", overlays=[overlay]).network

    bundle = shutil.copytree(BUNDLE, tmp_path / BRATS)
    (bundle / "models").mkdir(exist_ok=True)
    for name in ("model.pt", "model.json"):
        shutil.copy(trained / name, bundle / "models")
    placed = place_bundle(bundle, tmp_path / "app")
    for name in ("inference", "train"):
        config = json.loads((placed / "configs" / f"{name}.json").read_text(encoding="utf-8"))
        assert (config["modalities"], config["base_channels"]) == (["t1c", "flair"], 4)
        assert config["mirror_axes"] == [0, 1]
    metadata = json.loads((placed / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "tumour"}
    assert (placed / "models" / "model.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torchscript", "torch-export"])
def test_exported_programs_carry_the_settings(kind, trained, tmp_path):
    file = ExportedBundle(BUNDLE, trained / "model.pt").export(kind, tmp_path / "model.bin.pt2")
    extra = {"model.json": ""}
    if kind == "torchscript":
        extra["inference.json"] = ""
        torch.jit.load(file, _extra_files=extra)
        assert "network_def" in json.loads(extra["inference.json"])  # as without settings
    else:
        torch.export.load(file, extra_files=extra)
    settings = json.loads(extra["model.json"])["settings"]
    assert {key: settings[key] for key in SETTINGS} == SETTINGS


@pytest.mark.slow
def test_an_onnx_file_names_the_modalities_in_their_order(trained, phantoms, tmp_path):
    file = ExportedBundle(BUNDLE, trained / "model.pt").export("onnx", tmp_path / "model.onnx")
    image = sorted(phantoms.rglob("*_flair.nii.gz"))[0]
    script = Path(__file__).parents[2] / "segan_monai" / "export" / "run_onnx.py"
    done = run_python(script, file, image, "--output", tmp_path / "map.nii.gz")
    assert done.returncode == 1
    assert "expected 2 channels (t1c, flair, in this order), found 1" in done.stderr


@pytest.mark.slow
def test_the_app_starts_again_after_a_training_on_its_own_label_values(trained, tmp_path):
    bundle = shutil.copytree(BUNDLE, tmp_path / BRATS)
    (bundle / "models").mkdir(exist_ok=True)
    for name in ("model.pt", "model.json"):
        shutil.copy(trained / name, bundle / "models")
    overlay = tmp_path / "tumour.json"
    overlay.write_text(json.dumps({"regions": SETTINGS["regions"]}), encoding="utf-8")
    placed = place_bundle(bundle, tmp_path / "app", [overlay])
    settings = read_trained_settings(placed / "models" / "model.pt")
    # what a training in the app writes: label maps of a viewer have the value 1
    write_trained_settings(placed / "models" / "model.pt", {"settings": {**settings, "regions": {"tumour": [1]}}})
    place_bundle(bundle, tmp_path / "app", [overlay])
    training = json.loads((placed / "configs" / "train.json").read_text(encoding="utf-8"))
    assert training["regions"] == {"tumour": [1]}
    metadata = json.loads((placed / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "tumour"}
