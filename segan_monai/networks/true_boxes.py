# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Training RoIs: boxes of true masks in place of predicted ones, boxes moved at random, and their agreement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.data.box_utils import box_iou
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from segan_monai.networks.keypoints import TOUCHING, object_boxes
from segan_monai.networks.localization import RoIs, from_edges

Boxes = Sequence[Sequence[NDArray]]
"""Boxes (N, 4) of the objects of each class in each image: left, top, right and bottom edge, in pixels."""


def of_whole_objects(label: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Remove objects that touch pixels without a known label: nothing is known of their box and its centre [ours].

    The centre may lie beside the visible pixels of an object, so the background in the box around them is hidden too.

    Args:
        label: (B, K, H, W), 0 or 1; each connected component of a class is an object.
        known: (B, K, H, W), 1 where the label is known, else 0.

    Returns:
        The label without these objects, and where it is known, without the boxes of these objects, but with the pixels
        of others in them; both of the given types.
    """
    label = label * (known > 0.5)
    known = known.clone()
    for image, channel in (known <= 0.5).flatten(2).any(2).nonzero().tolist():
        objects, _ = ndimage.label((label[image, channel] > 0.5).cpu().numpy(), TOUCHING)
        near = ndimage.binary_dilation((known[image, channel] <= 0.5).cpu().numpy(), TOUCHING)
        cut, boxes = np.unique(objects[near & (objects > 0)]), ndimage.find_objects(objects)
        whole = (objects > 0) & ~np.isin(objects, cut)
        hidden = np.zeros_like(whole)
        for number in cut:
            hidden[boxes[number - 1]] = True
        label[image, channel] *= torch.from_numpy(whole).to(label)
        known[image, channel][torch.from_numpy(hidden & ~whole).to(known.device)] = 0
    return label, known


def boxes_of_objects(label: Tensor) -> Boxes:
    """Find the boxes of all objects of a batch, with one copy of the label to the host.

    Args:
        label: (B, K, H, W), 0 or 1; each connected component of a class is an object.

    Returns:
        For each image and class, the result of ``object_boxes``.
    """
    return [[object_boxes(mask) for mask in of_image] for of_image in (label > 0.5).cpu().numpy()]


def with_true_boxes(rois: RoIs, objects: Boxes, share: float, jitter: float) -> RoIs:
    """Replace the RoI of some images by the box of a true object, moved and resized at random [ours].

    Args:
        rois: one RoI per image, in order of the images, in pixels of the label.
        objects: result of ``boxes_of_objects``.
        share: probability of replacing a RoI. Images without object keep theirs.
        jitter: standard deviation of the shift of each edge, as a share of the box's width or height.

    Returns:
        One RoI per image. Those that were replaced have a score of 1, and no gradient.
    """
    chosen, rows = [], []
    for image in (torch.rand(len(objects)) < share).nonzero().flatten().tolist():
        boxes = [(channel, box) for channel, of_class in enumerate(objects[image]) for box in of_class]
        if boxes:
            channel, (x0, y0, x1, y1) = boxes[int(torch.randint(len(boxes), ()))]
            width, height = float(x1 - x0), float(y1 - y0)
            limit = torch.tensor([width, height, width, height])
            moved = torch.tensor([x0, y0, x1, y1]) + jitter * limit * torch.randn(4).clamp(-2, 2)
            chosen.append(image)
            rows.append([float(channel), *moved.tolist()])
    if not rows:
        return rois
    device = rois.distances.device
    index, table = torch.tensor(chosen, device=device), torch.tensor(rows, device=device)
    channels, left, top, right, bottom = table.unbind(1)
    true = from_edges(index, channels.long(), left, right, top, bottom, torch.ones(len(rows), device=device))
    # out of place, because distances have a gradient
    return RoIs(*(part.index_copy(0, index, new.to(part)) for part, new in zip(rois, true, strict=True)))


def jittered(rois: RoIs, jitter: float) -> RoIs:
    """Move the edges of predicted boxes at random [ours]; keypoints stay, and distances keep their gradient.

    Boxes of training images are better than those of new ones. Moved boxes show the segmentor what to expect.

    Args:
        rois: N RoIs.
        jitter: standard deviation of the shift of each edge, as a share of the box's width or height.
    """
    left, right, top, bottom = rois.distances.detach().float().unbind(1)
    lengths = torch.stack([left + right, left + right, top + bottom, top + bottom], dim=1)
    shift = torch.randn(lengths.shape).clamp(-2, 2).to(lengths)
    return rois._replace(distances=rois.distances + jitter * lengths * shift)


def mean_box_iou(rois: RoIs, objects: Boxes) -> Tensor:
    """Return the mean IoU of boxes without margin and the nearest true box of their class and image.

    Args:
        rois: N RoIs in pixels of the label.
        objects: result of ``boxes_of_objects``.

    Returns:
        A scalar, 0 to 1; RoIs of a class without object in their image do not count. NaN if none counts.
    """
    found = []
    # a box of weights that are not finite is 0; MONAI would raise an error before the loss says so
    edges = rois.edges().detach().float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).cpu()
    for image, channel, box in zip(rois.image.tolist(), rois.channel.tolist(), edges, strict=True):
        true = torch.from_numpy(objects[image][channel])
        if len(true):
            found.append(float(box_iou(box[None], true).max()))
    return torch.tensor(sum(found) / len(found) if found else torch.nan, device=rois.distances.device)
