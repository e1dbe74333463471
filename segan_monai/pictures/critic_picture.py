# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps of the differences between the critic's features of prediction and reference, per layer."""

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
    """Compute the critic's feature differences ``|f(x * S(x)) - f(x * y)|``, averaged over the channels of each layer.

    The mean of a layer's map over the padded slice is its term of the multi-scale L1 loss, up to interpolation: Xue et
    al. (2018), Eq. 2. Both networks run in evaluation mode, where norm layers use their running averages [ours: a slice
    is not a batch]. Weights, gradients, running averages and modes do not change.

    Args:
        network: the segmentor.
        critic: called with image and label map, returns a list of features for each critic, see ``SegANCritics``.
        image: (C, U, V), with the C channels that the networks take, including neighbouring slices.
        label: (K, U, V), 0 or 1.
        min_size: rows and columns to which slices are padded in training, see ``VolumeSliceInferer``.

    Returns:
        For each critic and layer, starting with the masked image (layer 0): a map (U, V) on the CPU, upsampled to the
        size of the slice.
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
    """Draw the maps over a slice, with one row per critic, one column per layer and one colour scale per column.

    Args:
        cut: the slice.
        maps: result of ``critic_maps``.
        regions: names of the classes.
        colours: outline colours of the classes.
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
    """Upsample (1, 1, h, w) to the size of the slice, with each feature over the pixels of its stride."""
    height, width = (whole // part * part for whole, part in zip(size, features.shape[2:], strict=True))
    large = F.interpolate(features.float(), (height, width), mode="bilinear", align_corners=False)
    return F.pad(large, (0, size[1] - width, 0, size[0] - height), mode="replicate")
