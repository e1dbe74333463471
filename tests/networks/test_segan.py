# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from segan_monai.errors import ConfigError
from segan_monai.losses import MultiScaleL1Loss
from segan_monai.networks.segan import SegANSegmentor, SegANSegmentors
from segan_monai.networks.segan_critic import SegANCritic, SegANCritics
from segan_monai.networks.upsampled_convolution import UpsampledConv2d


def test_segmentor_has_the_size_the_paper_implies_and_computes_less(monkeypatch):
    def flop() -> int:
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            segmentor(torch.zeros(1, 3, 160, 160))
        return flops.get_total_flops()

    segmentor = SegANSegmentor(in_channels=3, out_channels=3)
    assert sum(p.numel() for p in segmentor.parameters()) == pytest.approx(4.7e6, rel=0.01)
    assert flop() == pytest.approx(2.94e9, rel=0.01)
    monkeypatch.setattr(UpsampledConv2d, "is_cheaper_on_small_plane", lambda *_: False)
    assert flop() == pytest.approx(6.2e9, rel=0.01)


def test_weights_have_the_names_of_a_decoder_of_four_layers():
    names = SegANSegmentor(in_channels=1, out_channels=1, base_channels=4, num_levels=2).state_dict()
    assert [name for name in names if name.startswith("decoder") and not name.endswith("batches_tracked")] == [
        "decoder.0.1.weight",
        *(f"decoder.0.2.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        "decoder.1.1.weight",
        "decoder.1.1.bias",
    ]


@pytest.mark.parametrize("plane", [(16, 16), (35, 51), (1, 1), (155, 17)])
def test_segmentor_takes_planes_of_any_size(plane):
    segmentor = SegANSegmentor(in_channels=2, out_channels=5, base_channels=4).eval()
    assert segmentor(torch.zeros(2, 2, *plane)).shape == (2, 5, *plane)


def test_padding_is_the_same_as_padding_the_image_by_hand():
    torch.manual_seed(0)
    segmentor = SegANSegmentor(in_channels=1, out_channels=1, base_channels=4).eval()
    image = torch.rand(1, 1, 29, 32)
    padded = torch.zeros(1, 1, 32, 32)
    padded[:, :, 1:30] = image
    torch.testing.assert_close(segmentor(image), segmentor(padded)[:, :, 1:30])


def test_skip_connections_carry_detail():
    """A change of one pixel must reach the logits by the short way too: zero the deepest encoder block and look."""
    torch.manual_seed(0)
    segmentor = SegANSegmentor(in_channels=1, out_channels=1, base_channels=4).eval()
    with torch.no_grad():
        segmentor.encoder[3][0].weight.zero_()
    image = torch.rand(1, 1, 32, 32)
    changed = image.clone()
    changed[0, 0, 5, 5] += 1
    assert (segmentor(image) - segmentor(changed)).abs().max() > 1e-4


def test_deeper_segmentor_is_the_same_class():
    segmentor = SegANSegmentor(in_channels=3, out_channels=1, base_channels=4, num_levels=6, max_channels=16)
    assert segmentor(torch.zeros(2, 3, 128, 128)).shape == (2, 1, 128, 128)
    assert max(p.shape[0] for p in segmentor.parameters()) == 16


def test_full_resolution_features_see_single_pixels():
    """With the deep features cut off, a pixel of a checkerboard still has a logit of its own."""
    torch.manual_seed(0)
    segmentor = SegANSegmentor(in_channels=1, out_channels=2, base_channels=4, full_resolution_channels=4).eval()
    with torch.no_grad():
        segmentor.decoder[-1][1].weight.zero_()
        board = (torch.arange(30)[:, None] + torch.arange(33)) % 2
        logits = segmentor(board[None, None].float())[0, :, 8:-8, 8:-8]
    inside = board[8:-8, 8:-8].bool()
    assert logits.shape == (2, 14, 17)
    white, black = logits[:, inside], logits[:, ~inside]
    assert white.std(1).max() < 1e-6 < (white.mean(1) - black.mean(1)).abs().min()


def test_without_full_resolution_the_network_is_that_of_the_paper():
    names = SegANSegmentor(in_channels=1, out_channels=2, base_channels=4).state_dict()
    assert not [name for name in names if name.startswith(("stem", "head"))]
    with pytest.raises(ConfigError, match="full_resolution_channels is -1; expected 0 or more"):
        SegANSegmentor(in_channels=1, out_channels=2, full_resolution_channels=-1)


@pytest.mark.parametrize("full", [0, 4])
def test_segmentor_scripts(full):
    segmentor = SegANSegmentor(1, 2, base_channels=4, full_resolution_channels=full).eval()
    image = torch.rand(1, 1, 30, 33)
    torch.testing.assert_close(torch.jit.script(segmentor)(image), segmentor(image))


@pytest.mark.parametrize("full", [0, 4])
def test_deep_supervision_adds_logits_in_training_alone(full):
    settings = {"in_channels": 1, "out_channels": 2, "base_channels": 4, "full_resolution_channels": full}
    plain, deep = SegANSegmentor(**settings), SegANSegmentor(**settings, deep_supervision=3)
    assert {name.split(".")[0] for name in deep.state_dict().keys() - plain.state_dict().keys()} == {"deep_heads"}
    image = torch.rand(2, 1, 30, 33)
    outputs = deep(image)
    assert [tuple(logits.shape) for logits in outputs] == [(2, 2, 30, 33)] * 4
    assert len({round(logits.std().item(), 6) for logits in outputs}) == 4
    deep.load_state_dict({**deep.state_dict(), **plain.state_dict()})
    deep.eval(), plain.eval()
    assert torch.equal(deep(image), plain(image))
    torch.testing.assert_close(torch.jit.script(deep)(image), plain(image))


def test_each_deep_head_teaches_the_levels_below_it():
    segmentor = SegANSegmentor(1, 1, base_channels=4, deep_supervision=2)
    for index, taught in enumerate([[True] * 4, [True, True, True, False], [True, True, False, False]]):
        segmentor.zero_grad(set_to_none=True)
        segmentor(torch.rand(2, 1, 32, 32))[index].sum().backward()
        assert [next(block.parameters()).grad is not None for block in segmentor.decoder] == taught


def test_one_segmentor_per_class_with_deep_supervision():
    outputs = SegANSegmentors(1, 3, base_channels=4, deep_supervision=1)(torch.rand(2, 1, 32, 32))
    assert [tuple(logits.shape) for logits in outputs] == [(2, 3, 32, 32)] * 2


def test_deep_supervision_needs_levels():
    with pytest.raises(ConfigError, match="deep_supervision is 4; expected 0 to 3, because the network has 4 levels"):
        SegANSegmentor(1, 1, deep_supervision=4)


def test_segmentor_refuses_no_channels():
    with pytest.raises(ConfigError, match="in_channels 0, out_channels 1"):
        SegANSegmentor(in_channels=0, out_channels=1)


def test_critic_features_start_with_the_masked_image_and_halve():
    image = torch.rand(2, 3, 32, 48)
    features = SegANCritic(in_channels=3, base_channels=4)(image)
    assert features[0] is image
    assert [tuple(f.shape[1:]) for f in features[1:]] == [(4, 16, 24), (8, 8, 12), (16, 4, 6)]


def test_no_batch_norm_in_the_first_block_nor_without_norm():
    def norms(critic):
        return [any(isinstance(m, torch.nn.BatchNorm2d) for m in block) for block in critic.encoder]

    assert norms(SegANCritic(1, 4)) == [False, True, True]
    assert norms(SegANCritic(1, 4, norm=False)) == [False, False, False]


def test_each_critic_sees_every_modality_masked_by_its_class():
    image = torch.arange(1.0, 9).reshape(1, 2, 2, 2)
    label_map = torch.tensor([[[[1.0, 0], [0, 0]], [[0, 0], [0, 0.5]]]])
    features = SegANCritics(in_channels=2, num_classes=2, base_channels=2, num_levels=1)(image, label_map)
    torch.testing.assert_close(features[0][0], torch.tensor([[[[1.0, 0], [0, 0]], [[5.0, 0], [0, 0]]]]))
    torch.testing.assert_close(features[1][0], torch.tensor([[[[0.0, 0], [0, 2.0]], [[0.0, 0], [0, 4.0]]]]))


def test_joint_critic_sees_all_masked_images_at_once():
    critics = SegANCritics(in_channels=2, num_classes=3, base_channels=2, joint=True)
    features = critics(torch.rand(1, 2, 32, 32), torch.ones(1, 3, 32, 32))
    assert len(features) == 1
    assert features[0][0].shape == (1, 6, 32, 32)


def test_critics_refuse_another_number_of_classes():
    with pytest.raises(ConfigError, match="label map has 1 classes; expected 2, one per critic"):
        SegANCritics(in_channels=1, num_classes=2, base_channels=2)(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8))


def test_segmentors_of_single_classes_train_apart():
    """S1-1C: what pair 0 learns from does not depend on pair 1."""
    torch.manual_seed(0)
    segmentors, critics = SegANSegmentors(1, 2, base_channels=4), SegANCritics(1, 2, base_channels=4)
    image, label = torch.rand(2, 1, 32, 32), torch.ones(2, 2, 32, 32)

    def gradient_of_first():
        segmentors.zero_grad()
        features = critics(image, segmentors(image).sigmoid())
        MultiScaleL1Loss()(features, critics(image, label)).backward()
        return [p.grad.clone() for p in segmentors.segmentors[0].parameters()]

    before = gradient_of_first()
    with torch.no_grad():
        for parameter in (*segmentors.segmentors[1].parameters(), *critics.critics[1].parameters()):
            parameter.add_(0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, gradient_of_first(), strict=True))
    assert max(float(g.abs().max()) for g in before) > 0
