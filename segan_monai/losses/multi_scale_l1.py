# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Multi-scale L1 loss, shared by SegAN's segmentor and critics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from segan_monai.errors import ConfigError


class _MeanAbsolute(torch.autograd.Function):
    """``(u - v).abs().mean()`` in float32, with a gradient in the memory format of the features.

    The autograd version expands the mean's gradient to a contiguous tensor and multiplies it by signs in the
    convolutions' memory format. That takes five passes over memory, most of them strided; this one writes once.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor) -> Tensor:
        difference = u - v
        ctx.save_for_backward(difference)
        return difference.abs().sum(dtype=torch.float32) / difference.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (difference,) = ctx.saved_tensors
        grad = difference.sign().mul_(gradient / difference.numel())
        return grad if ctx.needs_input_grad[0] else None, -grad if ctx.needs_input_grad[1] else None


class MultiScaleL1Loss(nn.Module):
    """Distance between a critic's features of two masked images: Xue et al. (2018), Eq. 2 and 3.

    f_i(u) and f_i(v) are the features of the masked images u and v in layer i of L layers, and w_i are weights.

    - ``per_layer``: (1/L) sum_i w_i mean|f_i(u) - f_i(v)|, as in the paper.
    - ``concat``: sum_i w_i sum|f_i(u) - f_i(v)| / sum_i n_i, one mean over the n_i features of all layers, as in the
      published code. Early layers dominate, because they have the most elements.

    With several critics, the loss is the mean over the critics, as in the paper's variant S3-3C.

    Args:
        layers: indices of the critic's layers to compare, 0 for the masked image itself; None for all. ``[0]`` and
            ``[3]`` are the paper's single-scale losses S3-3C-s0 and S3-3C-s3.
        reduction: ``per_layer`` or ``concat``.
        layer_weights: weight w_i of each of the layers; None for 1.

    Raises:
        ConfigError: if the reduction is unknown, the critic lacks a layer, or the number of weights differs from
            the number of layers.

    Examples:
        >>> loss = MultiScaleL1Loss()
        >>> ones, zeros = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        >>> loss([[ones, ones]], [[zeros, -ones]])
        tensor(1.5000)
    """

    def __init__(
        self,
        layers: Sequence[int] | None = None,
        reduction: str = "per_layer",
        layer_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if reduction not in ("per_layer", "concat"):
            raise ConfigError(f"reduction is {reduction!r}; expected 'per_layer' or 'concat'.")
        if layers is not None and (len(layers) == 0 or min(layers) < 0):
            raise ConfigError(
                f"layers is {list(layers)}; expected one or more layer indices from 0, or None for all layers."
            )
        if layers is not None and layer_weights is not None and len(layers) != len(layer_weights):
            raise ConfigError(
                f"{len(layer_weights)} layer_weights for {len(layers)} layers; give one weight per layer."
            )
        self.layers = layers
        self.reduction = reduction
        self.layer_weights = layer_weights

    def forward(self, features: list[list[Tensor]], others: list[list[Tensor]]) -> Tensor:
        """Return the loss, a scalar, between two lists (critics) of lists (layers) of features of equal shapes."""
        return torch.stack([self._distance(u, v) for u, v in zip(features, others, strict=True)]).mean()

    def _distance(self, features: list[Tensor], others: list[Tensor]) -> Tensor:
        layers = range(len(features)) if self.layers is None else self.layers
        if max(layers) >= len(features):
            raise ConfigError(
                f"layers is {list(layers)}; expected indices from 0 to {len(features) - 1}, the layers of the critic."
            )
        weights = [1.0] * len(layers) if self.layer_weights is None else self.layer_weights
        if len(weights) != len(layers):
            raise ConfigError(f"{len(weights)} layer_weights for {len(layers)} layers; give one weight per layer.")
        # means over millions of bfloat16 features need float32
        means = [_MeanAbsolute.apply(features[i], others[i]) for i in layers]
        if self.reduction == "per_layer":
            return torch.stack([w * m for w, m in zip(weights, means, strict=True)]).mean()
        counts = [features[i].numel() for i in layers]
        return torch.stack([w * n * m for w, n, m in zip(weights, counts, means, strict=True)]).sum() / sum(counts)
