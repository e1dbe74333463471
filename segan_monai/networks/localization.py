# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""First stages of L-SNet: networks that locate regions of interest (RoIs)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.networks.keypoints import component_peaks, heatmap_peaks
from segan_monai.networks.resnet_pyramid import ResNetPyramid
from segan_monai.networks.roi_recalibration import box_edges


class RoIs(NamedTuple):
    """N regions of interest in a batch of images.

    Coordinates are those of ``segan_monai.networks.roi_recalibration``.

    Attributes:
        image: (N,) index of the image in the batch.
        channel: (N,) index of the class.
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

    Every class has its own heatmap and four distances [ours; the paper has one class]. Distances are
    ``size * softplus(. / 13)``: positive by construction and independent of the image size [ours]. The divisor is the
    side of the last kernel. Without it, one step of Adam over that many weights would make boxes vanish.

    Args:
        in_channels: image channels C.
        num_classes: K.
        depth: depth of the ResNet, 18 or 34 (paper: 18).
        base_channels: width of the first level.
        structure: ``unet`` or ``fcn``.
        threshold: threshold of the heatmap at inference (paper: 0.5).
        max_rois: most objects per class and image at inference [ours].
        candidates: number of most probable positions from which a training RoI is drawn (paper: 3).
        prior: initial value of the heatmap, whose targets are nearly all 0 [ours].
        masks: whether the network also predicts coarse masks, K further channels after those of the heatmap [ours].
            Only ``LocalizationLoss`` reads them: every pixel of an object then teaches the features, not its centre
            and edges alone.
        weights: see ``ResNetEncoderLevels``.

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
        masks: bool = False,
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

        self.keypoint_head = nn.Sequential(*convolution(), nn.Conv2d(width, (1 + masks) * num_classes, 1))
        self.box_head = nn.Sequential(
            *convolution(),
            *convolution(),
            nn.Conv2d(width, 4 * num_classes, self.box_kernel, padding=self.box_kernel // 2),
        )
        nn.init.constant_(self.keypoint_head[-1].bias, math.log(prior / (1 - prior)))  # type: ignore[arg-type]
        # boxes start with an eighth of the image's width and height
        nn.init.constant_(self.box_head[-1].bias, self.box_kernel * math.log(math.expm1(1 / 16)))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W) to heatmap logits (B, K, h, w) and distances in pixels (B, K, 4, h, w), h = H / 4.

        With ``masks``, the logits of coarse masks follow those of the heatmap: (B, 2 K, h, w).
        """
        features = self.pyramid(x)
        heatmap = self.keypoint_head(features)
        relative = F.softplus(self.box_head(features).float() / self.box_kernel).unflatten(1, (-1, 4))
        distances = torch.cat([relative[:, :, :2] * x.shape[3], relative[:, :, 2:] * x.shape[2]], dim=2)
        return heatmap, distances

    def find_rois(self, found: tuple[Tensor, Tensor]) -> RoIs:
        """Return the RoIs of a batch at inference: one keypoint per connected component of the heatmap."""
        heatmap, distances = found
        heat = heatmap[:, : distances.shape[1]].detach().float().sigmoid().cpu().numpy()
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
        """Draw one training RoI per image from its most probable positions (L-SNet, section 2.5)."""
        heatmap, distances = found
        flat = heatmap[:, : distances.shape[1]].detach().float().sigmoid().flatten(1)
        scores, positions = flat.topk(min(self.candidates, flat.shape[1]))
        chosen = torch.randint(scores.shape[1], (len(flat), 1)).to(flat.device)
        position = positions.gather(1, chosen).squeeze(1)
        height, width = heatmap.shape[2:]
        image = torch.arange(len(flat), device=flat.device)
        parts = [image, position // (height * width), position // width % height, position % width]
        return self._at(distances, torch.stack(parts, dim=1), scores.gather(1, chosen).squeeze(1))

    def _at(self, distances: Tensor, index: Tensor, scores: Tensor) -> RoIs:
        """Return the RoIs at positions (N, 4) of image, class, row and column."""
        image, channel, row, column = index.unbind(1)
        keypoints = torch.stack([column, row], dim=1) * self.stride + self.stride / 2
        return RoIs(image, channel, keypoints.float(), distances[image, channel, :, row, column], scores)

    def fixed_rois(self, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the RoIs of ``find_rois`` as exactly ``max_rois`` per class and image, for exported networks.

        Returns:
            Keypoints (B, K, R, 2), distances (B, K, R, 4), and scores (B, K, R), 0 for padding.
        """
        heatmap, distances = found
        scores, row, column = component_peaks(
            heatmap[:, : distances.shape[1]].float().sigmoid(), self.threshold, self.max_rois
        )
        keypoints = torch.stack([column, row], dim=-1) * self.stride + self.stride / 2
        where = (row * heatmap.shape[-1] + column).unsqueeze(2).expand(-1, -1, 4, -1)
        return keypoints.float(), distances.flatten(3).gather(3, where).transpose(2, 3), scores


class CoarseLocalizer(nn.Module):
    """First stage of the coarse-to-fine baseline: a segmentation whose bounding box is the RoI (L-SNet, section 3.2).

    There is one box per class and image, around the whole mask. In training, the RoI is the box of a class with a
    predicted mask, or the whole image if there is none [ours].

    Args:
        network: images (B, C, H, W) to logits (B, K, H, W).
        threshold: threshold of the mask.
    """

    def __init__(self, network: nn.Module, threshold: float = 0.5) -> None:
        super().__init__()
        self.network = network
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H, W)."""
        return self.network(x)

    def find_rois(self, found: Tensor) -> RoIs:
        """Return the RoIs of a batch: the box of each mask that is not empty."""
        probabilities = found.detach().float().sigmoid()
        mask = probabilities >= self.threshold
        image, channel = mask.flatten(2).any(dim=2).nonzero(as_tuple=True)
        mask = mask[image, channel]
        (x0, x1), (y0, y1) = _extent(mask.any(dim=1)), _extent(mask.any(dim=2))
        scores = probabilities[image, channel].flatten(1).amax(dim=1) if len(image) else probabilities.new_zeros(0)
        return from_edges(image, channel, x0, x1, y0, y1, scores)

    def draw_rois(self, found: Tensor) -> RoIs:
        """Draw one training RoI per image."""
        rois = self.find_rois(found)
        (count, _, height, width), device = found.shape, found.device
        zero, one = torch.zeros(count, device=device), torch.ones(count, device=device)
        image = torch.arange(count, device=device)
        whole = from_edges(image, image * 0, zero, one * width, zero, one * height, zero)
        # of several classes, that of the highest rank: a GPU would write repeated indices in an undefined order
        rank = torch.randperm(len(rois.image)).argsort().to(device)
        highest = torch.full_like(image, -1).scatter_reduce(0, rois.image, rank, "amax")
        drawn = (rank == highest[rois.image]).nonzero().squeeze(1)
        for all_images, found_part in zip(whole, rois, strict=True):
            all_images[rois.image[drawn]] = found_part[drawn]
        return whole


def _extent(used: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the last + 1 position of True in each row of (N, L)."""
    number = used.float()
    return number.argmax(dim=1).float(), used.shape[1] - number.flip(1).argmax(dim=1).float()


def from_edges(image: Tensor, channel: Tensor, x0: Tensor, x1: Tensor, y0: Tensor, y1: Tensor, scores: Tensor) -> RoIs:
    """Return RoIs from box edges (N,) in pixels, with the keypoint in the centre."""
    half = torch.stack([(x1 - x0) / 2, (x1 - x0) / 2, (y1 - y0) / 2, (y1 - y0) / 2], dim=1)
    return RoIs(image, channel, torch.stack([(x0 + x1) / 2, (y0 + y1) / 2], dim=1), half, scores)
