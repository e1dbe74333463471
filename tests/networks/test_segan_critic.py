# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Inputs, patch scores and constraints of SegAN's critics; their features are tested with the segmentor."""

from __future__ import annotations

import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.networks import SegANCritics


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return torch.rand(2, 3, 16, 16), torch.rand(2, 2, 16, 16)


def test_concatenated_image_and_mask_are_the_first_layer(pair):
    image, masks = pair
    separate = SegANCritics(3, 2, base_channels=4, input="concat")(image, masks)
    for k, features in enumerate(separate):
        assert torch.equal(features[0], torch.cat([image, masks[:, k : k + 1]], dim=1))
    (joint,) = SegANCritics(3, 2, base_channels=4, input="concat", joint=True)(image, masks)
    assert torch.equal(joint[0], torch.cat([image, masks], dim=1))


def test_multiplication_is_the_default(pair):
    image, masks = pair
    features = SegANCritics(3, 2, base_channels=4)(image, masks)
    assert torch.equal(features[1][0], image * masks[:, 1:])


def test_patch_scores_are_a_1x1_convolution_of_the_last_layer(pair):
    critics = SegANCritics(3, 2, base_channels=4, num_levels=2, patch_score=True)
    features = critics(*pair)
    assert len(features[0]) == 3
    for critic, layers, score in zip(critics.critics, features, critics.patch_scores(features), strict=True):
        weight, bias = critic.patch_score.weight[0, :, 0, 0], critic.patch_score.bias
        torch.testing.assert_close(score[:, 0], torch.einsum("bchw,c->bhw", layers[-1], weight) + bias)
        assert score.shape == (2, 1, 4, 4)


def test_without_new_settings_names_and_first_weights_stay():
    torch.manual_seed(0)
    plain = SegANCritics(3, 1, base_channels=4, num_levels=2)
    torch.manual_seed(0)
    scored = SegANCritics(3, 1, base_channels=4, num_levels=2, patch_score=True)
    assert set(scored.state_dict()) - set(plain.state_dict()) == {
        "critics.0.patch_score.weight",
        "critics.0.patch_score.bias",
    }
    assert all(torch.equal(value, scored.state_dict()[name]) for name, value in plain.state_dict().items())


def test_spectral_norm_bounds_the_largest_singular_value(pair):
    critics = SegANCritics(3, 1, base_channels=4, norm=False, patch_score=True, spectral_norm=True)
    for parameter in critics.parameters():
        parameter.data.mul_(20)
    for _ in range(30):  # one power iteration per pass
        critics(pair[0], pair[1][:, :1])
        critics.patch_scores(critics(pair[0], pair[1][:, :1]))
    layers = [m for m in critics.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(layers) == 4
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)


def test_unknown_input():
    with pytest.raises(ConfigError, match=r"critic_input is 'add'; expected 'multiply' or 'concat'\."):
        SegANCritics(1, 1, input="add")
