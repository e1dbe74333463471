# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""L-SNet from image to mask, with first and second stages whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from segan_monai.errors import ConfigError
from segan_monai.networks import CoarseLocalizer, LocalizationNet, LSNet, ResNetSegmentor
from tests.networks.known_lsnet import BrightIsObject, TrueLocalizer, known


def blank(batch=1, classes=1, size=(128, 160)):
    return torch.zeros(batch, classes, *size)


def dice(logits, truth):
    found = logits > 0
    return float(2 * (found & (truth > 0.5)).sum() / (found.sum() + truth.sum()))


def small(classes=1, structure="unet"):
    localizer = LocalizationNet(1, classes, base_channels=4, structure=structure)
    return LSNet(localizer, ResNetSegmentor(1, classes, 18, 4, structure), classes)


def test_objects_come_back_in_their_place():
    image = blank(4)
    image[0, 0, 40:70, 30:90] = 1
    image[1, 0, :20, 140:] = 1  # at a corner
    image[3, 0, 10:40, 10:40] = image[3, 0, 80:120, 100:150] = 1  # two
    network = known()
    logits = network(image)
    assert logits.shape == image.shape
    for index in (0, 1, 3):
        assert dice(logits[index], image[index]) > 0.97
    assert (logits[2] < -10).all(), "an empty slice"
    assert network.segmentor.shown == 4, "the empty slice never reached the segmentor, the two objects both did"


@pytest.mark.parametrize("side", [1, 2, 3])
def test_objects_smaller_than_a_cell_of_the_heatmap(side):
    for offset in range(4):
        image = blank()
        image[0, 0, 50 + offset : 50 + offset + side, 61 : 61 + side] = 1
        rois = known().locate(image)
        torch.testing.assert_close(rois.edges()[0], torch.tensor([61.0, 50 + offset, 61 + side, 50 + offset + side]))
        assert dice(known()(image), image) > 0.6


def test_hard_crops_find_the_same_within_rounding():
    image = blank()
    image[0, 0, 41:73, 33:91] = 1
    assert dice(known(hard_crop=True)(image), image) > 0.97


def test_classes_keep_to_themselves():
    image = blank(2, 3)
    image[0, 0, 10:40, 10:40] = 1
    image[0, 2, 80:110, 90:140] = 1
    image[1, 1, 30:60, 30:60] = 1
    network = known(3)
    logits = network(image)
    assert logits.shape == image.shape
    for sample, channel in ((0, 0), (0, 2), (1, 1)):
        assert dice(logits[sample, channel], image[sample, channel]) > 0.97
        logits[sample, channel] = -20
    assert (logits < -10).all()


def test_a_batch_is_its_slices_one_by_one():
    torch.manual_seed(0)
    network = small().eval()
    nn.init.constant_(network.localizer.keypoint_head[-1].bias, 0.0)  # so that an untrained network sees objects
    image = torch.randn(3, 1, 64, 80)
    assert len(network.locate(image).image) >= 3
    together = network(image)
    apart = torch.cat([network(slice_) for slice_ in image.split(1)])
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(together, network(image, network.locate(image)))


def test_no_more_rois_than_allowed():
    image = blank()
    image[0, 0, 8:120:24, 8:150:24] = 1
    network = LSNet(TrueLocalizer(max_rois=5), BrightIsObject(), 1).eval()
    assert len(network.locate(image).image) == 5


@pytest.mark.parametrize("structure", ["unet", "fcn"])
@pytest.mark.parametrize("size", [(64, 96), (50, 71)])
def test_any_size_and_class_count(structure, size):
    network = small(2, structure).eval()
    assert network(torch.randn(2, 1, *size)).shape == (2, 2, *size)
    heatmap, distances = network.localizer(torch.randn(2, 1, *size))
    assert heatmap.shape == (2, 2, -(-size[0] // 4), -(-size[1] // 4))
    assert distances.shape == (2, 2, 4, *heatmap.shape[2:])
    assert (distances > 0).all()


def test_a_new_network_sees_no_objects_and_boxes_of_an_eighth():
    heatmap, distances = LocalizationNet(1, 1, base_channels=4)(torch.zeros(1, 1, 64, 128))
    assert heatmap.sigmoid().mean().item() == pytest.approx(0.05, abs=0.03)
    width, height = (distances[0, 0, i] + distances[0, 0, i + 1] for i in (0, 2))
    assert width.mean().item() == pytest.approx(16, rel=0.3)
    assert height.mean().item() == pytest.approx(8, rel=0.3)


def test_training_rois_are_drawn_among_the_most_probable():
    heatmap = torch.full((2, 2, 4, 5), -5.0)
    heatmap[0, 1, 3, 4] = heatmap[0, 0, 0, 2] = heatmap[0, 0, 1, 2] = 3.0
    heatmap[1, 0, 2, 1] = 9.0
    distances = torch.arange(2 * 2 * 4 * 20.0).reshape(2, 2, 4, 4, 5)
    localizer = LocalizationNet(1, 2, base_channels=4)
    seen = set()
    torch.manual_seed(0)
    for _ in range(60):
        rois = localizer.draw_rois((heatmap, distances))
        assert rois.image.tolist() == [0, 1]
        seen.add((int(rois.channel[0]), *rois.keypoints[0].tolist()))
        row, column = int(rois.keypoints[0, 1] - 2) // 4, int(rois.keypoints[0, 0] - 2) // 4
        assert rois.distances[0].tolist() == distances[0, rois.channel[0], :, row, column].tolist()
    assert seen == {(1, 18, 14), (0, 10, 2), (0, 10, 6)}


def test_the_coarse_stage_gives_the_box_of_its_mask():
    logits = torch.full((3, 2, 20, 30), -5.0)
    logits[0, 0, 4:9, 10:30] = 5
    logits[0, 0, 15, 2] = 5
    logits[2, 1, 0, 0] = 5
    localizer = CoarseLocalizer(nn.Identity())
    rois = localizer.find_rois(localizer(logits))
    assert rois.image.tolist() == [0, 2]
    assert rois.channel.tolist() == [0, 1]
    assert rois.edges().tolist() == [[2, 4, 30, 16], [0, 0, 1, 1]]
    drawn = localizer.draw_rois(logits)
    assert drawn.edges().tolist() == [[2, 4, 30, 16], [0, 0, 30, 20], [0, 0, 1, 1]], "without mask the whole image"
    network = LSNet(CoarseLocalizer(BrightIsObject()), BrightIsObject(), 1, hard_crop=True).eval()
    image = blank(2)
    image[0, 0, 40:70, 30:90] = 1
    found = network(image)
    assert dice(found[0], image[0]) > 0.97
    assert (found[1] < -10).all()


class WrittenPlaces(TorchDispatchMode):
    """Collects the indices that tensors are written at."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.index_put_.default:
            self.found.append(args[1][0].tolist())
        return function(*args, **(kwargs or {}))


def test_one_of_several_classes_is_drawn_in_each_image():
    """No place is written twice: on a GPU, fields of different RoIs could meet in one."""
    logits = torch.full((3, 3, 20, 30), -5.0)
    for channel in range(3):
        logits[0, channel, channel : channel + 4, 10:30] = logits[2, channel, 5:9, channel] = 5
    localizer = CoarseLocalizer(nn.Identity())
    rois = localizer.find_rois(logits)
    possible = {
        (int(image), int(channel)): edges for image, channel, edges in zip(*rois[:2], rois.edges(), strict=True)
    }
    drawn = set()
    torch.manual_seed(0)
    for _ in range(40):
        with WrittenPlaces() as places:
            found = localizer.draw_rois(logits)
        assert places.found == 5 * [sorted(set(places.found[0]))]
        assert found.image.tolist() == [0, 1, 2]
        assert found.edges()[1].tolist() == [0, 0, 30, 20]
        for image in (0, 2):
            channel = int(found.channel[image])
            assert found.edges()[image].equal(possible[image, channel])
            drawn.add((image, channel))
    assert drawn == set(possible), "each class is drawn"


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"threshold 1\.5"):
        LocalizationNet(1, 1, threshold=1.5)
    with pytest.raises(ConfigError, match=r"test_boxes is 6; expected 1 \(the predicted box\) to 5"):
        known(test_boxes=6)


def by_size(**settings):
    return known(localizer_size=(64, 80), roi_size=(48, 64), margin=30.0, **settings)


@pytest.mark.parametrize("settings", [{}, {"hard_crop": True}, {"test_boxes": 5, "mirror_rois": True}])
def test_rois_come_from_the_input_and_masks_go_back_there(settings):
    image = blank(2, size=(256, 320))
    image[0, 0, 100:141, 62:171] = 1
    network = by_size(**settings)
    assert network.localizer_input(image).shape == (2, 1, 64, 80)
    # the localizer sees 4x4 pixels as one, of which it calls those bright that are at least half bright
    assert network.locate(image).edges().tolist() == [[64, 100, 172, 140]]
    logits = network(image)
    assert logits.shape == image.shape
    assert dice(logits[0], image[0]) > 0.97
    assert (logits[1] < -10).all()
    assert network.segmentor.shown == len(network.shifts) * (1 + network.mirror_rois)


def test_a_roi_shows_detail_that_the_localizer_has_not_seen():
    """Two bars a pixel apart: one object for the localizer, two for a segmentor that sees the input."""
    image = blank(size=(256, 320))
    image[0, 0, 100:120, 80:112] = image[0, 0, 122:142, 80:112] = 1
    found = by_size()(image) > 0
    assert not found[0, 0, 121, 90]
    assert found[0, 0, 118, 90]
    assert found[0, 0, 124, 90]
    small = known(localizer_size=(64, 80), roi_size=(64, 80), margin=7.5)
    assert (small(small.localizer_input(image)) > 0)[0, 0, 30, 22], "of the small image the gap is bright, too"


def test_the_coarse_stage_sees_the_small_image_too():
    image = blank(size=(256, 320))
    image[0, 0, 100:140, 64:172] = 1
    sizes = {"localizer_size": (64, 80), "roi_size": (64, 80), "hard_crop": True}
    network = LSNet(CoarseLocalizer(BrightIsObject()), BrightIsObject(), 1, **sizes).eval()
    assert network.locate(image).edges().tolist() == [[64, 100, 172, 140]]
    assert dice(network(image), image) > 0.97


def test_boxes_of_a_test_are_shifted_by_a_tenth():
    image = blank()
    image[0, 0, 40:60, 30:70] = 1
    seen = []
    network = known(test_boxes=3, margin=0.0)
    network.segmentor.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(image)
    columns = [(roi[0, 0] > 0.5).any(0).nonzero() for roi in seen]
    # of 160 columns of the RoI, a tenth is 16: shifted to the left, the object begins 16 columns later
    assert [(int(found[0]), int(found[-1])) for found in columns] == [(0, 159), (16, 159), (0, 143)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"margin": 3.0},
        {"margin": 3, "hard_crop": True},  # a whole number, as --roi_margin 3 gives
        {"localizer_size": (35, 48), "roi_size": (32, 40), "test_boxes": 2, "mirror_rois": True},
    ],
)
def test_the_exported_network_with_its_fixed_number_of_rois_is_the_same(settings):
    torch.manual_seed(0)
    localizer = LocalizationNet(1, 2, base_channels=4, max_rois=3, threshold=0.05)
    network = LSNet(localizer, ResNetSegmentor(1, 2, 18, 4), 2, **settings).eval()
    image = torch.rand(2, 1, 70, 96)
    assert 0 < len(network.locate(image).image) < 2 * 2 * 3, "fewer than the exported network looks at"
    with torch.no_grad():
        expected = network(image)
        assert (expected > -10).any()
        torch.testing.assert_close(torch.jit.script(network)(image), expected)
        traced = torch.jit.trace(network, torch.zeros(2, 1, 70, 96))
        torch.testing.assert_close(traced(image), expected)


@pytest.mark.parametrize("stage", ["localizer", "segmentor"])
def test_an_exported_network_gives_nan_for_an_image_on_which_a_stage_does(stage):
    """Exported code raises no error, and NaN in a heatmap would give no RoI, so an empty mask."""
    network, images = known(), blank(2)
    images[:, :, 20:60, 30:90] = 1
    expected = network._fixed(images)
    assert (expected > 0).any()

    def spoil(module, inputs, output):
        parts = [part.clone() for part in (output if isinstance(output, tuple) else (output,))]
        parts[0][len(parts[0]) // 2, 0, 0, 0] = float("inf")  # of the second image; of two RoIs, the second
        return tuple(parts) if isinstance(output, tuple) else parts[0]

    network.localizer.max_rois = 1
    getattr(network, stage).register_forward_hook(spoil)
    found = network._fixed(images)
    assert torch.equal(found[0], expected[0])
    assert found[1].isnan().all()
