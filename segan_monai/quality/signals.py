# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Signals of how good a segmentation is, without its reference: numbers per region, and features of the image."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from segan_monai.content import content_box

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLE = 100_000
"""About the largest number of voxels, evenly spaced, whose quantiles are taken."""
EMPTY_LOG_ML = math.log(0.1)
"""``log_ml`` of an empty mask."""
LEAST_STEP, LEAST_RANGE = 1e-7, 1e-3
"""Added to the mean step of an image and to the range of its quantiles, so that an image of one value, which has
neither, is far from every other [ours]."""
UNSURE = 0.05
"""Voxels whose probability is at least this count as part of what the network considered."""


def region_signals(
    probabilities: Tensor, regions: Sequence[str], agreement: Mapping[str, Sequence[float]], voxel_ml: float = 0.001
) -> dict[str, dict[str, float]]:
    """Return the signals of every region of a case.

    - ``soft_dice``: Dice of the mask that the probabilities would give if they were true, see ``soft_dice``.
    - ``outline_certainty``: 1 minus the mean entropy (bits) in a band of two voxels around the outline.
    - ``largest_part``: share of the mask in its largest connected component; 1 for an empty mask.
    - ``log_ml``: logarithm of 0.1 plus the volume in ml.
    - ``agreement_<kind>``: pairwise Dice of the outputs that were averaged, see ``Agreement``.

    Args:
        probabilities: (K, H, W[, D]) of a sigmoid, values from 0 to 1: a mask is where they are above 0.5; or (1 + K,
            H, W[, D]) of a softmax, background first: a mask is where its class is the most probable.
        regions: names of the K regions.
        agreement: pairwise Dice of the K regions by kind.
        voxel_ml: volume of a voxel in ml.

    Raises:
        ValueError: there are neither K nor 1 + K channels.
    """
    of_regions = without_background(probabilities, len(regions))
    classes = probabilities.argmax(0) if len(probabilities) > len(regions) else None
    found = {}
    for index, region in enumerate(regions):
        whole = of_regions[index].detach().float()
        inside = whole > 0.5 if classes is None else classes == index + 1
        box = content_box((whole >= UNSURE) | inside, margin=2) or (slice(0, 1),) * whole.ndim
        probability, mask = whole[box], inside[box]
        found[region] = {
            "soft_dice": soft_dice(probability, mask),
            "outline_certainty": 1 - outline_entropy(probability, mask),
            "largest_part": largest_part(mask.cpu().numpy()),
            "log_ml": math.log(0.1 + float(mask.sum()) * voxel_ml),
            **{f"agreement_{kind}": float(dice[index]) for kind, dice in sorted(agreement.items())},
        }
    return found


def without_background(probabilities: Tensor, count: int) -> Tensor:
    """Return the channels (K, H, W[, D]) of K regions.

    Args:
        probabilities: these channels, of a sigmoid, or (1 + K, H, W[, D]), background first, of a softmax.
        count: K.

    Raises:
        ValueError: there are neither K nor 1 + K channels.
    """
    if len(probabilities) not in (count, count + 1):
        raise ValueError(
            f"probabilities have {len(probabilities)} channels; expected one of each of {count} regions, and at most "
            "one of the background before them."
        )
    return probabilities[-count:]


def quality_without_fit(regions: Mapping[str, Mapping[str, float]], always: Container[str] = ()) -> float:
    """Return the expected quality of a case where too few cases have a label for a fit, from 0 to 1 [ours].

    The mean, over the regions, of their signals that are a Dice: ``soft_dice`` and ``agreement_<kind>``. A region that
    every case should have and this one lacks counts as 0: an empty mask looks certain.

    Args:
        regions: result of ``region_signals``.
        always: names of the regions that every case should have, such as those that all labelled cases have.

    Examples:
        >>> quality_without_fit({"lesion": {"soft_dice": 0.5, "agreement_axes": 1.0, "log_ml": 3.0}})
        0.75
        >>> empty = {"lesion": {"soft_dice": 1.0, "log_ml": EMPTY_LOG_ML}}
        >>> quality_without_fit(empty), quality_without_fit(empty, ["lesion"])
        (1.0, 0.0)
    """
    means = []
    for name, signals in regions.items():
        if name in always and signals["log_ml"] <= EMPTY_LOG_ML:
            means.append(0.0)
            continue
        dice = [value for key, value in signals.items() if key == "soft_dice" or key.startswith("agreement_")]
        means.append(sum(dice) / len(dice))
    return sum(means) / len(means)


def soft_dice(probability: Tensor, mask: Tensor) -> float:
    """Return the Dice that a mask is expected to have if each voxel is foreground with its probability.

    One voxel is added to both sums, so an empty mask has 1 where nothing was considered, and less otherwise.

    Examples:
        >>> soft_dice(torch.tensor([1.0, 0.5, 0.0]), torch.tensor([True, False, False]))  # (2 + 1) / (1 + 1.5 + 1)
        0.8571428571428571
    """
    both, total = float((probability * mask).sum()), float(probability.sum() + mask.sum())
    return (2 * both + 1) / (total + 1)


def outline_entropy(probability: Tensor, mask: Tensor) -> float:
    """Return the mean entropy in bits of the voxels on both sides of the outline of a mask.

    Without an outline, it is the mean over the voxels whose probability is at least ``UNSURE``, or 0.

    Args:
        probability: (H, W[, D]).
        mask: boolean, of the same shape.
    """
    pool = F.max_pool3d if mask.ndim == 3 else F.max_pool2d
    inside, outside = mask[None, None].float(), (~mask)[None, None].float()
    band = ((pool(inside, 3, 1, 1) > 0) & (pool(outside, 3, 1, 1) > 0))[0, 0]
    if not band.any():
        band = (probability >= UNSURE) & (probability <= 1 - UNSURE)
    if not band.any():
        return 0.0
    p = probability[band].clamp(1e-7, 1 - 1e-7)
    return float(-(p * p.log2() + (1 - p) * (1 - p).log2()).mean())


def largest_part(mask: np.ndarray) -> float:
    """Return the share of a mask in its largest connected component; 1 for an empty mask."""
    labelled, count = ndimage.label(mask)
    if count < 2:
        return 1.0
    sizes = np.bincount(labelled.ravel())[1:]
    return float(sizes.max() / sizes.sum())


def image_features(image: Tensor, modalities: Sequence[str]) -> dict[str, float]:
    """Return features of a preprocessed image, by which it is compared to those of the training.

    Of each modality, quantiles of the voxels that are not 0, and the mean step between neighbours relative to the range
    of these quantiles, which noise raises and blur lowers. Of the content (voxels that are not 0 in every modality),
    the logarithm of the extent in voxels along each axis.

    Args:
        image: (C, H, W[, D]); channel c is modality c.
        modalities: names of the C channels.
    """
    image = image.detach().float().cpu()
    found: dict[str, float] = {}
    for values, modality in zip(image, modalities, strict=True):
        content = values[values != 0].numpy()
        content = content[:: len(content) // SAMPLE + 1] if len(content) else np.zeros(1, np.float32)
        ranks = [round(share * (len(content) - 1)) for share in QUANTILES]
        levels = [float(level) for level in np.partition(content, ranks)[ranks]]
        found |= {f"{modality} {share:g}": level for share, level in zip(QUANTILES, levels, strict=True)}
        found[f"{modality} step"] = math.log((_mean_step(values) + LEAST_STEP) / (levels[-1] - levels[0] + LEAST_RANGE))
    box = content_box((image != 0).any(0)) or [slice(0, 1)] * (image.ndim - 1)
    return found | {f"extent {axis}": math.log(part.stop - part.start) for axis, part in enumerate(box)}


def _mean_step(values: Tensor) -> float:
    """Return the mean absolute difference of neighbours (H, W[, D]) that are both not 0; 0 without any."""
    used = values != 0
    total, count = 0.0, 0
    for axis, n in enumerate(values.shape):
        both = used.narrow(axis, 0, n - 1) & used.narrow(axis, 1, n - 1)
        total += float((values.diff(dim=axis).abs() * both).sum(dtype=torch.float64))
        count += int(both.sum())
    return total / count if count else 0.0
