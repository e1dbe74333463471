# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses of localization networks: Xie et al. (2021), Section 2.5, Eq. 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.losses.known_pixels import loss_of_known_pixels
from segan_monai.networks.keypoints import keypoint_targets, smallest_sigma
from segan_monai.networks.roi_recalibration import resample


def distance_iou(found: Tensor, true: Tensor) -> Tensor:
    """Compute the DIoU loss of boxes given as distances from a common point: Zheng et al. (2020).

    ``1 - IoU + d^2 / c^2``, where d is the distance between the centres and c the diagonal of the smallest box that
    encloses both.

    Args:
        found: (..., 4), distances to the left, right, top and bottom edge of the predicted box.
        true: (..., 4), the same for the true box; negative where the point is beyond an edge.

    Returns:
        Loss (...), 0 to 2.

    Examples:
        >>> distance_iou(torch.tensor([1.0, 1, 1, 1]), torch.tensor([1.0, 3, 1, 1]))
        tensor(0.5500)
    """

    def lengths(sides: Tensor) -> Tensor:
        return torch.stack([sides[..., 0] + sides[..., 1], sides[..., 2] + sides[..., 3]], dim=-1)

    common = lengths(torch.minimum(found, true)).clamp(min=0).prod(dim=-1)
    union = lengths(found).prod(dim=-1) + lengths(true).prod(dim=-1) - common
    diagonal = lengths(torch.maximum(found, true)).square().sum(dim=-1)
    offset = torch.stack([found[..., 1] - found[..., 0], found[..., 3] - found[..., 2]], dim=-1)
    true_offset = torch.stack([true[..., 1] - true[..., 0], true[..., 3] - true[..., 2]], dim=-1)
    distance = ((offset - true_offset) / 2).square().sum(dim=-1)
    return 1 - common / union.clamp(min=1e-6) + distance / diagonal.clamp(min=1e-6)


class LocalizationLoss(nn.Module):
    """Loss of a ``LocalizationNet``: a heatmap term, and a box term where the target heat exceeds a threshold.

    A network with coarse masks has a third term, ``coarse_mask``, whose target is the label, averaged
    to the grid [ours].

    Args:
        map_loss: loss of heatmap logits and target (B, K, h, w). The paper uses focal + 0.2 Dice, as
            ``DiceQualityFocalLoss(lambda_dice=0.2)``.
        sigma: standard deviation of the target's Gaussian, in pixels of the network's input.
        stride: stride of the network's grid, in pixels of its input.
        threshold: positions with a target heat above this contribute to the box term (paper: 0.5).
        size: rows and columns of the network's input; by default those of the label.
        mask_weight: weight of the coarse masks, if the network predicts them.

    Raises:
        ConfigError: if ``sigma`` is so small that an object between grid positions may get no position above 0.5.
    """

    def __init__(
        self,
        map_loss: Callable[[Tensor, Tensor], Tensor],
        sigma: float,
        stride: int = 4,
        threshold: float = 0.5,
        size: Sequence[int] | None = None,
        mask_weight: float = 5.0,
    ) -> None:
        super().__init__()
        if sigma < smallest_sigma(stride):
            raise ConfigError(
                f"sigma is {sigma:g} pixels; expected at least {smallest_sigma(stride):.3g} for a grid of stride "
                f"{stride}, so that the heat of every object exceeds 0.5 at some grid position."
            )
        self.map_loss = map_loss
        self.sigma, self.stride, self.threshold = sigma, stride, threshold
        self.size = tuple(size) if size else None
        self.mask_weight = mask_weight

    def forward(self, found: tuple[Tensor, Tensor], label: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
        """Return the scalar terms ``heatmap``, ``box`` and, with coarse masks, ``coarse_mask``.

        ``box`` is 0 if the batch contains no object.

        Args:
            found: heatmap logits (B, K, h, w), or (B, 2 K, h, w) with those of coarse masks, and distances
                (B, K, 4, h, w) in pixels of the network's input.
            label: (B, K, H, W), 0 or 1.
            known: (B, K, H, W), 1 where the label is known, see ``of_whole_objects``; None if it is known everywhere.
                A position counts if most of its pixels are known.
        """
        logits, distances = found
        logits, masks = logits.split([label.shape[1], logits.shape[1] - label.shape[1]], dim=1)
        heat, true = keypoint_targets(label, self.stride, self.sigma, self.size)
        seen = None if known is None else resample(known.float(), list(heat.shape[2:]))
        near = heat > self.threshold if seen is None else (heat > self.threshold) & (seen > 0.5)
        boxes, true_boxes = distances.float().movedim(2, -1)[near], true.movedim(2, -1)[near]
        box = distance_iou(boxes, true_boxes).mean() if len(boxes) else distances.float().sum() * 0
        terms = {"heatmap": loss_of_known_pixels(self.map_loss, logits.float(), heat, seen), "box": box}
        if masks.shape[1]:
            target = resample(label.float(), list(masks.shape[2:]))
            terms["coarse_mask"] = self.mask_weight * loss_of_known_pixels(self.map_loss, masks.float(), target, seen)
        return terms


class CoarseSegmentationLoss(nn.Module):
    """Loss of a ``CoarseLocalizer``: a mask term.

    Args:
        map_loss: loss of logits and label, both (B, K, h, w).
    """

    def __init__(self, map_loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.map_loss = map_loss

    def forward(self, logits: Tensor, label: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
        """Return the term ``coarse_mask``, a scalar.

        Args:
            logits: (B, K, h, w).
            label: (B, K, H, W), 0 or 1; resampled to the size of the logits and rounded.
            known: (B, K, H, W), 1 where the label is known; None if it is known everywhere.
        """
        size = list(logits.shape[2:])
        seen = None if known is None else resample(known.float(), size)
        label = resample(label, size).round()
        return {"coarse_mask": loss_of_known_pixels(self.map_loss, logits.float(), label, seen)}
