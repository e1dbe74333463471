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
from segan_monai.losses.gradient_norm import gradient_norm
from segan_monai.processes import average_over_processes


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


REDUCTIONS = ("sum", "per_layer", "concat", "balanced")
_MOMENTUM = 0.9
"""Share of the previous value in the running gradient norms of ``balanced``."""


class MultiScaleL1Loss(nn.Module):
    """Distance between a critic's features of two masked images: Xue et al. (2018), Eq. 2 and 3.

    f_i(u) and f_i(v) are the features of N masked images u and v in layer i of L layers, with n_i elements per image,
    and w_i are weights. The reductions differ in how much each layer counts:

    - ``sum``: (1/L) sum_i w_i sum|f_i(u) - f_i(v)| / N, the sum of norms of Eq. 3 [paper]. Early layers have the most
      elements, and dominate. Its values are n_i times those of a mean: with another loss, its weight must be small.
    - ``concat``: sum_i w_i sum|f_i(u) - f_i(v)| / sum_i N n_i, one mean over the features of all layers, as in the
      published code. It is ``sum`` times a constant.
    - ``per_layer``: (1/L) sum_i w_i mean|f_i(u) - f_i(v)|, the mean absolute error of each layer [ours]. Late layers
      dominate, because their features are the largest.
    - ``balanced``: as ``per_layer``, with each layer scaled so that all have a gradient of one norm on the prediction
      [ours]. The scales follow running means of the norms, which ``measure`` updates.

    With several critics, the loss is the mean over the critics, as in the paper's variant S3-3C.

    Args:
        layers: indices of the critic's layers to compare, 0 for the masked image itself; None for all. ``[0]`` and
            ``[3]`` are the paper's single-scale losses S3-3C-s0 and S3-3C-s3.
        reduction: ``sum``, ``per_layer``, ``concat`` or ``balanced``.
        layer_weights: weight w_i of each of the layers; None for 1.

    Raises:
        ConfigError: if the reduction is unknown, the critic lacks a layer, or the number of weights differs from
            the number of layers.

    Examples:
        >>> ones, zeros = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        >>> MultiScaleL1Loss(reduction="sum")([[ones, ones]], [[zeros, -ones]])  # (4 * 1 + 4 * 2) / 2
        tensor(6.)
    """

    def __init__(
        self,
        layers: Sequence[int] | None = None,
        reduction: str = "per_layer",
        layer_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ConfigError(f"reduction is {reduction!r}; expected {', '.join(map(repr, REDUCTIONS))}.")
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
        # empty until the first measurement, which knows the number of layers
        self.register_buffer("gradient_norms", torch.zeros(0), persistent=reduction == "balanced")
        self.gradient_norms: Tensor

    def forward(self, features: list[list[Tensor]], others: list[list[Tensor]]) -> Tensor:
        """Return the loss, a scalar, between two lists (critics) of lists (layers) of features of equal shapes."""
        return self.layer_losses(features, others).sum()

    def layer_losses(self, features: list[list[Tensor]], others: list[list[Tensor]]) -> Tensor:
        """Return the summand of each layer in the loss (L,): weighted, scaled and averaged over critics."""
        return torch.stack([self._of_critic(u, v) for u, v in zip(features, others, strict=True)]).mean(dim=0)

    @torch.enable_grad()
    def measure(
        self, features: list[list[Tensor]], others: list[list[Tensor]], prediction: Tensor, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Measure how much each layer counts, and update the scales of ``balanced``.

        Args:
            features: the critics' features of ``prediction``, with their graph; see ``forward``.
            others: the critics' features of the label map.
            prediction: tensor with ``requires_grad`` from which ``features`` were computed.
            scale: see ``gradient_norm``.

        Returns:
            The summand of each layer in the loss (L,), and the L2 norm of its gradient on the prediction (L,), 0 if it
            is not finite.
        """
        losses = self.layer_losses(features, others)
        measured = torch.stack([gradient_norm(loss, prediction, scale) for loss in losses]).nan_to_num(0.0, 0.0, 0.0)
        if self.reduction == "balanced":
            average_over_processes([measured])  # all processes use the same scales
            if len(self.gradient_norms):
                unscaled = measured / self._scales()
                # in place, because CUDA graphs read it where it is
                self.gradient_norms.copy_(_MOMENTUM * self.gradient_norms + (1 - _MOMENTUM) * unscaled)
            else:
                self.gradient_norms = measured
        return losses.detach(), measured

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Restore the running gradient norms, of as many layers as they were measured for."""
        saved = state_dict.get(f"{prefix}gradient_norms")
        if saved is not None:
            self.gradient_norms = self.gradient_norms.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _scales(self) -> Tensor:
        """Return the factor of each layer (L,) for ``balanced``: the mean of the gradient norms over its own."""
        norms = self.gradient_norms
        return torch.where(norms > 0, norms.mean() / norms.clamp_min(torch.finfo(norms.dtype).tiny), 1.0)

    def _of_critic(self, features: list[Tensor], others: list[Tensor]) -> Tensor:
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
        counts = [features[i].numel() for i in layers]
        if self.reduction == "concat":
            factors = [w * n / sum(counts) for w, n in zip(weights, counts, strict=True)]
        elif self.reduction == "sum":
            factors = [w * n / len(features[0]) / len(counts) for w, n in zip(weights, counts, strict=True)]
        else:
            factors = [w / len(counts) for w in weights]
        summands = torch.stack([factor * mean for factor, mean in zip(factors, means, strict=True)])
        return summands * self._scales() if len(self.gradient_norms) else summands
