# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Keypoint targets from masks, and keypoints from predicted heatmaps, for localization networks.

Position (i, j) of a grid with stride s corresponds to the input position y = s i + s / 2, x = s j + s / 2, in
continuous pixels (see ``segan_monai.networks.roi_recalibration``). This is the centre-aligned sampling of Xie et al.
(2021), Section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

TOUCHING = np.ones((3, 3), bool)  # 8-connectivity: pixels that share a corner belong to one object [ours]


def object_boxes(mask: NDArray) -> NDArray:
    """Return the bounding boxes of the connected components of a mask.

    Args:
        mask: (H, W); nonzero pixels are foreground.

    Returns:
        (N, 4): left, top, right and bottom edge of each object, in continuous pixels; N is 0 for an empty mask.
    """
    found = ndimage.find_objects(ndimage.label(mask, TOUCHING)[0])
    edges = [(x.start, y.start, x.stop, y.stop) for y, x in found]
    return np.array(edges, np.float32).reshape(-1, 4)


def grid_positions(height: int, width: int, stride: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return the input positions of a grid, in pixels: y (height, 1) and x (1, width)."""
    y, x = (torch.arange(n, dtype=torch.float32, device=device) * stride + stride / 2 for n in (height, width))
    return y.unsqueeze(1), x.unsqueeze(0)


def smallest_sigma(stride: int) -> float:
    """Return the smallest sigma, in pixels, for which every object has a grid position with a target above 0.5.

    The distance from a centre to the nearest position is at most half the diagonal of a cell.
    """
    return stride / math.sqrt(2) / math.sqrt(2 * math.log(2))


def keypoint_targets(
    label: Tensor, stride: int, sigma: float, size: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the heatmap and distance targets of a localization network: Xie et al. (2021), Section 2.1.

    - Heatmap: ``max over objects of exp(-((x - cx)^2 + (y - cy)^2) / (2 sigma^2))``, where (cx, cy) is the centre of an
      object's box.
    - Distances: from each position to the edges of the object that determines its heat; negative beyond an edge.

    Args:
        label: (B, K, H, W), 0 or 1; each connected component of a class is an object.
        stride: grid stride, in pixels of the network's input.
        sigma: standard deviation of the Gaussian, in pixels of the network's input.
        size: h and w of the network's input; by default those of the label. Boxes of a label of another size are
            measured at its own resolution, then scaled.

    Returns:
        Heatmap (B, K, ceil(h / stride), ceil(w / stride)), 0 to 1, and distances (B, K, 4, ., .) to the left, right,
        top and bottom edge, in pixels of the network's input. Both are 0 for a class without objects.
    """
    batch, classes = label.shape[:2]
    height, width = size or label.shape[2:]
    scale = torch.tensor([width / label.shape[3], height / label.shape[2]] * 2)
    y, x = grid_positions(-(-height // stride), -(-width // stride), stride, label.device)
    heat = label.new_zeros(batch, classes, len(y), x.shape[1], dtype=torch.float32)
    distances = label.new_zeros(batch, classes, 4, len(y), x.shape[1], dtype=torch.float32)
    masks = label.detach().cpu().numpy() > 0.5
    for image in range(batch):
        for channel in range(classes):
            boxes = (torch.from_numpy(object_boxes(masks[image, channel])) * scale).to(label.device)
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
    """Extract one keypoint per connected component of a heatmap above a threshold.

    The keypoint is the component's position nearest to its centroid. Distances predicted there belong to the component
    even if it is not convex [ours].

    Args:
        heat: (h, w), 0 to 1.
        threshold: positions with at least this heat are active (paper: 0.5).
        most: maximum number of components, highest peaks first [ours].

    Returns:
        Peak height, row and column of each keypoint.
    """
    active = heat >= threshold
    if not active.any():
        return []
    labelled, count = ndimage.label(active, TOUCHING)
    peaks = []
    for component in range(1, count + 1):
        rows, columns = np.nonzero(labelled == component)
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        peaks.append((float(heat[rows, columns].max()), int(rows[nearest]), int(columns[nearest])))
    return sorted(peaks, reverse=True)[:most]


def component_peaks(heat: Tensor, threshold: float, most: int, spreads: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Extract keypoints as ``heatmap_peaks`` does, with fixed-shape tensor operations for exported networks.

    Connected components are labelled by max-propagation with pointer jumping. The number of steps grows with the
    logarithm of a component's size.

    Args:
        heat: (B, K, h, w), 0 to 1.
        threshold: positions with at least this heat are active.
        most: number of keypoints returned, highest peaks first.
        spreads: propagation steps; 16 suffice for every component shape on 128 x 128 positions.

    Returns:
        Peak height, row and column, (B, K, most) each. The height is 0 where there are fewer components.
    """
    height, width = heat.shape[2], heat.shape[3]
    flat = heat.flatten(2)
    active = (flat >= threshold).to(heat.dtype)
    # the label of a component converges to its last position + 1; 0 is background
    own = torch.ones_like(flat).cumsum(2) * active
    label = own
    for _ in range(spreads):
        spread = F.max_pool2d(label.unflatten(2, (height, width)), 3, 1, 1).flatten(2) * active
        root = (label - 1).clamp(min=0).long()
        label = label.scatter_reduce(2, root, spread, "amax") * active
        label = torch.maximum(label, spread)
        label = label.gather(2, (label - 1).clamp(min=0).long()) * active
    index = label.long()
    bins = F.pad(torch.zeros_like(flat), [1, 0])  # one bin per label
    # float64 as in NumPy, so that ties resolve as in `heatmap_peaks`
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
