# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights of loss terms relative to the norms of their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segan_monai.losses.gradient_norm import gradient_norm
from segan_monai.processes import average_over_processes

MOST = 1e4
"""Largest factor, for terms whose gradient almost vanishes: Esser et al. (2021), the code of VQGAN."""


def last_weight(output: Tensor) -> nn.Parameter:
    """Return the weight, of two or more axes, that was used last to compute an output: that of the last layer.

    It walks through the whole graph, so call it once per network.

    Raises:
        ValueError: if the output depends on no such weight.
    """
    nodes: list[Any] = [output.grad_fn]
    seen = set(nodes)
    used: list[tuple[int, nn.Parameter]] = []
    while nodes:
        node = nodes.pop()
        for following, _ in node.next_functions if node else ():
            variable = getattr(following, "variable", None)
            if variable is not None and variable.ndim > 1:
                used.append((node._sequence_nr(), variable))  # nodes are numbered in the order of their operations
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    if not used:
        raise ValueError("the output depends on no weight")
    return max(used, key=lambda use: use[0])[1]


def balancing_factors(
    reference: Tensor, terms: dict[str, Tensor], weight: Tensor, scale: float = 1.0
) -> dict[str, Tensor]:
    """Return |grad reference| / |grad term| of each term, so that all have gradients of one norm on a weight.

    The gradient norm of a loss on the last layer tells how strongly it acts on the network; see Esser et al. (2021),
    Eq. 7. The factors have no gradient, and are the same in all processes.

    Args:
        reference: the loss with weight 1, a scalar.
        terms: scalar losses by name.
        weight: weight of the last layer, see ``last_weight``.
        scale: see ``gradient_norm``.

    Returns:
        Factors, scalars of at most ``MOST``; 0 if a gradient is not finite, because the step is then skipped.
    """
    measured = torch.stack([gradient_norm(loss, weight, scale) for loss in (reference, *terms.values())])
    average_over_processes([measured])
    factors = measured[0] / measured[1:].clamp_min(torch.finfo(measured.dtype).tiny)
    factors = torch.where(measured.isfinite().all(), factors.clamp_max(MOST), torch.zeros_like(factors))
    return dict(zip(terms, factors.unbind(), strict=True))
