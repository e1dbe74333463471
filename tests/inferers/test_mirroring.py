# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The mean over mirrored views, on networks that mirroring leaves alone or changes in a known way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.inferers import FiniteInferer, RoISliceInferer, VolumeSliceInferer
from segan_monai.networks import SegANSegmentor
from segan_monai.transforms.mirroring import mirrored_views


def network(channels, symmetric):
    """A convolution of the plane and the neighbours; mirroring commutes with a symmetric one."""
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 2, 3, padding=1, bias=False).requires_grad_(False)
    if symmetric:
        weight = layer.weight.data
        weight.copy_(weight + weight.flip(1))
        weight.copy_(weight + weight.flip(2))
        weight.copy_(weight + weight.flip(3))
    return layer


@pytest.mark.parametrize("neighbours", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, 2, [2, 0]])
@pytest.mark.parametrize("mirror_axes", mirrored_views([0, 1, 2])[1:])
def test_each_axis(mirror_axes, axis, neighbours):
    volume = torch.rand(2, 1, 6, 7, 8)
    volume[..., 0] = 0  # which is skipped
    plain = VolumeSliceInferer(axis, 4, margin=2, neighbours=neighbours)
    mirroring = VolumeSliceInferer(axis, 4, margin=2, neighbours=neighbours, mirror_axes=mirror_axes)
    equivariant, other = (network(2 * neighbours + 1, symmetric) for symmetric in (True, False))
    torch.testing.assert_close(mirroring(volume, equivariant), plain(volume, equivariant))

    by_hand = []
    for view in mirrored_views(mirror_axes):
        dims = [2 + mirror for mirror in view]
        by_hand.append(plain(volume.flip(dims), other).flip(dims))
    expected = torch.stack(by_hand).mean(0)
    torch.testing.assert_close(mirroring(volume, other), expected)
    changes = list(mirror_axes) != [axis] or neighbours
    assert torch.allclose(expected, plain(volume, other)) != bool(changes)


def test_a_hand_made_network_of_differences():
    def forward_difference(plane):
        return nn.functional.pad(plane, (0, 1)).diff(dim=-1)

    volume = torch.tensor([1.0, 2, 4]).reshape(1, 1, 1, 3, 1)
    # forward: 1, 2, -4; the mirrored row 4, 2, 1 gives -2, -1, -1, which is -1, -1, -2 turned back
    plain, both = (VolumeSliceInferer(mirror_axes=axes)(volume, forward_difference) for axes in ([], [1]))
    assert plain.flatten().tolist() == [1, 2, -4]
    assert both.flatten().tolist() == [0, 0.5, -3]


def test_the_network_sees_planes_as_large_as_without():
    seen = []

    def spy(batch):
        seen.append(tuple(batch.shape))
        return batch

    VolumeSliceInferer(batch_size=2, min_size=(8, 8), mirror_axes=[0, 1])(torch.rand(1, 1, 6, 5, 4), spy)
    assert seen == [(2, 1, 8, 8)] * 8, "four views of two batches, one after the other"


def test_mixed_precision_and_channels_last():
    torch.manual_seed(0)
    segmentor = SegANSegmentor(1, 1, base_channels=4).eval()
    volume = torch.rand(1, 1, 16, 16, 3)
    with torch.no_grad():
        exact = VolumeSliceInferer(mirror_axes=[0, 1])(volume, segmentor)
        mixed = VolumeSliceInferer(mirror_axes=[0, 1], amp=True)(volume, segmentor)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("mirror_axes", [[0], [1], [0, 1]])
def test_photographs(mirror_axes):
    picture = torch.rand(2, 3, 8, 10)
    plain, mirroring = FiniteInferer(), FiniteInferer(mirror_axes=mirror_axes)
    equivariant, other = (network(3, symmetric) for symmetric in (True, False))
    torch.testing.assert_close(mirroring(picture, equivariant), plain(picture, equivariant))
    views = [[2 + axis for axis in view] for view in mirrored_views(mirror_axes)]
    expected = torch.stack([plain(picture.flip(dims), other).flip(dims) for dims in views]).mean(0)
    torch.testing.assert_close(mirroring(picture, other), expected)


def test_wrong_axes():
    with pytest.raises(
        ConfigError, match=r"mirror_axes is \[0, 3\]; expected a list of different axes out of 0 \(left"
    ):
        VolumeSliceInferer(mirror_axes=[0, 3])
    with pytest.raises(ConfigError, match=r"mirror_axes is \[2\]; expected .* 0 \(left-right\) and 1 \(up-down\)"):
        FiniteInferer(mirror_axes=[2])
    with pytest.raises(ConfigError, match=r"mirror_axes is \[1\]; expected \[\]: RoIs are recorded for one view"):
        RoISliceInferer(mirror_axes=[1])
