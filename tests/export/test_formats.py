# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.export import ExportedBundle, inference_recipe
from segan_monai.export.formats import run_exported
from segan_monai.export.recipe import class_names
from segan_monai.export.run_onnx import RECIPE
from segan_monai.networks import SegANSegmentor
from segan_monai.verify.exports import ENDINGS
from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, PANCREAS, SKIN

pytestmark = pytest.mark.slow

NORMALIZATION = "brain_mri_adversarial_normalization_segmentation"


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "model.pt"
    torch.save(SegANSegmentor(7, 2, 4, full_resolution_channels=8).state_dict(), file)
    return file


def test_torchscript_with_the_overrides_it_was_trained_with(weights, tmp_path):
    bundle = ExportedBundle(BUNDLES / HIPPOCAMPUS, weights, overrides={"base_channels": 4})
    file = bundle.export("torchscript", tmp_path / "new" / "model")
    assert file.name == "model.ts"
    image = bundle.example(other=True, any_size=True)
    assert image.shape == (3, 7, 83, 51)
    torch.testing.assert_close(run_exported("torchscript", file, image), bundle.network(image))
    extra = {"inference.json": ""}
    torch.jit.load(file, _extra_files=extra)
    assert json.loads(extra["inference.json"])["network_def"]["_target_"] == "SegANSegmentor"


def test_channels_are_those_of_the_config(weights):
    """The metadata know those of the bundle as it is."""
    for neighbours in (0, 1):
        bundle = ExportedBundle(BUNDLES / HIPPOCAMPUS, weights, overrides={"neighbours": neighbours})
        assert bundle.example().shape[1] == 1 + 2 * neighbours


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])  # the exporter to ONNX begins with torch.export
def test_a_3d_network_with_volumes_of_any_size(kind, tmp_path):
    torch.manual_seed(0)
    strides = [[2, 2, 1]]
    network = SegANSegmentor(1, 2, 2, 2, full_resolution_channels=2, spatial_dims=3, level_strides=strides)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    settings = {"base_channels": 2, "num_levels": 2, "full_resolution_channels": 2}
    settings |= {"spatial_dims": 3, "level_strides": strides}
    bundle = ExportedBundle(BUNDLES / HIPPOCAMPUS, tmp_path / "model.pt", overrides=settings)
    image = bundle.example(other=True, any_size=True)
    assert image.shape == (3, 1, 35, 19, 19)
    file = bundle.export(kind, tmp_path / f"model{ENDINGS[kind]}")
    torch.testing.assert_close(run_exported(kind, file, image), bundle.network(image), atol=1e-4, rtol=1e-4)
    recipe = inference_recipe(bundle.parser)["inferer"]
    assert (recipe["kind"], list(recipe["size"]), recipe["margin"]) == ("windows", [48, 64, 48], 16)


@pytest.mark.parametrize(
    ("bundle", "settings", "classes"),
    [
        (HIPPOCAMPUS, {}, {"1": "Anterior hippocampus", "2": "Posterior hippocampus"}),
        (
            HIPPOCAMPUS,
            {"regions": {"tail": [1], "posterior": [2], "head": [3]}},
            {"1": "tail", "2": "Posterior hippocampus", "3": "head"},
        ),
        (
            BRATS,
            {"output_labels": "dataset"},
            {"2": "Whole tumour", "1": "Tumour core", "4": "Enhancing tumour"},
        ),
        (SKIN, {}, {"255": "Skin lesion"}),
        (NORMALIZATION, {"regions": {"WM": [7], "lesion": [9]}}, {"1": "White matter", "2": "lesion"}),
    ],
)
def test_classes_are_the_values_of_label_maps(bundle, settings, classes, tmp_path):
    found = class_names(ExportedBundle(BUNDLES / bundle, tmp_path / "model.pt", overrides=settings).parser)
    assert list(found.items()) == [("0", "background"), *classes.items()]  # in the order of the outputs


def test_an_onnx_file_names_the_values_that_its_label_maps_have(tmp_path):
    onnx = pytest.importorskip("onnx")
    torch.save(SegANSegmentor(1, 2, base_channels=2, num_levels=2).state_dict(), tmp_path / "model.pt")
    settings = {"neighbours": 0, "base_channels": 2, "num_levels": 2, "full_resolution_channels": 0}
    settings |= {"regions": {"head": [1], "tail": [2]}, "output_labels": [7, 3]}
    bundle = ExportedBundle(BUNDLES / HIPPOCAMPUS, tmp_path / "model.pt", overrides=settings)
    model = onnx.load(bundle.export("onnx", tmp_path / "model.onnx"))
    recipe = json.loads(next(entry.value for entry in model.metadata_props if entry.key == RECIPE))
    assert recipe["classes"] == {"0": "background", "7": "head", "3": "tail"}
    assert recipe["labels"]["values"] == [7, 3]


def test_windows_of_slices_need_monai():
    bundle = ExportedBundle(BUNDLES / HIPPOCAMPUS, overrides={"window_overlap": 0.5})
    with pytest.raises(ConfigError, match="window_overlap has no counterpart without MONAI for slices"):
        inference_recipe(bundle.parser)


def test_statistics_of_the_case_need_monai():
    bundle = ExportedBundle(BUNDLES / HIPPOCAMPUS, overrides={"case_statistics": 1})
    with pytest.raises(ConfigError, match=r"case_statistics has no counterpart in exported networks. Set"):
        inference_recipe(bundle.parser)


def test_messages(weights, tmp_path):
    with pytest.raises(ConfigError, match=r"inference.json: no such file; expected the folder of a bundle"):
        ExportedBundle(tmp_path)
    bundle = ExportedBundle(BUNDLES / HIPPOCAMPUS, weights)
    with pytest.raises(ConfigError, match=r"unknown format 'tflite'; expected one of torchscript, onnx, torch-export"):
        bundle.export("tflite", tmp_path / "x")
    with pytest.raises(ConfigError, match="weights of another architecture"):
        bundle.export("onnx", tmp_path / "x")
    with pytest.raises(ConfigError, match="no such file; expected trained weights"):
        ExportedBundle(BUNDLES / HIPPOCAMPUS, tmp_path / "none.pt").export("onnx", tmp_path / "x")
    with pytest.raises(ConfigError, match=r"a\.pt, b\.pt: 2 files of weights, an ensemble; expected one"):
        ExportedBundle(BUNDLES / HIPPOCAMPUS, "a.pt,b.pt").export("onnx", tmp_path / "x")
    with pytest.raises(ConfigError, match=r"weights=\['a'\] has no effect here\. Pass --weights FILE"):
        ExportedBundle(BUNDLES / HIPPOCAMPUS, overrides={"weights": ["a"]})
    assert not (tmp_path / "x").exists()


def test_what_volumes_need_is_read_from_the_config():
    recipes = {
        name: inference_recipe(ExportedBundle(BUNDLES / name).parser) for name in (BRATS, PANCREAS, NORMALIZATION)
    }
    whole = ExportedBundle(
        BUNDLES / BRATS,
        overrides={"skull_stripped": False, "regions": {"t": [1]}, "region_rules": {"t": {"threshold": 0.4}}},
    )
    recipes["whole heads"] = inference_recipe(whole.parser)
    assert [recipe["channels"] for recipe in recipes.values()] == [3, 1, 1, 3]
    assert recipes[BRATS]["steps"] == [
        {"kind": "orientation", "axcodes": "RAS"},
        {"kind": "foreground_percentiles", "lower": 0.5, "upper": 99.5},
    ]
    assert recipes["whole heads"]["rules"] == [[0.4, 0.0, 0]]
    assert "rules" not in recipes[BRATS]
    assert recipes["whole heads"]["steps"][1:] == [{"kind": "head_median"}]
    assert recipes[BRATS]["labels"] == {"values": [1, 2, 3], "rule": "paint", "threshold": 0.5, "order": [0, 1, 2]}
    assert recipes[BRATS]["inferer"]["min_size"] == [160, 160]
    window = {"kind": "window", "lower": -100.0, "upper": 240.0}
    assert recipes[PANCREAS]["steps"][1:] == [window, {"kind": "resize_planes", "size": [512, 512]}]
    assert recipes[PANCREAS]["inferer"]["margin"] > 10**6, "planes are never cropped"
    assert [step["kind"] for step in recipes[NORMALIZATION]["steps"]] == [
        "orientation",
        "spacing",
        "crop",
        "standardize",
    ]
    assert recipes[NORMALIZATION]["labels"]["rule"] == "argmax"
    assert list(recipes[NORMALIZATION]["inferer"]["size"]) == [32, 32, 32]
    with pytest.raises(ConfigError, match="LoadPhotographd of the inference config has no counterpart without MONAI"):
        inference_recipe(ExportedBundle(BUNDLES / SKIN).parser)
    assert ExportedBundle(BUNDLES / PANCREAS).fixed_size == (512, 512)
    assert ExportedBundle(BUNDLES / BRATS).fixed_size is None
