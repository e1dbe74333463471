# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""L-SNet: localization, RoI recalibration, and segmentation of every RoI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.finite import require_finite
from segan_monai.networks.localization import CoarseLocalizer, LocalizationNet, RoIs
from segan_monai.networks.roi_recalibration import (
    crop_affine,
    inverse_affine,
    merge_rois,
    resample,
    roi_affine,
    sample_affine,
    samples_per_pixel,
)

__all__ = ["CoarseLocalizer", "LSNet", "LocalizationNet", "RoIs"]

_OF_INPUT = (0, 0)  # TorchScript cannot compile an empty list or a list that is None
# boxes at inference: shifts in x and y, relative to the box
_SHIFTS = ([0.0, 0.0], [-0.1, -0.1], [0.1, 0.1], [0.1, -0.1], [-0.1, 0.1])


class LSNet(nn.Module):
    """Localize, recalibrate, segment, and put the masks back in place (L-SNet, sections 2 and 2.5).

    The segmentor runs once on all RoIs of a batch of slices; slices without RoI never reach it. From a RoI of one
    class, only that class is put back [ours]. RoIs of one class in one image are merged by their maximum.

    The localizer may see a smaller image: RoIs are cut from the network's own input, with the same affines, and masks
    are put back there. A RoI then shows the segmentor detail that the localizer has not seen.

    At inference, the mask of a RoI may be the mean over shifted boxes and over a mirrored RoI [ours].

    Args:
        localizer: ``LocalizationNet``, or ``CoarseLocalizer`` for the coarse-to-fine baseline.
        segmentor: recalibrated RoIs (N, C, h, w) to logits (N, K, h, w).
        num_classes: K.
        margin: pixels of the input added around a RoI (paper: 15, of 512).
        hard_crop: round RoIs to whole pixels, without gradient, as in coarse-to-fine models.
        localizer_size: rows and columns to which the input is resampled for the localizer; None for the input's.
        roi_size: rows and columns of a recalibrated RoI; None for those of the input.
        test_boxes: boxes per RoI at inference, 1 to 5: the predicted one, then shifted along its diagonals by a tenth
            of its size.
        mirror_rois: whether ``LSNetTrainer`` mirrors half of the RoIs left to right, and inference takes the mean of
            both.

    Raises:
        ConfigError: if ``test_boxes`` is out of range.

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
        localizer_size: Sequence[int] | None = None,
        roi_size: Sequence[int] | None = None,
        test_boxes: int = 1,
        mirror_rois: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= test_boxes <= len(_SHIFTS):
            raise ConfigError(f"test_boxes is {test_boxes}; expected 1 (the predicted box) to {len(_SHIFTS)}.")
        self.localizer: Any = localizer
        self.segmentor = segmentor
        self.num_classes = num_classes
        self.margin = float(margin)  # TorchScript tells 15 from 15.0
        self.hard_crop = hard_crop
        self.localizer_size = [int(length) for length in localizer_size or _OF_INPUT]
        self.roi_size = [int(length) for length in roi_size or _OF_INPUT]
        self.shifts = list(_SHIFTS[:test_boxes])
        self.mirror_rois = mirror_rois

    def affine(self, rois: RoIs, size: Sequence[int]) -> Tensor:
        """Return the affine of each RoI, (N, 2, 3); see ``roi_affine`` and ``crop_affine``."""
        return self._affine(rois.keypoints, rois.distances.float(), list(size))

    def _affine(self, keypoints: Tensor, distances: Tensor, size: list[int]) -> Tensor:
        if self.hard_crop:
            return crop_affine(keypoints, distances, size, self.margin)
        return roi_affine(keypoints, distances, size, self.margin)

    def localizer_input(self, x: Tensor) -> Tensor:
        """Return images (B, C, H, W) as the localizer sees them, averaged over areas to ``localizer_size``."""
        return resample(x, self.localizer_size) if self.localizer_size[0] else x

    def recalibrate(self, x: Tensor, theta: Tensor) -> Tensor:
        """Cut RoIs (N, C, *roi_size) from images (N, C, H, W) with affines (N, 2, 3)."""
        if self.roi_size[0] == 0:
            return sample_affine(x, theta)
        return sample_affine(x, theta, self.roi_size, samples_per_pixel([x.shape[2], x.shape[3]], self.roi_size))

    def in_input(self, rois: RoIs, size: Sequence[int]) -> RoIs:
        """Convert RoIs in pixels of the localizer's image to pixels of the input, of H and W ``size``."""
        keypoints, distances = self._in_input(rois.keypoints, rois.distances, list(size))
        return rois._replace(keypoints=keypoints, distances=distances)

    def _in_input(self, keypoints: Tensor, distances: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
        if self.localizer_size[0] == 0:
            return keypoints, distances
        x, y = size[1] / self.localizer_size[1], size[0] / self.localizer_size[0]
        return _scaled(keypoints, x, y), torch.cat([distances[:, :2] * x, distances[:, 2:] * y], dim=1)

    def locate(self, x: Tensor) -> RoIs:
        """Find the RoIs of images (B, C, H, W), in their pixels.

        Raises:
            NonFiniteOutputError: a heatmap or distance is NaN or infinite, and would be mistaken for no RoI.
        """
        found = self.localizer(self.localizer_input(x))
        for part in found if isinstance(found, tuple) else (found,):
            require_finite(part, "localization network")
        return self.in_input(self.localizer.find_rois(found), x.shape[2:])

    def forward(self, x: Tensor, rois: RoIs | None = None) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H, W) of the merged probabilities; about -14 outside RoIs.

        During export (TorchScript, ONNX, torch.export) the segmentor processes exactly ``max_rois`` RoIs per class and
        image, found or not, so that the graph has no branch. The result is the same.

        Args:
            x: the images.
            rois: known RoIs, in pixels of x; by default they are located.
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
            placed, flaw = self._placed(x[rois.image], rois.keypoints, rois.distances.float(), rois.channel)
            require_finite(flaw, "segmentation network")
            merged = merge_rois(placed, rois.image * self.num_classes + rois.channel, len(merged))
        return torch.logit(merged.unflatten(0, (len(x), self.num_classes)), eps=self.nothing)

    def _fixed(self, x: Tensor) -> Tensor:
        found = self.localizer(self.localizer_input(x))
        keypoints, distances, scores = self.localizer.fixed_rois(found)
        classes, most = scores.shape[1], scores.shape[2]
        size = [x.shape[2], x.shape[3]]
        keypoints, distances = self._in_input(keypoints.flatten(0, 2), distances.float().flatten(0, 2), size)
        channel = torch.arange(classes, device=x.device).repeat_interleave(most).repeat(x.shape[0])
        images = x.repeat_interleave(classes * most, dim=0)
        placed, of_roi = self._placed(images, keypoints, distances, channel)
        placed = placed * (scores.flatten() > 0).reshape(-1, 1, 1)
        merged = placed.reshape(-1, classes, most, size[0], size[1]).amax(2)
        # An exported graph cannot raise: where a network's output is not finite, the whole image becomes NaN.
        flaw = _flaw(found[0]) + _flaw(found[1])
        of_roi = torch.where(scores.flatten() > 0, of_roi, torch.zeros_like(scores.flatten()))
        flaw = flaw + of_roi.reshape(-1, classes * most).sum(1)
        return torch.logit(merged, eps=self.nothing) + flaw.reshape(-1, 1, 1, 1)

    def _placed(self, images: Tensor, keypoints: Tensor, distances: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
        """Segment one RoI in each of N images, and put its class back in place.

        Returns:
            Probabilities (N, H, W), and (N,): 0, or NaN if a logit of the RoI is not finite.
        """
        size = [images.shape[2], images.shape[3]]
        length = torch.stack([distances[:, 0] + distances[:, 1], distances[:, 2] + distances[:, 3]], dim=1)
        total = torch.zeros([images.shape[0], 1, size[0], size[1]], dtype=torch.float32, device=images.device)
        flaw = torch.zeros([images.shape[0]], dtype=torch.float32, device=images.device)
        for shift in self.shifts:
            theta = self._affine(keypoints + _scaled(length, shift[0], shift[1]), distances, size)
            roi = self.recalibrate(images, theta)
            own, bad = self._segmented(roi, channel)
            flaw = flaw + bad
            if self.mirror_rois:
                mirrored, bad = self._segmented(roi.flip(3), channel)
                own, flaw = (own + mirrored.flip(3)) / 2, flaw + bad
            total = total + sample_affine(own, inverse_affine(theta), size)
        return (total / len(self.shifts)).squeeze(1), flaw

    def _segmented(self, roi: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities of one class in each of N RoIs, (N, 1, h, w), and the flaw of all logits, (N,)."""
        logits = self.segmentor(roi)
        where = channel.reshape(-1, 1, 1, 1).expand(-1, 1, roi.shape[2], roi.shape[3])
        return logits.gather(1, where).float().sigmoid(), _flaw(logits)


def _scaled(pairs: Tensor, x: float, y: float) -> Tensor:
    """Multiply the columns of (N, 2)."""
    return torch.stack([pairs[:, 0] * x, pairs[:, 1] * y], dim=1)


def _flaw(output: Tensor) -> Tensor:
    """Return (N,): 0 for each of (N, ...) whose values are finite, else NaN."""
    return (output - output).float().flatten(1).sum(1)
