# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Agreement of the predictions that inference averages: slicing axes and mirrored views."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


class Agreement:
    """Sums of the overlap of predictions of the same voxels, from which the pairwise Dice follows.

    An inferer that is given one compares the outputs that it averages, and ``QualitySignalsd`` reads it. Counts of
    batches and windows add up, so nothing but the masks of one mean is held in memory. A voxel has each class whose
    logit is above 0.

    Examples:
        >>> agreement = Agreement()
        >>> masks: list[Tensor] = []
        >>> agreement.compare("axes", masks, torch.tensor([[[1.0, 1.0, -1.0]]]))
        >>> agreement.compare("axes", masks, torch.tensor([[[1.0, -1.0, -1.0]]]))
        >>> agreement.dice()["axes"]  # 2 * 1 / (2 + 1)
        [0.6666666865348816]
    """

    def __init__(self) -> None:
        self.counts: dict[str, Tensor] = {}
        self.depth = 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Count within a block. The outermost block is one case and begins without counts.

        What a block counted is undone if it fails, so a retry counts no batch twice.
        """
        before = self.counts if self.depth else {}
        self.counts = before  # replaced by ``compare``, never changed in place
        self.depth += 1
        try:
            yield
        except BaseException:
            self.counts = before
            raise
        finally:
            self.depth -= 1

    def compare(self, kind: str, masks: list[Tensor], logits: Tensor) -> None:
        """Add the overlap of an output with each earlier output of the same voxels.

        Args:
            kind: what the outputs differ in, such as ``axes``.
            masks: masks of the earlier outputs; that of this output is appended.
            logits: (N, K, ...).
        """
        mask = logits > 0
        dims = [dim for dim in range(mask.ndim) if dim != 1]
        size = mask.sum(dims)
        for other in masks:
            counts = torch.stack([(mask & other).sum(dims), size + other.sum(dims)])
            if kind in self.counts:
                counts = counts + self.counts[kind].to(counts.device)  # the last attempt may be on the CPU
            self.counts = {**self.counts, kind: counts}
        masks.append(mask)

    def dice(self) -> dict[str, list[float]]:
        """Return the pairwise Dice of each of the K classes by kind; 1 where all outputs are empty."""
        return {
            kind: torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0).tolist()
            for kind, (both, total) in ((kind, counts.cpu()) for kind, counts in self.counts.items())
        }


def attempt(agreement: Agreement | None) -> AbstractContextManager[None]:
    """Return ``Agreement.attempt`` of an inferer's ``agreement``; without one, a block that does nothing."""
    return nullcontext() if agreement is None else agreement.attempt()
