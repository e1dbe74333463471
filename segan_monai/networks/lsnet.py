# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""L-SNet: a localization network, RoI recalibration, and a segmentation network on every RoI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.finite import require_finite
from segan_monai.networks.keypoints import component_peaks, heatmap_peaks
from segan_monai.networks.resnet_pyramid import ResNetPyramid
from segan_monai.networks.roi_recalibration import (
    box_edges,
    crop_affine,
    inverse_affine,
    merge_rois,
    roi_affine,
    sample_affine,
)


class RoIs(NamedTuple):
    """N regions of interest in a batch of images; coordinates as in `segan_monai.networks.roi_recalibration`.

    Attributes:
        image: (N,) which image of the batch.
        channel: (N,) which class.
        keypoints: (N, 2) x and y, in pixels.
        distances: (N, 4) left, right, top, bottom, in pixels.
        scores: (N,) 0 to 1.
    """

    image: Tensor
    channel: Tensor
    keypoints: Tensor
    distances: Tensor
    scores: Tensor

    def edges(self) -> Tensor:
        """Return the boxes without margin: (N, 4) left, top, right and bottom edge, in pixels."""
        return box_edges(self.keypoints, self.distances)


class LocalizationNet(nn.Module):
    """L-Net: finds objects as keypoints of a heatmap and their boxes by distances (L-SNet, section 2.1).

    Every class has a heatmap and four distances of its own [ours; the paper has one class]. Distances are
    ``size * softplus(. / 13)``, positive by construction and independent of the image's size [ours]; divided by the
    side of the last kernel, since one step of Adam moves a sum over so many weights that boxes would vanish at once.

    Args:
        in_channels: image channels C.
        num_classes: K.
        depth: of the ResNet, 18 or 34 (paper: 18).
        base_channels: width of its first level.
        structure: ``unet`` or ``fcn``.
        threshold: of the heatmap at inference (paper: 0.5).
        max_rois: objects of a class kept in an image at inference [ours].
        candidates: a training RoI is drawn among so many most probable positions (paper: 3).
        prior: initial value of the heatmap, which is nearly everywhere 0 [ours].
        weights: see `ResNetEncoderLevels`.

    Examples:
        >>> heatmap, distances = LocalizationNet(1, 2, base_channels=8)(torch.zeros(3, 1, 64, 96))
        >>> heatmap.shape, distances.shape
        (torch.Size([3, 2, 16, 24]), torch.Size([3, 2, 4, 16, 24]))
    """

    stride = 4
    box_kernel = 13  # paper: side of the last convolution of the box head
    __constants__ = ("box_kernel", "stride")

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        depth: int = 18,
        base_channels: int = 64,
        structure: str = "unet",
        threshold: float = 0.5,
        max_rois: int = 8,
        candidates: int = 3,
        prior: float = 0.05,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        if not 0 < threshold < 1 or max_rois < 1 or candidates < 1:
            raise ConfigError(
                f"threshold {threshold}, max_rois {max_rois}, candidates {candidates}; expected a threshold between 0 "
                "and 1 and at least one RoI and candidate."
            )
        self.threshold, self.max_rois, self.candidates = threshold, max_rois, candidates
        self.pyramid = ResNetPyramid(in_channels, depth, base_channels, structure, self.stride, weights)
        width = self.pyramid.out_channels

        def convolution() -> list[nn.Module]:
            return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]

        self.keypoint_head = nn.Sequential(*convolution(), nn.Conv2d(width, num_classes, 1))
        self.box_head = nn.Sequential(
            *convolution(),
            *convolution(),
            nn.Conv2d(width, 4 * num_classes, self.box_kernel, padding=self.box_kernel // 2),
        )
        nn.init.constant_(self.keypoint_head[-1].bias, math.log(prior / (1 - prior)))  # type: ignore[arg-type]
        # boxes begin as an eighth of the image wide and high
        nn.init.constant_(self.box_head[-1].bias, self.box_kernel * math.log(math.expm1(1 / 16)))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W) to heatmap logits (B, K, h, w) and distances in pixels (B, K, 4, h, w), h = H / 4."""
        features = self.pyramid(x)
        heatmap = self.keypoint_head(features)
        relative = F.softplus(self.box_head(features).float() / self.box_kernel).unflatten(1, (-1, 4))
        distances = torch.cat([relative[:, :, :2] * x.shape[3], relative[:, :, 2:] * x.shape[2]], dim=2)
        return heatmap, distances

    def find_rois(self, found: tuple[Tensor, Tensor]) -> RoIs:
        """The RoIs of a batch at inference: a keypoint for each connected component of the heatmap."""
        heatmap, distances = found
        heat = heatmap.detach().float().sigmoid().cpu().numpy()
        rows = [
            (image, channel, row, column, score)
            for image, of_image in enumerate(heat)
            for channel, of_class in enumerate(of_image)
            for score, row, column in heatmap_peaks(of_class, self.threshold, self.max_rois)
        ]
        index = torch.tensor([row[:4] for row in rows], dtype=torch.long, device=distances.device).reshape(-1, 4)
        scores = torch.tensor([row[4] for row in rows], device=distances.device)
        return self._at(distances, index, scores)

    def draw_rois(self, found: tuple[Tensor, Tensor]) -> RoIs:
        """A RoI for each image in training: one of its most probable positions at random (L-SNet, section 2.5)."""
        heatmap, distances = found
        flat = heatmap.detach().float().sigmoid().flatten(1)
        scores, positions = flat.topk(min(self.candidates, flat.shape[1]))
        chosen = torch.randint(scores.shape[1], (len(flat), 1)).to(flat.device)
        position = positions.gather(1, chosen).squeeze(1)
        height, width = heatmap.shape[2:]
        image = torch.arange(len(flat), device=flat.device)
        parts = [image, position // (height * width), position // width % height, position % width]
        return self._at(distances, torch.stack(parts, dim=1), scores.gather(1, chosen).squeeze(1))

    def _at(self, distances: Tensor, index: Tensor, scores: Tensor) -> RoIs:
        """RoIs at positions (N, 4) of image, class, row and column."""
        image, channel, row, column = index.unbind(1)
        keypoints = torch.stack([column, row], dim=1) * self.stride + self.stride / 2
        return RoIs(image, channel, keypoints.float(), distances[image, channel, :, row, column], scores)

    def fixed_rois(self, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What `find_rois` finds, as exactly `max_rois` RoIs a class and image, for exported networks.

        Returns:
            Keypoints (B, K, R, 2), distances (B, K, R, 4), and scores (B, K, R): 0 where there are fewer RoIs.
        """
        heatmap, distances = found
        scores, row, column = component_peaks(heatmap.float().sigmoid(), self.threshold, self.max_rois)
        keypoints = torch.stack([column, row], dim=-1) * self.stride + self.stride / 2
        where = (row * heatmap.shape[-1] + column).unsqueeze(2).expand(-1, -1, 4, -1)
        return keypoints.float(), distances.flatten(3).gather(3, where).transpose(2, 3), scores


class CoarseLocalizer(nn.Module):
    """First stage of the coarse-to-fine baseline: a segmentation whose box is the RoI (L-SNet, section 3.2).

    One box a class and image, around all of the mask. In training the RoI is, as at inference, the box of the
    predicted mask, of a class that has one, or else the whole image [ours].

    Args:
        network: images (B, C, H, W) to logits (B, K, H, W).
        threshold: of the mask.
    """

    def __init__(self, network: nn.Module, threshold: float = 0.5) -> None:
        super().__init__()
        self.network = network
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H, W)."""
        return self.network(x)

    def find_rois(self, found: Tensor) -> RoIs:
        """The RoIs of a batch: the box of each mask that is not empty."""
        probabilities = found.detach().float().sigmoid()
        mask = probabilities >= self.threshold
        image, channel = mask.flatten(2).any(dim=2).nonzero(as_tuple=True)
        mask = mask[image, channel]
        (x0, x1), (y0, y1) = _extent(mask.any(dim=1)), _extent(mask.any(dim=2))
        scores = probabilities[image, channel].flatten(1).amax(dim=1) if len(image) else probabilities.new_zeros(0)
        return _from_edges(image, channel, x0, x1, y0, y1, scores)

    def draw_rois(self, found: Tensor) -> RoIs:
        """A RoI for each image in training."""
        rois = self.find_rois(found)
        (count, _, height, width), device = found.shape, found.device
        zero, one = torch.zeros(count, device=device), torch.ones(count, device=device)
        image = torch.arange(count, device=device)
        whole = _from_edges(image, image * 0, zero, one * width, zero, one * height, zero)
        order = torch.randperm(len(rois.image)).to(device)  # of several classes any may come last
        for all_images, found_part in zip(whole, rois, strict=True):
            all_images[rois.image[order]] = found_part[order]
        return whole


def _extent(used: Tensor) -> tuple[Tensor, Tensor]:
    """First and last + 1 position of what is used, of (N, L)."""
    number = used.float()
    return number.argmax(dim=1).float(), used.shape[1] - number.flip(1).argmax(dim=1).float()


def _from_edges(image: Tensor, channel: Tensor, x0: Tensor, x1: Tensor, y0: Tensor, y1: Tensor, scores: Tensor) -> RoIs:
    half = torch.stack([(x1 - x0) / 2, (x1 - x0) / 2, (y1 - y0) / 2, (y1 - y0) / 2], dim=1)
    return RoIs(image, channel, torch.stack([(x0 + x1) / 2, (y0 + y1) / 2], dim=1), half, scores)


class LSNet(nn.Module):
    """Localize, recalibrate, segment, and put the masks back in place (L-SNet, sections 2 and 2.5).

    The segmentor runs once on all RoIs of a batch of slices; slices without RoI never reach it. Of a RoI of a class
    only that class is put back [ours]; RoIs of one class in one image are merged by their maximum.

    Args:
        localizer: `LocalizationNet`, or `CoarseLocalizer` for the coarse-to-fine baseline.
        segmentor: recalibrated RoIs (N, C, H, W) to logits (N, K, H, W).
        num_classes: K.
        margin: pixels added around a RoI (paper: 15, of 512).
        hard_crop: round RoIs to whole pixels, without gradient, as coarse-to-fine models do.

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
        """Affine of each RoI, (N, 2, 3); see `roi_affine` and `crop_affine`."""
        return self._affine(rois.keypoints, rois.distances.float(), list(size))

    def _affine(self, keypoints: Tensor, distances: Tensor, size: list[int]) -> Tensor:
        if self.hard_crop:
            return crop_affine(keypoints, distances, size, self.margin)
        return roi_affine(keypoints, distances, size, self.margin)

    def locate(self, x: Tensor) -> RoIs:
        """Find the RoIs of images (B, C, H, W).

        Raises:
            NonFiniteOutputError: a heatmap or distance is NaN or infinite, which would look like no RoI.
        """
        found = self.localizer(x)
        for part in found if isinstance(found, tuple) else (found,):
            require_finite(part, "localization network")
        return self.localizer.find_rois(found)

    def forward(self, x: Tensor, rois: RoIs | None = None) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H, W) of the merged probabilities; about -14 outside RoIs.

        In a network that is being exported (TorchScript, ONNX, torch.export) the segmentor sees exactly `max_rois` RoIs
        of every class and image, found or not, so that its graph has no branch; the result is the same.

        Args:
            x: the images.
            rois: where to look, if known; by default they are found.
        """
        if torch.jit.is_scripting():
            return self._fixed(x)
        else:  # TorchScript leaves this branch out, if it is one
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
        # no error can be raised here: an image for which a network's output is not finite becomes NaN throughout
        flaw = _flaw(found[0]) + _flaw(found[1])
        of_roi = torch.where(scores.flatten() > 0, _flaw(logits), torch.zeros_like(scores.flatten()))
        flaw = flaw + of_roi.reshape(-1, classes * most).sum(1)
        return torch.logit(merged, eps=self.nothing) + flaw.reshape(-1, 1, 1, 1)


def _flaw(output: Tensor) -> Tensor:
    """0 for each of (N, ...) whose values are finite, else NaN."""
    return (output - output).float().flatten(1).sum(1)
