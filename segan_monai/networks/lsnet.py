# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""L-SNet: localization, RoI recalibration, and segmentation of every RoI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segan_monai.finite import require_finite
from segan_monai.networks.localization import CoarseLocalizer, LocalizationNet, RoIs
from segan_monai.networks.roi_recalibration import (
    crop_affine,
    inverse_affine,
    merge_rois,
    roi_affine,
    sample_affine,
)

__all__ = ["CoarseLocalizer", "LSNet", "LocalizationNet", "RoIs"]


class LSNet(nn.Module):
    """Localize, recalibrate, segment, and put the masks back in place (L-SNet, sections 2 and 2.5).

    The segmentor runs once on all RoIs of a batch of slices; slices without RoI never reach it. From a RoI of one
    class, only that class is put back [ours]. RoIs of one class in one image are merged by their maximum.

    Args:
        localizer: ``LocalizationNet``, or ``CoarseLocalizer`` for the coarse-to-fine baseline.
        segmentor: recalibrated RoIs (N, C, H, W) to logits (N, K, H, W).
        num_classes: K.
        margin: pixels added around a RoI (paper: 15, of 512).
        hard_crop: round RoIs to whole pixels, without gradient, as in coarse-to-fine models.

    Examples:
        >>> network = LSNet(LocalizationNet(1, 2, base_channels=8), ResNetSegmentor(1, 2, base_channels=8), 2)
        >>> network.eval()(torch.zeros(3, 1, 64, 96)).shape
        torch.Size([3, 2, 64, 96])
    """

    nothing = 1e-6  # probability where there is no RoI
    __constants__ = ("nothing",)

    def __init__(
        self,
        localizer: nn.Module,
        segmentor: nn.Module,
        num_classes: int,
        margin: float = 15.0,
        hard_crop: bool = False,
    ) -> None:
        super().__init__()
        self.localizer: Any = localizer
        self.segmentor = segmentor
        self.num_classes = num_classes
        self.margin = margin
        self.hard_crop = hard_crop

    def affine(self, rois: RoIs, size: Sequence[int]) -> Tensor:
        """Return the affine of each RoI, (N, 2, 3); see ``roi_affine`` and ``crop_affine``."""
        return self._affine(rois.keypoints, rois.distances.float(), list(size))

    def _affine(self, keypoints: Tensor, distances: Tensor, size: list[int]) -> Tensor:
        if self.hard_crop:
            return crop_affine(keypoints, distances, size, self.margin)
        return roi_affine(keypoints, distances, size, self.margin)

    def locate(self, x: Tensor) -> RoIs:
        """Find the RoIs of images (B, C, H, W).

        Raises:
            NonFiniteOutputError: a heatmap or distance is NaN or infinite, and would be mistaken for no RoI.
        """
        found = self.localizer(x)
        for part in found if isinstance(found, tuple) else (found,):
            require_finite(part, "localization network")
        return self.localizer.find_rois(found)

    def forward(self, x: Tensor, rois: RoIs | None = None) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H, W) of the merged probabilities; about -14 outside RoIs.

        During export (TorchScript, ONNX, torch.export) the segmentor processes exactly ``max_rois`` RoIs per class and
        image, found or not, so that the graph has no branch. The result is the same.

        Args:
            x: the images.
            rois: known RoIs; by default they are located.
        """
        if torch.jit.is_scripting():
            return self._fixed(x)
        else:  # an explicit else, because TorchScript then omits this branch
            if torch.jit.is_tracing() or torch.compiler.is_exporting():
                return self._fixed(x)
            return self._found(x, self.locate(x) if rois is None else rois)

    def _found(self, x: Tensor, rois: RoIs) -> Tensor:
        size = x.shape[2:]
        merged = x.new_zeros(len(x) * self.num_classes, *size, dtype=torch.float32)
        if len(rois.image):
            theta = self.affine(rois, size)
            logits = self.segmentor(sample_affine(x[rois.image], theta))
            require_finite(logits, "segmentation network")
            own = logits[torch.arange(len(logits), device=x.device), rois.channel].float().sigmoid()
            placed = sample_affine(own.unsqueeze(1), inverse_affine(theta)).squeeze(1)
            merged = merge_rois(placed, rois.image * self.num_classes + rois.channel, len(merged))
        return torch.logit(merged.unflatten(0, (len(x), self.num_classes)), eps=self.nothing)

    def _fixed(self, x: Tensor) -> Tensor:
        found = self.localizer(x)
        keypoints, distances, scores = self.localizer.fixed_rois(found)
        classes, most = scores.shape[1], scores.shape[2]
        size = [x.shape[2], x.shape[3]]
        theta = self._affine(keypoints.flatten(0, 2), distances.float().flatten(0, 2), size)
        logits = self.segmentor(sample_affine(x.repeat_interleave(classes * most, dim=0), theta))
        channel = torch.arange(classes, device=x.device).repeat_interleave(most).repeat(x.shape[0])
        own = logits.gather(1, channel.reshape(-1, 1, 1, 1).expand(-1, 1, size[0], size[1])).float().sigmoid()
        placed = sample_affine(own, inverse_affine(theta)) * (scores.flatten() > 0).reshape(-1, 1, 1, 1)
        merged = placed.reshape(-1, classes, most, size[0], size[1]).amax(2)
        # An exported graph cannot raise: where a network's output is not finite, the whole image becomes NaN.
        flaw = _flaw(found[0]) + _flaw(found[1])
        of_roi = torch.where(scores.flatten() > 0, _flaw(logits), torch.zeros_like(scores.flatten()))
        flaw = flaw + of_roi.reshape(-1, classes * most).sum(1)
        return torch.logit(merged, eps=self.nothing) + flaw.reshape(-1, 1, 1, 1)


def _flaw(output: Tensor) -> Tensor:
    """Return (N,): 0 for each of (N, ...) whose values are finite, else NaN."""
    return (output - output).float().flatten(1).sum(1)
