# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer

from segan_monai.errors import ConfigError
from segan_monai.inferers import VolumeSliceInferer, VolumeWindowInferer, volume_inferer
from segan_monai.networks import SegANSegmentor


@pytest.fixture
def volume():
    torch.manual_seed(0)
    volume = torch.zeros(1, 2, 20, 18, 16)
    volume[..., 5:14, 4:12, 3:13] = torch.rand(1, 2, 9, 8, 10) + 0.1
    return volume


@pytest.fixture
def network():
    torch.manual_seed(1)
    return torch.nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)


def test_windows_are_monais(volume, network):
    found = VolumeWindowInferer((8, 8, 8), skip_empty=False)(volume, network)
    torch.testing.assert_close(found, SlidingWindowInferer((8, 8, 8), 1, 0.5, "gaussian")(volume, network))


def test_only_the_content_and_its_margin_are_segmented(volume, network):
    found = VolumeWindowInferer((8, 8, 8), margin=2)(volume, network)
    inside = (..., slice(3, 16), slice(2, 14), slice(1, 15))
    expected = SlidingWindowInferer((8, 8, 8), 1, 0.5, "gaussian")(volume[inside], network)
    torch.testing.assert_close(found[inside], expected)
    found[inside] = -20
    assert torch.equal(found, torch.full_like(found, -20))
    empty = VolumeWindowInferer((8, 8, 8))(0 * volume, network)
    torch.testing.assert_close(empty, network.bias[:, None, None, None].expand(1, -1, 20, 18, 16))


def test_the_mean_of_all_mirror_images(volume, network):
    inferer = VolumeWindowInferer((20, 18, 16), mirror_axes=[1, 2], skip_empty=False)
    views = [(), (3,), (4,), (3, 4)]
    expected = torch.stack([network(volume.flip(view)).flip(view) for view in views]).mean(0)
    torch.testing.assert_close(inferer(volume, network), expected)
    assert not torch.allclose(expected, network(volume), atol=1e-3)


def test_a_small_volume_lies_in_the_middle_of_a_window_as_in_training():
    torch.manual_seed(0)
    network = SegANSegmentor(1, 2, base_channels=2, num_levels=2, spatial_dims=3).eval()
    image = MetaTensor(torch.rand(1, 1, 9, 12, 7), affine=torch.diag(torch.tensor([2.0, 1, 1, 1])))
    with torch.no_grad():
        padded = torch.nn.functional.pad(image.as_tensor(), [2, 3, 0, 0, 1, 2])
        expected = network(padded)[:, :, 1:10, :, 2:9]
        found = VolumeWindowInferer((12, 12, 12))(image, network)
        torch.testing.assert_close(found.as_tensor(), expected)
        assert torch.equal(found.affine, image.affine)
        mixed = VolumeWindowInferer((12, 12, 12), amp=True)(image, network).as_tensor()
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, expected, atol=0.1, rtol=0.1)


def test_windows_in_the_planes_of_a_2d_network():
    torch.manual_seed(0)
    volume, network = torch.rand(1, 1, 13, 10, 3), torch.nn.Conv2d(1, 2, 3, padding=1).requires_grad_(False)
    settings = {"batch_size": 2, "min_size": (8, 8)}
    whole = VolumeSliceInferer(**settings)(volume, network)
    found = VolumeSliceInferer(**settings, window_overlap=0.5)(volume, network)
    windows = SlidingWindowInferer((8, 8), 1, 0.5, "gaussian")
    expected = torch.stack([windows(volume[..., z], network) for z in range(3)], dim=-1)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, whole, atol=1e-3), "a window sees zeros beyond its border"
    pointwise = torch.nn.Conv2d(1, 2, 1).requires_grad_(False)
    one, other = (VolumeSliceInferer(**settings, window_overlap=n)(volume, pointwise) for n in (None, 0.25))
    torch.testing.assert_close(one, other)


def test_one_key_chooses_the_inferer():
    settings = {"patch_size": [8, 6, 4], "mirror_axes": [1], "amp": True, "skip_empty": False}
    slices = volume_inferer(2, **settings, axis=[0, 1], min_size=(5, 6), neighbours=2)
    assert isinstance(slices, VolumeSliceInferer)
    assert (slices.axes, slices.min_size, slices.neighbours, slices.window_overlap) == ((0, 1), (5, 6), 2, None)
    windows = volume_inferer(3, **settings, window_batch_size=3, window_overlap=0.25, axis=[0, 1], neighbours=2)
    assert isinstance(windows, VolumeWindowInferer)
    assert (windows.roi_size, windows.sw_batch_size, windows.overlap) == ((8, 6, 4), 3, 0.25)
    assert volume_inferer(3, **settings).overlap == 0.5
    for inferer in (slices, windows):
        assert (inferer.amp, inferer.skip_empty, inferer.mirror_axes) == (True, False, (1,))


def test_bad_arguments():
    with pytest.raises(ConfigError, match="window_overlap is 1, expected a number from 0 to below 1"):
        VolumeSliceInferer(window_overlap=1)
    with pytest.raises(ConfigError, match=r"mirror_axes is \[3\]"):
        VolumeWindowInferer((8, 8, 8), mirror_axes=[3])
    with pytest.raises(ValueError, match=r"input has shape \(1, 2, 3, 4\), expected a batch of volumes"):
        VolumeWindowInferer((8, 8, 8))(torch.zeros(1, 2, 3, 4), torch.nn.Identity())
