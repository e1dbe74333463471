# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The rules of MONAI Label 0.8.5 on each bundle that says it works there, by doing what the server does."""

from __future__ import annotations

import json

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Invertd, SaveImaged, Spacingd

from segan_monai.errors import DataError
from segan_monai.label_bundle import place_bundle
from segan_monai.transforms import IsolatedSpacingd
from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, PANCREAS
from tests.monai_label.cases import BRAIN, CHANNELS, CLAIMING, copy_with_weights, write_case
from tests.monai_label.reading import labels_of, read_as_monai_label

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


@pytest.fixture(params=CLAIMING)
def placed(request, tmp_path):
    """A bundle in the app, with small networks and weights that nobody trained."""
    bundle, overlay = copy_with_weights(request.param, tmp_path)
    return place_bundle(bundle, tmp_path / "app" / "model", [overlay])


def infer_as_monai_label(bundle, image):
    """What `BasicInferTask` does with a request, up to its writer."""
    parser = read_as_monai_label(bundle)
    case = {"model": bundle.name, "image": str(image), "image_path": str(image), "device": "cpu", "description": ""}
    network = parser.get_parsed_content("network_def", instantiate=True)
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True), strict=False)
    for transform in parser.get_parsed_content("preprocessing", instantiate=True).transforms:
        case = transform(case)
    inferer = parser.get_parsed_content("inferer", instantiate=True)
    with torch.no_grad():
        case["pred"] = inferer(case["image"][None], network.eval())[0]
    for transform in parser.get_parsed_content("postprocessing", instantiate=True).transforms:
        if not isinstance(transform, SaveImaged):
            case = transform(case)
    return case


def test_which_bundles_claim_it():
    assert set(CLAIMING) == {BRAIN, BRATS, HIPPOCAMPUS, PANCREAS}


@pytest.mark.parametrize("name", CLAIMING)
def test_the_bundle_itself_keeps_the_rules(name):
    bundle = BUNDLES / name
    assert "segmentation" in name
    assert not [word for word in ("deepedit", "deepgrow", "detection", "classification") if word in name]
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert [next(iter(metadata["network_data_format"][side])) for side in ("inputs", "outputs")] == ["image", "pred"]
    assert metadata["network_data_format"]["inputs"]["image"]["num_channels"] == {HIPPOCAMPUS: 7}.get(
        name, CHANNELS[name]
    )
    values = list(labels_of(bundle).values())
    assert values == list(range(1, 1 + len(values)))

    inference = json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    assert {"bundle_root", "device", "network_def", "preprocessing", "inferer", "postprocessing"} <= inference.keys()
    parser = read_as_monai_label(bundle)  # no data set, no weights, no other file
    transforms = parser.get_parsed_content("preprocessing", instantiate=True).transforms
    assert not [t for t in transforms if isinstance(t, Spacingd) and not isinstance(t, IsolatedSpacingd)]
    assert any(isinstance(t, Invertd) for t in parser.get_parsed_content("postprocessing", instantiate=True).transforms)

    training = read_as_monai_label(bundle, "train")
    assert isinstance(training["train#handlers"], list)
    assert training["run"]
    assert training["network"]
    assert training["network_def"]
    assert training["validate#dataset#data"]
    assert training["train#dataset#data"]
    assert training["train#trainer#max_epochs"]
    saved = [handler for handler in training["train#handlers"] if handler["_target_"] == "TrainingHandlers"]
    assert [handler["ckpt_dir"] for handler in saved] == ["@ckpt_dir"]  # of a copy, see the next test but one
    assert training["ckpt_dir"] == "@output_dir"


def test_one_label_map_of_consecutive_values_on_the_images_own_grid(placed, tmp_path, oblique):
    image, label = write_case(placed.name, tmp_path / "studies", "case", 0, oblique)
    case = infer_as_monai_label(placed, image)
    prediction = case["pred"]
    assert tuple(prediction.shape) == (1, *label.shape)
    assert set(np.unique(prediction.numpy())) <= {0, *labels_of(placed).values()}
    # the server writes the label map with this affine and extension
    np.testing.assert_allclose(case["image"].meta["original_affine"], oblique, atol=1e-5)
    np.testing.assert_array_equal(case["image"].meta["spatial_shape"], label.shape)
    assert case["image_path"] == str(image)


@pytest.mark.parametrize("cases", [1, 3])
def test_training_as_the_server_starts_it_writes_the_weights_that_are_served(placed, cases, tmp_path, oblique, request):
    files = []
    for index in range(cases):
        image, label = write_case(placed.name, tmp_path / "studies", f"case_{index}", index, oblique)
        drawn = tmp_path / "studies" / "labels" / "final" / image.name
        drawn.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(label, oblique), drawn)
        files.append({"image": str(image), "label": str(drawn)})
    handlers = read_as_monai_label(placed, "train")["train#handlers"]
    weights = placed / "models" / "model.pt"
    loader = {"load_path": str(weights), "load_dict": {"model": "$@network"}, "strict": False}
    handlers.insert(0, {"_target_": "CheckpointLoader", **loader})
    before = torch.load(weights, weights_only=True)
    monai.bundle.run(
        run_id="run",
        init_id=None,
        final_id=None,
        meta_file=str(placed / "configs" / "metadata.json"),
        config_file=str(placed / "configs" / "train.json"),
        **{
            "bundle_root": str(placed),
            "device": "cpu",
            "train#trainer#max_epochs": 2,
            "train#handlers": handlers,
            "train#dataset#data": files[: max(1, cases - 1)],
            "validate#dataset#data": files[max(1, cases - 1) :],  # none while there are few
        },
    )
    after = torch.load(weights, weights_only=True)
    assert after.keys() == before.keys()
    assert not all(torch.equal(after[key], before[key]) for key in before)
    assert [file.name for file in (placed / "models").glob("*.pt")] == ["model.pt"]  # the shortest name is served
    history = (placed / "output" / "training" / "history.csv").read_text(encoding="utf-8")
    assert "\n2," in history
    assert "\n3," not in history


@pytest.mark.parametrize("name", CLAIMING)
def test_another_number_of_channels_is_answered_with_the_modalities(name, tmp_path, oblique, write_volume):
    bundle, overlay = copy_with_weights(name, tmp_path)
    placed = place_bundle(bundle, tmp_path / "app" / "model", [overlay])
    image = write_volume(tmp_path / "two.nii.gz", np.ones((20, 18, 12, 2), np.float32), oblique)
    modalities = {BRATS: r"3 channels \(t1c, t2, flair\)", PANCREAS: r"1 channels \(CT\)"}.get(
        name, r"1 channels \(T1\)"
    )
    with pytest.raises(DataError, match=rf"two.nii.gz: expected {modalities}, found 2"):
        infer_as_monai_label(placed, image)
