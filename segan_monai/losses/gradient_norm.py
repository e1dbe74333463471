# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Norm of the gradient of a loss, in any precision."""

from __future__ import annotations

import torch
from torch import Tensor


def gradient_norm(loss: Tensor, tensor: Tensor, scale: float = 1.0) -> Tensor:
    """Return the L2 norm of the gradient of a loss with respect to a tensor; the graph of the loss is kept.

    Args:
        loss: a scalar.
        tensor: a weight, or an output.
        scale: factor of the loss while its gradient is computed, see ``PhasedTrainer.loss_scale``. A small gradient in
            float16 would otherwise be 0.

    Returns:
        A scalar without gradient: 0 if the loss does not depend on the tensor, not finite if the scale is too large.
    """
    if not loss.requires_grad:
        return loss.new_zeros(())
    grad_outputs = torch.full_like(loss, scale)
    (gradient,) = torch.autograd.grad(loss, tensor, grad_outputs, retain_graph=True, allow_unused=True)
    return loss.new_zeros(()) if gradient is None else gradient.detach().float().norm() / scale
