# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Objects of a mask as keypoints and boxes on the coarse grid of a localization network, in both directions.

Position (i, j) of a grid of stride s stands for the input position y = s i + s / 2, x = s j + s / 2, in continuous
pixels (see `segan_monai.networks.roi_recalibration`) [L-SNet, section 2.1: centre-aligned sampling].
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

_TOUCHING = np.ones((3, 3), bool)  # pixels that share a corner are of one object [ours]


def object_boxes(mask: NDArray) -> NDArray:
    """Boxes of the connected components of a mask.

    Args:
        mask: (H, W), whatever is not 0 belongs to it.

    Returns:
        (N, 4) left, top, right and bottom edge of each object, in continuous pixels; N is 0 for an empty mask.
    """
    found = ndimage.find_objects(ndimage.label(mask, _TOUCHING)[0])
    edges = [(x.start, y.start, x.stop, y.stop) for y, x in found]
    return np.array(edges, np.float32).reshape(-1, 4)


def grid_positions(height: int, width: int, stride: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Input positions that a grid stands for: y (height, 1) and x (1, width), in pixels."""
    y, x = (torch.arange(n, dtype=torch.float32, device=device) * stride + stride / 2 for n in (height, width))
    return y.unsqueeze(1), x.unsqueeze(0)


def smallest_sigma(stride: int) -> float:
    """The least sigma, in pixels, with which every object has a grid position whose target exceeds 0.5.

    A centre is at most half a cell's diagonal from the nearest position.
    """
    return stride / math.sqrt(2) / math.sqrt(2 * math.log(2))


def keypoint_targets(label: Tensor, stride: int, sigma: float) -> tuple[Tensor, Tensor]:
    """What a localization network shall predict, from the mask alone (L-SNet, section 2.1).

    Heatmap: ``max over objects of exp(-((x - cx)^2 + (y - cy)^2) / (2 sigma^2))`` with the centre (cx, cy) of an
    object's box. Distances: from a position to the edges of the object that gives it its heat; negative beyond an edge.

    Args:
        label: (B, K, H, W), 0 or 1; each connected component of a class is an object.
        stride: of the grid, in pixels.
        sigma: of the Gaussian, in pixels.

    Returns:
        Heatmap (B, K, ceil(H / stride), ceil(W / stride)), 0 to 1, and distances (B, K, 4, ., .) left, right, top,
        bottom, in pixels; both 0 for a class without object.
    """
    batch, classes, height, width = label.shape
    y, x = grid_positions(-(-height // stride), -(-width // stride), stride, label.device)
    heat = label.new_zeros(batch, classes, len(y), x.shape[1], dtype=torch.float32)
    distances = label.new_zeros(batch, classes, 4, len(y), x.shape[1], dtype=torch.float32)
    masks = label.detach().cpu().numpy() > 0.5
    for image in range(batch):
        for channel in range(classes):
            boxes = torch.from_numpy(object_boxes(masks[image, channel])).to(label.device)
            if not len(boxes):
                continue
            x0, y0, x1, y1 = (edge[:, None, None] for edge in boxes.unbind(1))
            squared = (x - (x0 + x1) / 2) ** 2 + (y - (y0 + y1) / 2) ** 2
            heat[image, channel], nearest = torch.exp(-squared / (2 * sigma**2)).max(dim=0)
            sides = torch.stack(torch.broadcast_tensors(x - x0, x1 - x, y - y0, y1 - y))  # (4, N, h, w)
            index = nearest.expand(4, 1, *nearest.shape)
            distances[image, channel] = sides.gather(1, index).squeeze(1)
    return heat, distances


def heatmap_peaks(heat: NDArray, threshold: float, most: int) -> list[tuple[float, int, int]]:
    """Keypoints of a predicted heatmap: a position for each connected component above a threshold.

    It is the position of the component that is nearest to its centre, so that the distances predicted there belong to
    it also where the component is bent [ours].

    Args:
        heat: (h, w), 0 to 1.
        threshold: a position is active from here on (paper: 0.5).
        most: components kept, those with the highest peak first [ours].

    Returns:
        Peak's height, row and column of each.
    """
    active = heat >= threshold
    if not active.any():
        return []
    labelled, count = ndimage.label(active, _TOUCHING)
    peaks = []
    for component in range(1, count + 1):
        rows, columns = np.nonzero(labelled == component)
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        peaks.append((float(heat[rows, columns].max()), int(rows[nearest]), int(columns[nearest])))
    return sorted(peaks, reverse=True)[:most]


def component_peaks(heat: Tensor, threshold: float, most: int, spreads: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """`heatmap_peaks` in tensor operations of fixed shapes, for exported networks: always `most` keypoints.

    Components are found by labels that spread to neighbours, are handed to the position that they came from, and from
    there to all that follow it; so the steps needed grow with the logarithm of a component's size.

    Args:
        heat: (B, K, h, w), 0 to 1.
        threshold: a position is active from here on.
        most: components kept, those with the highest peak first.
        spreads: steps; 16 do for the windings that 128 x 128 positions can hold.

    Returns:
        Peak's height, row and column, (B, K, most) each; the height is 0 where there are fewer components.
    """
    height, width = heat.shape[2], heat.shape[3]
    flat = heat.flatten(2)
    active = (flat >= threshold).to(heat.dtype)
    # a component's label becomes its last position + 1; 0 is background
    own = torch.ones_like(flat).cumsum(2) * active
    label = own
    for _ in range(spreads):
        spread = F.max_pool2d(label.unflatten(2, (height, width)), 3, 1, 1).flatten(2) * active
        root = (label - 1).clamp(min=0).long()
        label = label.scatter_reduce(2, root, spread, "amax") * active
        label = torch.maximum(label, spread)
        label = label.gather(2, (label - 1).clamp(min=0).long()) * active
    index = label.long()
    bins = F.pad(torch.zeros_like(flat), [1, 0])  # one a label
    # as exact as NumPy's, or ties go elsewhere
    y = torch.arange(height, dtype=torch.float64, device=heat.device)
    x = torch.arange(width, dtype=torch.float64, device=heat.device)
    row = y.unsqueeze(1).expand(height, width).flatten().expand_as(flat)
    column = x.expand(height, width).flatten().expand_as(flat)
    position = torch.ones_like(row).cumsum(2) - 1
    sums = bins.double()
    count = sums.scatter_add(2, index, active.double()).clamp(min=1)
    mean_row = sums.scatter_add(2, index, row * active) / count
    mean_column = sums.scatter_add(2, index, column * active) / count
    squared = (row - mean_row.gather(2, index)) ** 2 + (column - mean_column.gather(2, index)) ** 2
    beyond = sums + height * width
    nearest = (beyond * beyond).scatter_reduce(2, index, squared, "amin")
    candidate = torch.where(squared <= nearest.gather(2, index), position, beyond[..., 1:])
    first = beyond.scatter_reduce(2, index, candidate, "amin")
    peak = bins.scatter_reduce(2, index, flat * active, "amax")
    scores, chosen = F.pad(peak[..., 1:], [0, most]).topk(most, dim=2)
    where = F.pad(first[..., 1:], [0, most]).gather(2, chosen)
    where = torch.where(scores > 0, where, torch.zeros_like(where)).long()
    return scores, row.gather(2, where).long(), column.gather(2, where).long()
