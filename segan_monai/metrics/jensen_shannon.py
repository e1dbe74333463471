# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""How unlike the intensities of several domains are: the Jensen-Shannon divergence of their histograms."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.metrics import Metric
from torch import Tensor

CODES = 2**16


def jensen_shannon_divergence(histograms: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence between K distributions and their average (Delisle et al. 2019, section 3.4).

    ``(1/K) sum_k sum_b p_kb log(p_kb / m_b)`` with ``m = (1/K) sum_k p_k``, in nats: 0 for equal distributions, log K
    for K that have no bin in common. The paper's figures (3.509 before, 3.504 after) are above log 2, the most that two
    domains can have by this formula; how they were scaled is not said.

    Args:
        histograms: (K, bins), counts or frequencies; each row is divided by its sum. Empty rows are left out.

    Returns:
        Scalar.

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
    """Counts intensities by group, exactly and in bounded memory, before their range is known.

    Each intensity is rounded to the nearest bfloat16, of which there are 65,536; so the bins of the histograms can be
    laid over the range of all groups when all have been counted. Voxels that are exactly 0 are background, and are not
    counted.

    Args:
        groups: names of the groups, for example domains.
    """

    def __init__(self, groups: Sequence[Hashable]) -> None:
        self.groups = list(groups)
        self.counts = torch.zeros((len(self.groups), CODES), dtype=torch.int64)
        # every bit pattern of bfloat16, as the number that it stands for
        self.values = torch.arange(CODES, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).double()

    def add(self, image: Tensor, group: Hashable) -> None:
        """Count the voxels of an image, or of any part of one."""
        voxels = torch.as_tensor(image).as_subclass(torch.Tensor).detach().flatten()
        codes = voxels[voxels != 0].to(torch.bfloat16).view(torch.int16).to(torch.int64) & 0xFFFF
        self.counts[self.groups.index(group)] += torch.bincount(codes, minlength=CODES).cpu()

    def histograms(self, bins: int = 64, trim: float = 0.005) -> tuple[Tensor, Tensor]:
        """Histograms over the range that all groups share.

        The range runs from the quantile `trim` to 1 - `trim` of the mean distribution; what lies outside counts in the
        first and last bin. So the result is the same for intensities in any unit.

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
        """Jensen-Shannon divergence of the groups, in nats."""
        return float(jensen_shannon_divergence(self.histograms(bins)[1]))


class JensenShannonDivergence(Metric):
    """Ignite metric: `jensen_shannon_divergence` between the intensity histograms of K domains over an epoch.

    Its output transform gives images and their domains, each a list or a batch; background (0) does not count.

    Args:
        domains: names of the domains, or their numbers.
        bins: of the histograms, over the range that all domains share.
        output_transform: from the engine's output.
    """

    def __init__(self, domains: Sequence[Hashable], bins: int = 64, output_transform: Callable = lambda x: x) -> None:
        self.domains = list(domains)
        self.bins = bins
        super().__init__(output_transform=output_transform)

    def reset(self) -> None:
        """Forget the last epoch."""
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
