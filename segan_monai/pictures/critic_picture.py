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
from segan_monai.transforms.rand_foreground_patches import cut_patch


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
        image: (C, U, V), with the C channels that the networks take, including neighbouring slices; or (C, H, W, D).
        label: (K, U, V), 0 or 1; or (K, H, W, D).
        min_size: rows and columns to which slices are padded in training, see ``VolumeSliceInferer``.

    Returns:
        For each critic and layer, starting with the masked image (layer 0): a map (U, V), or (H, W, D), on the CPU,
        upsampled to the size of the image.
    """
    size = image.shape[1:]
    smallest = tuple(min_size) if len(min_size) == len(size) else (1,) * len(size)
    padded = [max(side, least) for side, least in zip(size, smallest, strict=True)]
    device = next(network.parameters()).device
    x, y = (cut_patch(maps.to(device).float(), [0] * len(size), padded)[None] for maps in (image, label))
    starts = [(whole - side) // 2 for whole, side in zip(padded, size, strict=True)]
    of_axes = [slice(first, first + side) for first, side in zip(starts, size, strict=True)]
    inside: tuple[int | slice, ...] = (0, 0, *of_axes)
    with eval_mode(network, critic):
        predicted, true = critic(x, network(x).sigmoid()), critic(x, y)
        return [
            [
                _upsampled((f - g).abs().mean(dim=1, keepdim=True), x.shape[2:])[inside].cpu()
                for f, g in zip(of_prediction, of_truth, strict=True)
            ]
            for of_prediction, of_truth in zip(predicted, true, strict=True)
        ]


def critic_maps_of_slice(
    network: nn.Module, critic: nn.Module, cut: LiveSlice, patch_size: Sequence[int]
) -> list[list[Tensor]]:
    """Compute ``critic_maps`` of 3-D networks on the patch around the reference in a slice; 0 outside of the patch.

    Args:
        network: the segmentor.
        critic: see ``critic_maps``.
        cut: the slice, with its volume.
        patch_size: voxels of a patch along each axis, as in training.

    Returns:
        For each critic and layer a map (U, V).
    """
    if cut.volume is None or cut.reference is None or cut.axis is None:
        raise AssertionError("a 3-D network needs a slice of a volume")
    shape = cut.volume.shape[1:]
    marked = cut.label.any(0).nonzero().float()
    middle = marked.mean(0).tolist() if len(marked) else [side / 2 for side in cut.label.shape[1:]]
    middle.insert(cut.axis, cut.index)
    start = [
        min(max(round(centre) - side // 2, 0), max(whole - side, 0))
        for centre, side, whole in zip(middle, patch_size, shape, strict=True)
    ]
    of_axes = [slice(first, first + side) for first, side in zip(start, patch_size, strict=True)]
    box: tuple[slice, ...] = (slice(None), *of_axes)
    image, label = cut.volume[box], cut.reference[box]
    maps = critic_maps(network, critic, image, label, patch_size)
    planes = []
    for of_critic in maps:
        wholes = torch.zeros(len(of_critic), *shape)
        wholes[box] = torch.stack(of_critic)
        planes.append(list(wholes.select(1 + cut.axis, cut.index)))
    return planes


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
    """Upsample (1, 1, h, w[, d]) to the size of the image, with each feature over the pixels of its stride."""
    strided = [whole // part * part for whole, part in zip(size, features.shape[2:], strict=True)]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    large = F.interpolate(features.float(), strided, mode=mode, align_corners=False)
    missing = [(0, whole - side) for whole, side in zip(size, strided, strict=True)]
    return F.pad(large, [n for of_axis in reversed(missing) for n in of_axis], mode="replicate")
