# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging

import pytest
import torch

from segan_monai.bundles_by_name import BUNDLES
from segan_monai.errors import ConfigError
from segan_monai.networks import SegANSegmentor, with_initial_weights


def network(regions=2, width=8, seed=0):
    torch.manual_seed(seed)
    return SegANSegmentor(1, regions, base_channels=width, num_levels=2)


@pytest.fixture
def trained(tmp_path):
    """Output folder of a training with weights of seed 1."""
    torch.save(network(seed=1).state_dict(), tmp_path / "model.pt")
    return tmp_path


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("place", ["", "model.pt"])
def test_all_weights_of_the_same_network(trained, place, caplog):
    caplog.set_level(logging.INFO)
    own = network()
    assert with_initial_weights(own, str(trained / place)) is own
    expected = network(seed=1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in own.state_dict().items())
    counts = f"{len(expected)} of the network's {len(expected)}"
    assert f"initial weights: {counts} from {trained / 'model.pt'}" in caplog.messages


def test_the_last_layer_of_other_regions_stays(trained, caplog):
    caplog.set_level(logging.INFO)
    own = network(regions=3)
    before, trained_state = state(own), network(seed=1).state_dict()
    with_initial_weights(own, trained)
    changed = [name for name, value in own.state_dict().items() if value.shape != trained_state[name].shape]
    assert len(changed) == 2  # weight and bias
    for name, value in own.state_dict().items():
        assert torch.equal(value, before[name] if name in changed else trained_state[name]), name
    assert caplog.messages[-1].endswith(f"; not loaded: {', '.join(changed)}")


def test_another_architecture_is_refused_and_nothing_is_loaded(trained):
    own = network(width=12)
    before = state(own)
    with pytest.raises(
        ConfigError, match=r"model\.pt: weights of another architecture: they fit \d\d?% of the network, first"
    ):
        with_initial_weights(own, trained)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_nothing_is_loaded_without_a_file_or_in_a_resumed_run(tmp_path):
    own = network()
    before = state(own)
    with_initial_weights(own, None)
    with_initial_weights(own, tmp_path / "deleted.pt", resume=True)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_weights_that_a_bundle_includes(caplog):
    caplog.set_level(logging.INFO)
    folder = BUNDLES / "hippocampus_mri_segan_segmentation"
    settings = json.loads((folder / "models" / "model.json").read_text(encoding="utf-8"))["settings"]
    keys = ("in_channels", "base_channels", "num_levels", "full_resolution_channels")
    own = SegANSegmentor(out_channels=2, **{key: settings[key] for key in keys})
    with_initial_weights(own, "hippocampus")
    included = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(value.float(), included[name].float()) for name, value in own.state_dict().items())
    assert {value.dtype for value in own.parameters()} == {torch.float32}  # the file is of half precision


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.pt", r"initial_weights .*none\.pt: there is no such file or folder; as a bundle: there is no bundle"),
        (
            "empty",
            r"initial_weights .*empty: no model\.pt in this folder\. Expected a file of weights, the output folder",
        ),
        ("bad.pt", r"bad\.pt: cannot be read as a checkpoint"),
        ("nan.pt", r"nan\.pt: weight '.*' is NaN or infinite"),
    ],
)
def test_bad_files(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    weights = network().state_dict()
    weights[next(iter(weights))].fill_(float("nan"))
    torch.save(weights, tmp_path / "nan.pt")
    with pytest.raises(ConfigError, match=message):
        with_initial_weights(network(), tmp_path / name)


@pytest.mark.parametrize(
    ("bundle", "message"),
    [
        ("skin", r"initial_weights skin: the bundle includes no weights in .*model\.pt\.$"),
        ("pancreas", r"no weights in .*model\.pt\. It has models/ct_pictures/fold_0/model\.pt, .*: name one of these"),
        ("br", r"as a bundle: several bundles begin with 'br': brain_mri"),
    ],
)
def test_a_bundle_without_weights(bundle, message):
    with pytest.raises(ConfigError, match=message):
        with_initial_weights(network(), bundle)
