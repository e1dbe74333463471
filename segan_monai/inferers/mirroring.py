# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Test-time mirroring: the mean of a network's outputs for an image and its mirror images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from segan_monai.inferers.agreement import Agreement
from segan_monai.transforms.mirroring import mirror_slices, mirrored_views


def mean_of_mirrored(
    network: Callable[[Tensor], Tensor],
    batch: Tensor,
    mirror_axes: Sequence[int],
    axis: int | None = 2,
    neighbours: int = 0,
    agreement: Agreement | None = None,
) -> Tensor:
    """Return the mean logits of a batch of slices or volumes over all combinations of mirrored axes, as in nnU-Net.

    The network gets one mirrored batch after the other, so memory does not grow with their number. Without neighbours,
    mirroring along the slicing axis would change nothing and is omitted.

    Args:
        network: function from (N, C, U, V) to (N, K, U, V), or from volumes to volumes.
        batch: (N, C, U, V), or volumes (N, C, H, W, D) without ``axis``.
        mirror_axes: axes of the volume from which the slices are cut; of a photograph, 0 and 1.
        axis: axis of the volume that was cut into slices; None for volumes.
        neighbours: number of neighbouring slices on each side among the channels.
        agreement: receives the overlap of the views, as ``mirrors``.

    Returns:
        Logits of the batch, float32 if there is an axis to mirror.
    """
    views = mirrored_views([mirror for mirror in mirror_axes if mirror != axis or neighbours])
    total = network(batch)
    if len(views) == 1:
        return total
    masks: list[Tensor] = []
    if agreement is not None:
        agreement.compare("mirrors", masks, total)
    total = total.float().clone()  # a network with CUDA graphs overwrites its last output
    for view in views[1:]:
        output = mirror_slices(network(mirror_slices(batch, view, axis, neighbours)), view, axis)
        if agreement is not None:
            agreement.compare("mirrors", masks, output)
        total += output
    return total / len(views)
