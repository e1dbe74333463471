# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Jensen-Shannon divergence between the intensity histograms of domains."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.metrics import Metric
from torch import Tensor

CODES = 2**16


def jensen_shannon_divergence(histograms: Tensor) -> Tensor:
    """Compute the mean Kullback-Leibler divergence of K distributions from their average, in nats.

    ``(1/K) sum_k sum_b p_kb log(p_kb / m_b)`` with ``m = (1/K) sum_k p_k``: 0 for equal distributions, log K for K
    distributions without a common bin. See Delisle et al. (2020), Section 3.4. The values in the paper (3.509 before,
    3.504 after) exceed log 2, the maximum of this formula for two domains; their scaling is not specified.

    Args:
        histograms: (K, bins), counts or frequencies; each row is divided by its sum. Empty rows are omitted.

    Returns:
        Scalar, 0 to log K.

    Examples:
        >>> jensen_shannon_divergence(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
        tensor(0.6931, dtype=torch.float64)
    """
    rows = histograms.double()
    rows = rows[rows.sum(dim=1) > 0]
    if not len(rows):
        return torch.zeros((), dtype=torch.float64)
    p = rows / rows.sum(dim=1, keepdim=True)
    entropies = -torch.xlogy(p, p).sum(dim=1)
    mean = p.mean(dim=0)
    return (-torch.xlogy(mean, mean).sum() - entropies.mean()).clamp_min(0)


class IntensityHistograms:
    """Intensity counts per group, accumulated in bounded memory without prior knowledge of the range.

    Each intensity is rounded to the nearest of the 65,536 bfloat16 values. Histogram bins over the range of all groups
    are computed once all voxels are counted. Voxels that are exactly 0 are background and are not counted.

    Args:
        groups: names of the groups, such as domains.
    """

    def __init__(self, groups: Sequence[Hashable]) -> None:
        self.groups = list(groups)
        self.counts = torch.zeros((len(self.groups), CODES), dtype=torch.int64)
        # the value of every bfloat16 bit pattern
        self.values = torch.arange(CODES, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).double()

    def add(self, image: Tensor, group: Hashable) -> None:
        """Count the voxels of an image or patch of any shape."""
        voxels = torch.as_tensor(image).as_subclass(torch.Tensor).detach().flatten()
        codes = voxels[voxels != 0].to(torch.bfloat16).view(torch.int16).to(torch.int64) & 0xFFFF
        self.counts[self.groups.index(group)] += torch.bincount(codes, minlength=CODES).cpu()

    def histograms(self, bins: int = 64, trim: float = 0.005) -> tuple[Tensor, Tensor]:
        """Compute histograms over a range common to all groups.

        The range extends from quantile ``trim`` to ``1 - trim`` of the mean distribution. Values outside it count in
        the first or last bin. The result does not depend on the unit of the intensities.

        Args:
            bins: number of bins.
            trim: quantile excluded from the range at each end.

        Returns:
            Edges (bins + 1,) and frequencies (K, bins); rows of groups without voxels are 0.
        """
        used = self.counts.any(dim=0)
        if not used.any():
            return torch.linspace(0, 1, bins + 1), torch.zeros((len(self.groups), bins))
        values, order = self.values[used].sort()
        counts = self.counts[:, used][:, order].double()
        shares = counts / counts.sum(dim=1, keepdim=True).clamp_min(1)
        cumulated = shares[shares.sum(dim=1) > 0].mean(dim=0).cumsum(0)
        ends = [int((cumulated < share).sum().clamp_max(len(values) - 1)) for share in (trim, 1 - trim)]
        low, high = (float(values[end]) for end in ends)
        high = high if high > low else low + 1
        index = ((values - low) / (high - low) * bins).floor().clamp(0, bins - 1).long()
        frequencies = torch.zeros((len(self.groups), bins), dtype=torch.float64).index_add_(1, index, shares)
        return torch.linspace(low, high, bins + 1, dtype=torch.float64), frequencies

    def divergence(self, bins: int = 64) -> float:
        """Return the Jensen-Shannon divergence of the groups, in nats."""
        return float(jensen_shannon_divergence(self.histograms(bins)[1]))


class JensenShannonDivergence(Metric):
    """Ignite metric: ``jensen_shannon_divergence`` between the intensity histograms of K domains over an epoch.

    The output transform returns images and their domains, each a list or a batch. Background (0) is not counted.

    Args:
        domains: names or indices of the domains.
        bins: number of histogram bins over the range common to all domains.
        output_transform: maps the engine's output to images and domains.
    """

    def __init__(self, domains: Sequence[Hashable], bins: int = 64, output_transform: Callable = lambda x: x) -> None:
        self.domains = list(domains)
        self.bins = bins
        super().__init__(output_transform=output_transform)

    def reset(self) -> None:
        """Clear the counts."""
        self.histograms = IntensityHistograms(self.domains)

    def update(self, output: Any) -> None:
        """Count the images of an iteration."""
        images, domains = output
        for image, domain in zip(images, domains, strict=True):
            self.histograms.add(image, domain.item() if isinstance(domain, Tensor) else domain)

    def compute(self) -> float:
        """Return the divergence over all processes, in nats; 0 for one domain."""
        if idist.get_world_size() > 1:
            summed = idist.all_reduce(self.histograms.counts.to(idist.device()))
            self.histograms.counts = torch.as_tensor(summed).cpu()
        return self.histograms.divergence(self.bins)
