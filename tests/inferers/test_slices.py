# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer

from segan_monai.engines.compiling import compile_settings
from segan_monai.errors import ConfigError
from segan_monai.inferers.slices import VolumeSliceInferer, fixed_size
from segan_monai.networks.segan import SegANSegmentor
from segan_monai.transforms import cut_slice


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SegANSegmentor(in_channels=2, out_channels=3, base_channels=4).eval()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_restacked_volume_is_slice_by_slice_prediction(network, axis, batch_size):
    volume = torch.rand(2, 2, 17, 18, 19)
    with torch.no_grad():
        found = VolumeSliceInferer(axis=axis, batch_size=batch_size)(volume, network)
        by_hand = torch.stack([network(volume.select(2 + axis, i)) for i in range(volume.shape[2 + axis])], 2 + axis)
    torch.testing.assert_close(found, by_hand)


def test_several_axes_are_averaged(network):
    volume = torch.rand(1, 2, 17, 18, 19)
    with torch.no_grad():
        found = VolumeSliceInferer(axis=[2, 0])(volume, network)
        one, other = (VolumeSliceInferer(axis=axis)(volume, network) for axis in (0, 2))
    torch.testing.assert_close(found, (one + other) / 2)


def test_agrees_with_monais_slice_inferer_on_whole_slices(network):
    volume = torch.rand(1, 2, 32, 48, 5)
    with torch.no_grad():
        ours = VolumeSliceInferer(axis=2)(volume, network)
        theirs = SliceInferer(roi_size=(32, 48), spatial_dim=2)(volume, network)
    torch.testing.assert_close(ours, theirs)


def test_empty_slices_never_reach_the_network(network):
    seen = []

    def spy(batch):
        seen.append(len(batch))
        return network(batch)

    volume = torch.rand(1, 2, 16, 16, 10)
    volume[..., :4] = 0
    with torch.no_grad():
        output = VolumeSliceInferer(batch_size=4)(volume, spy)
    assert seen == [4, 2]
    assert torch.equal(output[..., :4], torch.full((1, 3, 16, 16, 4), -20.0))
    assert (output[..., 4:] != -20).all()


def test_an_empty_volume_has_an_empty_result(network):
    with torch.no_grad():
        output = VolumeSliceInferer()(torch.zeros(1, 2, 16, 16, 3), network)
    assert output.shape == (1, 3, 16, 16, 3)


def test_mixed_precision_is_close(network):
    volume = torch.rand(1, 2, 32, 32, 4)
    with torch.no_grad():
        exact = VolumeSliceInferer()(volume, network)
        mixed = VolumeSliceInferer(amp=True)(volume, network)
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    torch.testing.assert_close(mixed, exact, atol=0.1, rtol=0.1)


def test_metadata_is_kept(network):
    affine = torch.diag(torch.tensor([2.0, 3, 4, 1], dtype=torch.float64))
    with torch.no_grad():
        output = VolumeSliceInferer()(MetaTensor(torch.rand(1, 2, 16, 16, 3), affine=affine), network)
    assert torch.equal(output.affine, affine)


def test_bad_arguments(network):
    with pytest.raises(ConfigError, match="axis is 3, expected 0, 1 or 2"):
        VolumeSliceInferer(axis=3)
    with pytest.raises(ConfigError, match=r"axis is \[1, 1\], expected 0, 1 or 2, .* or a list of them"):
        VolumeSliceInferer(axis=[1, 1])
    with pytest.raises(ConfigError, match="neighbours is -2"):
        VolumeSliceInferer(neighbours=-2)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        VolumeSliceInferer(batch_size=0)
    with pytest.raises(ValueError, match=r"input has shape \(1, 2, 16, 16\), expected a batch of volumes"):
        VolumeSliceInferer()(torch.zeros(1, 2, 16, 16), network)


def test_small_planes_are_padded_as_in_training(network):
    volume = torch.rand(1, 2, 17, 60, 3)
    window = torch.stack([cut_slice(volume[0], 2, index, (0, 0), (64, 64)) for index in range(3)])
    with torch.no_grad():
        found = VolumeSliceInferer(min_size=(64, 64))(volume, network)
        in_training = network(window)[:, :, 23 : 23 + 17, 2 : 2 + 60]
    torch.testing.assert_close(found[0], in_training.movedim(0, -1))


def test_empty_rows_and_columns_beyond_the_margin_are_not_shown(network):
    seen = []

    def spy(batch):
        seen.append(tuple(batch.shape[2:]))
        return network(batch)

    volume = torch.zeros(1, 2, 80, 100, 3)
    volume[:, :, 30:40, 2:60] = torch.rand(1, 2, 10, 58, 3)
    with torch.no_grad():
        found = VolumeSliceInferer(margin=8)(volume, spy)
        box = VolumeSliceInferer(skip_empty=False)(volume[:, :, 22:48, 0:68], network)
    assert seen == [(26, 68)]
    torch.testing.assert_close(found[:, :, 22:48, 0:68], box)
    found[:, :, 22:48, 0:68] = -20
    assert (found == -20).all()


@pytest.mark.parametrize("axis", [0, 2])
def test_neighbours_are_those_of_the_training_slices(axis):
    torch.manual_seed(0)
    network = SegANSegmentor(in_channels=6, out_channels=1, base_channels=4).eval()
    volume = torch.rand(2, 2, 9, 10, 5)
    size = [n for i, n in enumerate(volume.shape[2:]) if i != axis]
    with torch.no_grad():
        found = VolumeSliceInferer(axis=axis, batch_size=3, neighbours=1)(volume, network)
        for case in range(2):
            for index in range(volume.shape[2 + axis]):
                image = cut_slice(volume[case], axis, index, (0, 0), size, neighbours=1)
                torch.testing.assert_close(found[case].select(1 + axis, index), network(image[None])[0])


def brain(rows, columns, slices):
    """A volume of 100x100 planes with content in a box of this size."""
    volume = torch.zeros(1, 2, 100, 100, slices + 2)
    volume[:, :, 20 : 20 + rows, 15 : 15 + columns, 1:-1] = torch.rand(1, 2, rows, columns, slices)
    return volume


def test_fixed_shapes_are_few_and_results_those_of_a_larger_margin(network):
    shapes, batch_size = [], 4

    def spy(x):
        shapes.append(tuple(x.shape))
        return network(x)

    with torch.no_grad():
        for rows, columns, slices in ((30, 20, 5), (21, 31, 3), (50, 58, 6)):
            volume = brain(rows, columns, slices)
            found = VolumeSliceInferer(batch_size=batch_size, margin=2, fixed_shapes=True)(volume, spy)
            plain = VolumeSliceInferer(batch_size=batch_size, margin=2)(volume, network)
            assert torch.equal(found == -20, plain == -20), "the same voxels are left out"
            # padding each plane by hand is the same
            size = [-(-(max(rows, columns) + 4) // 32) * 32] * 2
            wide = VolumeSliceInferer(batch_size=batch_size, margin=2, min_size=size)(volume, network)
            torch.testing.assert_close(found, wide, atol=1e-6, rtol=1e-5)
    assert set(shapes) == {(4, 2, 64, 64)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "backend"),
    [("cpu", "aot_eager"), pytest.param("cuda", "inductor", marks=pytest.mark.gpu)],
)
def test_a_compiled_network_is_not_compiled_again_for_each_case(device, backend):
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = SegANSegmentor(in_channels=2, out_channels=3, base_channels=4, num_levels=2).eval().to(device)
    eager = VolumeSliceInferer(batch_size=4, margin=2, fixed_shapes=True)
    found = torch.randint(4, 70, (24, 3)).tolist()
    cases = [brain(*size).to(device) for size in found]
    with torch.inference_mode():
        expected = [eager(case, network) for case in cases]
        network.compile(**compile_settings(backend, torch.device(device)))
        stats = torch._dynamo.utils.counters["stats"]
        stats.clear()
        inferer = VolumeSliceInferer(batch_size=4, margin=2)
        graphs = []
        for case, result in zip(cases, expected, strict=True):
            torch.testing.assert_close(inferer(case, network), result, atol=1e-4, rtol=1e-4)
            graphs.append(stats["unique_graphs"])
    sizes = {fixed_size((rows + 4, columns + 4), (1, 1)) for rows, columns, _ in found}
    assert graphs[-1] == len(sizes) == 3, "one for each size"
    assert graphs[11] == graphs[-1], "later cases need no compilation"
    assert not torch._dynamo.utils.counters["graph_break"]
    torch._dynamo.reset()
