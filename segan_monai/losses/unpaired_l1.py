# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Multi-scale L1 loss without pairs: mean features of predicted masks against those of true masks of other images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.processes import average_over_processes


class UnpairedL1Loss(nn.Module):
    """Distance of a critic's mean features of two sets of masked images [ours].

    l_u = (1/L) sum_i mean over channels of |E_U[f_i(x_u * S(x_u))] - E_L[f_i(x_l * y_l)]|

    It is ``MultiScaleL1Loss`` without the pairing: f_i are the features of layer i, and E the mean of a channel over
    batch and plane. No image needs a label of its own. Layer 0, the masked image, is omitted, because its mean is that
    of an intensity.

    E_L is a running mean, because a batch is a small sample of the labelled cases. Its gradient is that of the current
    batch, so that the critic learns from both sides. The running mean lags behind the critic by about
    1 / (1 - ``momentum``) iterations.

    With several critics, the loss is the mean over the critics. In a run of several processes, E_L is the mean over
    the processes, and E_U that of one process.

    Args:
        layers: layers to compare, 1 or higher; None for all but layer 0.
        momentum: share of the previous value in the running mean, at least 0 and below 1; 0 uses the last batch only.

    Attributes:
        labelled_means: running means of all critics, layers and channels; empty until the first batch.

    Raises:
        ConfigError: if the momentum is out of range, or ``layers`` is empty or has layer 0 or a layer that the critic
            does not have.

    Examples:
        >>> predicted, true = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
        >>> UnpairedL1Loss()([[predicted, predicted]], [[true, true]])  # |2 - 0.5| of layer 1
        tensor(1.5000)
    """

    def __init__(self, layers: Sequence[int] | None = None, momentum: float = 0.99) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ConfigError(f"unpaired_momentum is {momentum}; expected 0 or more, and less than 1.")
        if layers is not None and (len(layers) == 0 or min(layers) < 1):
            raise ConfigError(
                f"unpaired_layers is {list(layers)}; expected layers from 1, or null for all. Layer 0 is the masked "
                "image itself, which has no part in the unpaired loss."
            )
        self.layers = layers
        self.momentum = momentum
        self.register_buffer("labelled_means", torch.zeros(0))
        self.labelled_means: Tensor

    def forward(self, predicted: list[list[Tensor]], true: list[list[Tensor]]) -> Tensor:
        """Update the running means, and return the loss for the critic's step, a scalar.

        Args:
            predicted: features of unlabelled images masked by their predictions: lists (critics) of lists (layers) of
                (B, channels, H, W).
            true: features of other images masked by their label maps.
        """
        means = self._means(true)
        now = torch.cat(means)
        with torch.no_grad():
            shared = now.detach().clone()
            average_over_processes([shared])
            if len(self.labelled_means) == len(shared):
                self.labelled_means.mul_(self.momentum).add_(shared, alpha=1 - self.momentum)
            else:
                self.labelled_means = shared
            lag = self.labelled_means - now
        return self._distance(predicted, now + lag)

    def to_labelled(self, predicted: list[list[Tensor]]) -> Tensor:
        """Return the loss for the segmentor's step, a scalar: the distance to the running means of true masks."""
        return self._distance(predicted, self.labelled_means.clone())

    def _distance(self, predicted: list[list[Tensor]], labelled: Tensor) -> Tensor:
        means = self._means(predicted)
        others = labelled.split([len(mean) for mean in means])
        return torch.stack([(u - v).abs().mean() for u, v in zip(means, others, strict=True)]).mean()

    def _means(self, features: list[list[Tensor]]) -> list[Tensor]:
        """Return the mean over batch and plane of each channel, one tensor per critic and layer."""
        found = []
        for of_critic in features:
            layers = range(1, len(of_critic)) if self.layers is None else self.layers
            if max(layers) >= len(of_critic):
                raise ConfigError(
                    f"unpaired_layers is {list(layers)}; expected layers from 1 to {len(of_critic) - 1}, those of the "
                    "critic."
                )
            # means over millions of bfloat16 features need float32
            found += [of_critic[i].mean(dim=(0, *range(2, of_critic[i].ndim)), dtype=torch.float32) for i in layers]
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Restore the running means, of as many channels as they were measured for."""
        saved = state_dict.get(f"{prefix}labelled_means")
        if saved is not None:
            self.labelled_means = self.labelled_means.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
