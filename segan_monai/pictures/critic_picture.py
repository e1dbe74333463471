# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What SegAN's critic sees: where, and in which layer, its features of prediction and truth differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from segan_monai.pictures.live_slice import LiveSlice
from segan_monai.pictures.overlay_picture import black_figure, outline_mask
from segan_monai.transforms.rand_slices import centre_padding


def critic_maps(
    network: nn.Module, critic: nn.Module, image: Tensor, label: Tensor, min_size: Sequence[int] = (1, 1)
) -> list[list[Tensor]]:
    """The critic's absolute feature difference ``|f(x * S(x)) - f(x * y)|``, averaged over the channels of each layer.

    The mean of a layer's map over the padded slice is that layer's term of the multi-scale L1 loss on it (Xue et al.
    2017, equation 2), up to the interpolation. Both networks are in evaluation mode meanwhile [ours: norm layers use
    their running averages, for a slice is no batch], and nothing of them changes: neither weights, gradients, running
    averages nor modes.

    Args:
        network: the segmentor.
        critic: called with image and label map, returns a list of features for each critic, see `SegANCritics`.
        image: (C, U, V), C as the networks take it, with neighbouring slices if they do.
        label: (K, U, V), 0 or 1.
        min_size: rows and columns to which slices are padded in training, see `VolumeSliceInferer`.

    Returns:
        For each critic and layer, the masked image (layer 0) first: (U, V) on the CPU, upsampled to the slice.
    """
    padding = centre_padding(image.shape[1:], tuple(min_size))
    device = next(network.parameters()).device
    x, y = (F.pad(planes[None].to(device).float(), padding) for planes in (image, label))
    rows = slice(padding[2], padding[2] + image.shape[1])
    columns = slice(padding[0], padding[0] + image.shape[2])
    with eval_mode(network, critic):
        predicted, true = critic(x, network(x).sigmoid()), critic(x, y)
        return [
            [
                _upsampled((f - g).abs().mean(dim=1, keepdim=True), x.shape[2:])[0, 0, rows, columns].cpu()
                for f, g in zip(of_prediction, of_truth, strict=True)
            ]
            for of_prediction, of_truth in zip(predicted, true, strict=True)
        ]


def critic_figure(cut: LiveSlice, maps: list[list[Tensor]], regions: Sequence[str], colours: Sequence[str]) -> Any:
    """Draw the maps over a slice: a row a critic, a column a layer; colours share one scale in a column.

    Args:
        cut: the slice.
        maps: from `critic_maps`.
        regions: names of the classes.
        colours: of their outlines.
    """
    layers = range(len(maps[0]))
    joint = len(maps) < len(regions)
    figure, axes = black_figure(len(maps), 1 + len(layers), cut.figure_size(len(maps), 1 + len(layers)))
    image = cut.to_screen(cut.image)
    background = image.mean(0) if cut.axis is None else image[0]
    tops = [max(float(of_critic[layer].max()) for of_critic in maps) for layer in layers]
    for row, (line, of_critic) in enumerate(zip(axes, maps, strict=True)):
        classes = range(len(regions)) if joint else [row]
        planes = cut.to_screen(torch.stack(of_critic))
        cut.draw(line[0], background)
        line[0].set_title("all classes" if joint else regions[row], color="white", fontsize=8)
        for axis, heat, layer, top in zip(line[1:], planes, layers, tops, strict=True):
            cut.draw(axis, background, alpha=0.6)
            cut.draw(axis, heat, cmap="inferno", vmin=0, vmax=top or 1, alpha=(heat.T / (top or 1)) ** 0.5)
            axis.set_title(f"layer {layer}: mean {heat.mean():.2g}, scale {top:.2g}", color="white", fontsize=8)
        for index in classes:
            colour = colours[index % len(colours)]
            outline_mask(line[0], cut.shown.reference[index][..., 0], colour, "solid")
            outline_mask(line[0], cut.shown.prediction[index][..., 0], colour, "dashed")
    return figure


def _upsampled(features: Tensor, size: Sequence[int]) -> Tensor:
    """Bring (1, 1, h, w) to the size of the slice: each feature over the pixels that it stands for."""
    height, width = (whole // part * part for whole, part in zip(size, features.shape[2:], strict=True))
    large = F.interpolate(features.float(), (height, width), mode="bilinear", align_corners=False)
    return F.pad(large, (0, size[1] - width, 0, size[0] - height), mode="replicate")
