# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""RoI recalibration: resamples boxes to the network's input size, and masks back. Xie et al. (2021), Section 2.2.

Coordinates are continuous pixels: 0 is the outer edge of the first pixel, and the centre of pixel i is at i + 0.5. x is
the last axis (width W), y the one before it (height H). A box is a keypoint (x, y) with its distances to the left,
right, top and bottom edge.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def box_edges(keypoints: Tensor, distances: Tensor) -> Tensor:
    """Convert keypoints and distances to box edges.

    Args:
        keypoints: (..., 2), x and y, in pixels.
        distances: (..., 4), to the left, right, top and bottom edge, in pixels.

    Returns:
        (..., 4): left, top, right and bottom edge, in pixels.
    """
    left, right, top, bottom = distances.unbind(-1)
    x, y = keypoints.unbind(-1)
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)


def roi_affine(keypoints: Tensor, distances: Tensor, size: list[int], margin: float = 15.0) -> Tensor:
    """Return the affine that maps the network's full input to a box with a margin: Xie et al. (2021), Eq. 2 and 3.

    With size W x H, keypoint (u, v), distances l, r, t, b and margin m::

        sx = (l + r + 2m) / W,  sy = (t + b + 2m) / H,  tx = (2u + r - l) / W - 1,  ty = (2v + b - t) / H - 1

    Args:
        keypoints: (N, 2), x and y, in pixels.
        distances: (N, 4), to the left, right, top and bottom edge, in pixels.
        size: H and W of the image.
        margin: pixels added on every side (paper: 15).

    Returns:
        (N, 2, 3): [[sx, 0, tx], [0, sy, ty]], in the coordinates of ``grid_sample`` (-1 to 1, ``align_corners=False``).
        Differentiable in keypoints and distances.

    Examples:
        >>> roi_affine(torch.tensor([[64.0, 32.0]]), torch.tensor([[1.0, 3.0, 0.0, 2.0]]), (64, 128), margin=14.0)
        tensor([[[0.2500, 0.0000, 0.0156],
                 [0.0000, 0.4688, 0.0312]]])
    """
    height, width = size
    x, y = keypoints.unbind(-1)
    left, right, top, bottom = distances.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack(
        [
            torch.stack([(left + right + 2 * margin) / width, zero, (2 * x + right - left) / width - 1], dim=-1),
            torch.stack([zero, (top + bottom + 2 * margin) / height, (2 * y + bottom - top) / height - 1], dim=-1),
        ],
        dim=-2,
    )


def crop_affine(keypoints: Tensor, distances: Tensor, size: list[int], margin: float = 15.0) -> Tensor:
    """Return the affine of a hard crop: the box with margin, rounded outwards to whole pixels and clipped to the image.

    Coarse-to-fine models use this crop in place of ``roi_affine``. It has no gradient. A box outside the image becomes
    the nearest border pixel.

    Args:
        keypoints: see ``roi_affine``.
        distances: see ``roi_affine``.
        size: H and W of the image.
        margin: pixels added on every side.

    Returns:
        (N, 2, 3), as for ``roi_affine``.
    """
    height, width = size
    x0, y0, x1, y1 = box_edges(keypoints.detach(), distances.detach() + margin).unbind(-1)
    x0, y0 = x0.floor().clamp(0, width - 1), y0.floor().clamp(0, height - 1)
    x1, y1 = torch.maximum(x1.ceil().clamp(max=width), x0 + 1), torch.maximum(y1.ceil().clamp(max=height), y0 + 1)
    half = torch.stack([(x1 - x0) / 2, (x1 - x0) / 2, (y1 - y0) / 2, (y1 - y0) / 2], dim=-1)
    return roi_affine(torch.stack([(x0 + x1) / 2, (y0 + y1) / 2], dim=-1), half, size, margin=0.0)


def mirrored_affine(theta: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the result of affines (N, 2, 3) left to right, where ``mirrored`` (N,) is true."""
    sign = torch.where(mirrored, -1.0, 1.0).to(theta).reshape(-1, 1, 1)
    return torch.cat([theta[:, :, :1] * sign, theta[:, :, 1:]], dim=2)


def inverse_affine(theta: Tensor, smooth: float = 1e-6) -> Tensor:
    """Return the affine that maps masks back to the image: Xie et al. (2021), Eq. 4.

    Args:
        theta: (N, 2, 3) without shear, from ``roi_affine``.
        smooth: small constant e that prevents division by zero for empty boxes.

    Returns:
        (N, 2, 3) ``[[1 / (sx + e), 0, -tx / (sx + e)], [0, 1 / (sy + e), -ty / (sy + e)]]``.
    """
    scale = 1 / (torch.stack([theta[:, 0, 0], theta[:, 1, 1]], dim=-1) + smooth)
    return torch.cat([torch.diag_embed(scale), (-scale * theta[:, :, 2]).unsqueeze(-1)], dim=-1)


def samples_per_pixel(image_size: list[int], size: list[int]) -> list[int]:
    """Return the samples per pixel, along y and x, with which no box within an image is aliased.

    That is the number of pixels of the whole image per pixel of the result, rounded up.

    Examples:
        >>> samples_per_pixel([512, 512], [128, 96])
        [4, 6]
    """
    return [-(-image_size[0] // size[0]), -(-image_size[1] // size[1])]


def sample_affine(
    images: Tensor, theta: Tensor, size: list[int] | None = None, samples: list[int] | None = None
) -> Tensor:
    """Resample images bilinearly on a grid transformed by an affine, with zero padding [ours].

    With ``roi_affine`` this recalibrates a RoI; with ``inverse_affine`` it maps a recalibrated mask back to the image.
    Autocast is disabled: a grid in bfloat16 would be off by several pixels. The computation uses float32 (or float64).

    With several samples per pixel, the result is their mean, as in RoIAlign (He et al. 2017). A box that is larger than
    the result is then averaged over areas, not subsampled. The number is fixed, so that the graph can be exported.

    Args:
        images: (N, C, H, W).
        theta: (N, 2, 3).
        size: h and w of the result; by default H and W.
        samples: samples per pixel of the result along y and x, see ``samples_per_pixel``; by default one.

    Returns:
        (N, C, h, w), differentiable in images and affines.
    """
    if size is None:
        size = [images.shape[2], images.shape[3]]
    if samples is None:
        samples = [1, 1]
    if torch.jit.is_scripting():
        return _sample(images, theta, size, samples)
    else:  # TorchScript requires a constant device type for autocast; it does not compile this branch
        with torch.autocast(images.device.type, enabled=False):
            return _sample(images, theta, size, samples)


def _sample(images: Tensor, theta: Tensor, size: list[int], samples: list[int]) -> Tensor:
    dtype = torch.promote_types(theta.dtype, torch.float32)
    grid = _grid(theta.to(dtype), size[0] * samples[0], size[1] * samples[1])
    sampled = F.grid_sample(images.to(dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled if samples[0] == samples[1] == 1 else F.avg_pool2d(sampled, samples)


def resample(images: Tensor, size: list[int]) -> Tensor:
    """Resample images (N, C, H, W) to (N, C, h, w): ``sample_affine`` with the identity, averaged over areas."""
    image_size = [images.shape[2], images.shape[3]]
    if image_size == size:
        return images
    identity = torch.eye(2, 3, dtype=torch.float32, device=images.device).expand(images.shape[0], -1, -1)
    return sample_affine(images, identity, size, samples_per_pixel(image_size, size))


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Compute ``F.affine_grid(align_corners=False)``, which is not exportable for every size and may use TF32."""
    y, x = torch.arange(height, device=theta.device), torch.arange(width, device=theta.device)
    y, x = ((2 * y + 1).to(theta) / height - 1).unsqueeze(1), (2 * x + 1).to(theta) / width - 1
    along_x, along_y, shift = theta[..., None, None].unbind(2)  # (N, 2, 1, 1) each
    return (along_x * x + along_y * y + shift).permute(0, 2, 3, 1)


def merge_rois(placed: Tensor, index: Tensor, count: int) -> Tensor:
    """Merge the masks of several RoIs by their maximum.

    Args:
        placed: (N, H, W), nonnegative masks on the image grid.
        index: (N,), integers: index of the merged map to which each mask belongs.
        count: number of merged maps.

    Returns:
        (count, H, W), 0 outside all RoIs.
    """
    merged = placed.new_zeros(count, *placed.shape[1:])
    return merged.scatter_reduce(0, index.reshape(-1, 1, 1).expand_as(placed), placed, "amax")
