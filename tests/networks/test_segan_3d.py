# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segan_monai.errors import ConfigError
from segan_monai.losses import MultiScaleL1Loss, PatchScoreLoss, UnpairedL1Loss
from segan_monai.networks import SegANCritics, SegANSegmentor, SegANSegmentors, load_weights
from segan_monai.networks.level_strides import strides_of_levels
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS

SMALL = {"in_channels": 1, "out_channels": 2, "base_channels": 2, "spatial_dims": 3}


def test_shipped_weights_in_2d_give_the_bits_of_the_literal_network():
    network = SegANSegmentor(7, 2, base_channels=16, full_resolution_channels=8).eval()
    w = load_weights(network, BUNDLES / HIPPOCAMPUS / "models" / "model.pt").state_dict()

    def norm(x, name):
        values = [w[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values)

    def conv(x, name):
        return F.leaky_relu(norm(F.conv2d(x, w[f"{name}.0.weight"], padding=1), f"{name}.1"), 0.2)

    image = torch.rand(2, 7, 48, 64)
    with torch.no_grad():
        x = conv(image, "stem")
        stem = F.leaky_relu(norm(F.conv2d(x, w["stem.3.weight"], padding=1), "stem.4"), 0.2)
        x = F.leaky_relu(F.conv2d(stem, w["encoder.0.0.weight"], w["encoder.0.0.bias"], 2, 1), 0.2)
        skips = [x]
        for level in (1, 2, 3):
            x = norm(F.conv2d(x, w[f"encoder.{level}.0.weight"], None, 2, 1), f"encoder.{level}.1")
            skips.append(x := F.leaky_relu(x, 0.2))
        for level in range(4):
            x = x if level == 0 else torch.cat([x, skips[-1 - level]], dim=1)
            x = F.relu(norm(network.decoder[level][1](x), f"decoder.{level}.2"))
        x = conv(torch.cat([x, stem], dim=1), "head")
        expected = F.conv2d(x, w["head.3.weight"], w["head.3.bias"])
        assert torch.equal(network(image), expected)


@pytest.mark.parametrize("full", [0, 2])
@pytest.mark.parametrize("level_strides", [None, [[2, 2, 1]], [[2, 1, 2], [2, 2, 1]]])
def test_volumes_of_any_size_in_training_and_inference(full, level_strides):
    network = SegANSegmentor(
        **SMALL, num_levels=2, full_resolution_channels=full, deep_supervision=1, level_strides=level_strides
    )
    x = torch.rand(2, 1, 9, 10, 7)
    assert [tuple(y.shape) for y in network(x)] == [(2, 2, 9, 10, 7)] * 2
    with torch.no_grad():
        logits = network.eval()(x)
        assert logits.shape == (2, 2, 9, 10, 7)
        torch.testing.assert_close(torch.jit.script(network)(x), logits, atol=1e-5, rtol=1e-4)
    assert SegANSegmentors(**SMALL, num_levels=2).eval()(x).shape == (2, 2, 9, 10, 7)


def test_thick_slices_are_mixed_below_the_first_level_only():
    network = SegANSegmentor(**SMALL, num_levels=3, level_strides=[[2, 2, 1], [2, 2, 1]])
    assert network.divisors == [8, 8, 2]
    assert [tuple(down[0].kernel_size) for down in network.encoder] == [(4, 4, 3), (4, 4, 3), (4, 4, 4)]
    critic = SegANCritics(1, 1, base_channels=2, num_levels=2, level_strides=[[2, 2, 1]], spatial_dims=3).critics[0]
    assert [tuple(f.shape[2:]) for f in critic(torch.rand(1, 1, 8, 8, 8))] == [(8, 8, 8), (4, 4, 8), (2, 2, 4)]


@pytest.mark.parametrize(("joint", "input"), [(False, "multiply"), (True, "concat")])
def test_all_losses_of_a_critic(joint, input):
    critics = SegANCritics(
        1, 2, base_channels=2, joint=joint, input=input, patch_score=True, spectral_norm=True, spatial_dims=3
    )
    image, mask = torch.rand(2, 1, 16, 16, 16), torch.rand(2, 2, 16, 16, 16)
    features, others = critics(image, mask), critics(image, (mask > 0.5).float())
    assert [tuple(f.shape[2:]) for f in features[0]] == [(16,) * 3, (8,) * 3, (4,) * 3, (2,) * 3]
    assert MultiScaleL1Loss()(features, features) == 0 < MultiScaleL1Loss()(features, others)
    assert UnpairedL1Loss()(features, others) > 0
    assert critics.patch_scores(features)[0].shape == (2, 1, 2, 2, 2)
    PatchScoreLoss()(critics.patch_scores(features), critics.patch_scores(others)).backward()
    score = SegANCritics(1, 2, base_channels=2, score=True, spatial_dims=3)(image, mask)[0]
    assert [s.shape for s in score] == [(2, 1)]


@pytest.mark.parametrize(
    ("dims", "strides", "message"),
    [
        (4, None, "spatial_dims is 4; expected 2 .* or 3"),
        (3, [[2, 2]], r"level_strides has \[2, 2\]; expected 3 numbers"),
        (3, [[1, 1, 1]], r"has \[1, 1, 1\]; .* at least one 2"),
        (2, [[2, 4]], r"has \[2, 4\]; expected 2 numbers"),
    ],
)
def test_other_strides_are_refused(dims, strides, message):
    with pytest.raises(ConfigError, match=message):
        strides_of_levels(dims, 4, strides)
