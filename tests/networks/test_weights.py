# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.networks import SegANSegmentor, load_weights


def test_weights_come_back(tmp_path):
    torch.manual_seed(0)
    saved, loaded = SegANSegmentor(1, 2, base_channels=4), SegANSegmentor(1, 2, base_channels=4)
    for content in (saved.state_dict(), {"model": saved.state_dict()}):
        torch.save(content, tmp_path / "model.pt")
        load_weights(loaded, tmp_path / "model.pt")
        assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in saved.state_dict().items())


def test_another_architecture_is_refused_whole(tmp_path):
    torch.save(SegANSegmentor(1, 2, base_channels=8).state_dict(), tmp_path / "model.pt")
    network = SegANSegmentor(1, 2, base_channels=4)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ConfigError, match=r"model.pt: weights of another architecture: .* \(base_channels"):
        load_weights(network, tmp_path / "model.pt")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match=r"model.pt: no such file; expected trained weights. Train first"):
        load_weights(SegANSegmentor(1, 1, 4), tmp_path / "model.pt")


def test_a_missing_file_names_the_overlays_with_weights(tmp_path):
    folder = tmp_path / "models" / "ct_pictures" / "fold_0"
    folder.mkdir(parents=True)
    torch.save({}, folder / "model.pt")
    with pytest.raises(ConfigError, match=r"models has weights for other inputs: add --overlay ct_pictures\."):
        load_weights(SegANSegmentor(1, 1, 4), tmp_path / "models" / "model.pt")
    folder.parent.rename(tmp_path / "models" / "folds")  # no overlay
    with pytest.raises(ConfigError, match=r"contains model\.pt\.$"):
        load_weights(SegANSegmentor(1, 1, 4), tmp_path / "models" / "model.pt")


def test_a_truncated_file(tmp_path):
    file = tmp_path / "model.pt"
    torch.save(SegANSegmentor(1, 1, 4).state_dict(), file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ConfigError, match=r"model.pt: cannot be read as a checkpoint"):
        load_weights(SegANSegmentor(1, 1, 4), file)


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in a checkpoint was run')",)


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    with (tmp_path / "model.pt").open("wb") as stream:
        pickle.dump({"weights": Malicious()}, stream)
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        load_weights(SegANSegmentor(1, 1, 4), tmp_path / "model.pt")
    torch.save({"weights": Malicious()}, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        load_weights(SegANSegmentor(1, 1, 4), tmp_path / "model.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_whole(tmp_path, value):
    saved, network = SegANSegmentor(1, 2, base_channels=4), SegANSegmentor(1, 2, base_channels=4)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    weights = saved.state_dict()
    name = list(weights)[-1]
    weights[name] = weights[name].clone()
    weights[name].flatten()[-1] = value
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=rf"model.pt: weight '{name}' is NaN or infinite \(1 of {len(weights)} "):
        load_weights(network, tmp_path / "model.pt")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
