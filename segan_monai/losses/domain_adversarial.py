# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Adversarial loss between normalizer and domain discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError


class DomainAdversarialLoss(nn.Module):
    """Losses of discriminator D and normalizer G over K + 1 classes: Delisle et al. (2020), Eq. 1, 3 and 4.

    D minimizes ``l(D(x), z) + l(D(G(x)), fake)``: -log p(z | x) of raw images plus -log p(fake | G(x)) of generated
    ones. G minimizes one of the following terms:

    - ``minimax``: log p(fake | G(x)), exactly Eq. 1. Its gradient vanishes where D is certain, and it has no lower
      bound.
    - ``non_saturating``: -log p(Z <= K | G(x)) = -log(1 - p(fake | G(x))) [ours, as in Goodfellow et al. (2014)]. It
      has the same fixed point, and its gradient is largest where D is certain.
    - ``confusion``: -(1/K) sum_k log p(k | G(x)) [ours]. It is minimal where D assigns a generated image to every
      domain with equal probability. The other two terms are already satisfied by a G that changes nothing: raw images
      fool D, and Eq. 1 does not require the domains to become similar.

    Terms are means over the batch; Eq. 1 has sums over all samples.

    Args:
        generator: loss of G: ``minimax``, ``non_saturating`` or ``confusion``.

    Raises:
        ConfigError: if ``generator`` is anything else.

    Examples:
        >>> loss = DomainAdversarialLoss()
        >>> undecided = torch.zeros(4, 3)  # K = 2
        >>> loss(undecided, undecided, torch.tensor([0, 0, 1, 1]))  # 2 log 3
        tensor(2.1972)
    """

    def __init__(self, generator: str = "minimax") -> None:
        super().__init__()
        if generator not in ("minimax", "non_saturating", "confusion"):
            raise ConfigError(
                f"the adversarial loss is {generator!r}; expected 'minimax', 'non_saturating' or 'confusion'."
            )
        self.kind = generator

    def forward(self, raw: Tensor, generated: Tensor, domain: Tensor) -> Tensor:
        """Return the loss of D, a scalar.

        Args:
            raw: logits (B, K + 1) of raw images.
            generated: logits (B, K + 1) of generated images.
            domain: domain indices (B,), 0 to K - 1.
        """
        fake = torch.full_like(domain, generated.shape[1] - 1)
        return F.cross_entropy(raw.float(), domain) + F.cross_entropy(generated.float(), fake)

    def generator(self, generated: Tensor) -> Tensor:
        """Return the loss of G, a scalar, from the logits (B, K + 1) of generated images."""
        log_p = generated.float().log_softmax(dim=1)
        if self.kind == "minimax":
            return log_p[:, -1].mean()
        if self.kind == "confusion":
            return -log_p[:, :-1].mean()
        return -log_p[:, :-1].logsumexp(dim=1).mean()
