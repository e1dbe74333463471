# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Adversarial losses between normalizer and domain discriminator."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segan_monai.errors import ConfigError

KINDS = ("minimax", "non_saturating", "confusion", "least_squares", "hinge", "wasserstein")


class DomainAdversarialLoss(nn.Module):
    """Losses of discriminator D and normalizer G over K + 1 classes: Delisle et al. (2020), Eq. 1, 3 and 4.

    With the first three, D minimizes ``l(D(x), z) + l(D(G(x)), fake)``: -log p(z | x) of raw images plus
    -log p(fake | G(x)) of generated ones. G minimizes one of the following terms:

    - ``minimax``: log p(fake | G(x)), exactly Eq. 1. Its gradient vanishes where D is certain, and it has no lower
      bound.
    - ``non_saturating``: -log p(Z <= K | G(x)) = -log(1 - p(fake | G(x))) [ours, as in Goodfellow et al. (2014)]. It
      has the same fixed point, and its gradient is largest where D is certain.
    - ``confusion``: -(1/K) sum_k log p(k | G(x)) [ours]. It is minimal where D assigns a generated image to every
      domain with equal probability. All other terms are already satisfied by a G that changes nothing: raw images fool
      D, and Eq. 1 does not require the domains to become similar.

    The others are those of GANs, in the paper's outlook, with K + 1 classes [ours]. o_k is the logit of class k, and
    o_f that of "generated":

    - ``least_squares`` (Mao et al. (2017)): D minimizes sum_k (o_k - [k = z])^2; G minimizes o_f^2.
    - ``hinge`` (Lim and Ye (2017)): D minimizes sum_k max(0, 1 - t_k o_k), with t_k = 1 for the class and -1 for the
      others; G minimizes o_f.
    - ``wasserstein`` (Gulrajani et al. (2017)): o_f is the critic's score. D minimizes E[o_f(x)] - E[o_f(G(x))], the
      cross-entropy of the K domains of raw images as in StarGAN (Choi et al. (2018)), and the gradient penalty; G
      minimizes E[o_f(G(x))].

    Terms are means over the batch; Eq. 1 has sums over all samples.

    Args:
        generator: one of the names above.

    Attributes:
        judges_generated: whether the largest of K + 1 logits is D's answer; False for ``wasserstein``, whose score of
            "generated" has no zero.
        needs_penalty: whether D's step includes ``gradient_penalty``.

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
        if generator not in KINDS:
            *others, last = map(repr, KINDS)
            raise ConfigError(f"the adversarial loss is {generator!r}; expected {', '.join(others)} or {last}.")
        self.kind = generator
        self.needs_penalty = generator == "wasserstein"
        self.judges_generated = not self.needs_penalty

    def forward(self, raw: Tensor, generated: Tensor, domain: Tensor) -> Tensor:
        """Return the loss of D without gradient penalty, a scalar.

        Args:
            raw: logits (B, K + 1) of raw images.
            generated: logits (B, K + 1) of generated images.
            domain: domain indices (B,), 0 to K - 1.
        """
        raw, generated = raw.float(), generated.float()
        if self.kind == "wasserstein":
            return raw[:, -1].mean() - generated[:, -1].mean() + F.cross_entropy(raw[:, :-1], domain)
        fake = domain.new_full(generated.shape[:1], generated.shape[1] - 1)
        return self._classify(raw, domain) + self._classify(generated, fake)

    def _classify(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of D's answers, a scalar, for logits (B, K + 1) and classes (B,)."""
        if self.kind not in ("least_squares", "hinge"):
            return F.cross_entropy(logits, target)
        one_hot = F.one_hot(target, logits.shape[1])
        if self.kind == "least_squares":
            return (logits - one_hot).square().sum(dim=1).mean()
        return F.relu(1 - (2 * one_hot - 1) * logits).sum(dim=1).mean()

    def generator(self, generated: Tensor) -> Tensor:
        """Return the loss of G, a scalar, from the logits (B, K + 1) of generated images."""
        generated = generated.float()
        if self.kind == "least_squares":
            return generated[:, -1].square().mean()
        if self.kind in ("hinge", "wasserstein"):
            return generated[:, -1].mean()
        log_p = generated.log_softmax(dim=1)
        if self.kind == "minimax":
            return log_p[:, -1].mean()
        if self.kind == "confusion":
            return -log_p[:, :-1].mean()
        return -log_p[:, :-1].logsumexp(dim=1).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], raw: Tensor, generated: Tensor) -> Tensor:
    """Return the gradient penalty of a critic: Gulrajani et al. (2017), Eq. 3, without its weight.

    E[(|grad o_f(x')| - 1)^2] at random points x' between a raw image and the generated image of another sample.

    Args:
        discriminator: images to logits (B, K + 1). It must treat every image by itself, without batch norm.
        raw: images (B, C, ...).
        generated: generated images of the same shape, detached.

    Returns:
        Scalar.
    """
    share = torch.rand(len(raw), *[1] * (raw.ndim - 1), device=raw.device)
    between = (share * raw + (1 - share) * generated.roll(1, dims=0)).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(between)[:, -1].float().sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def check_critic(discriminator: nn.Module) -> None:
    """Raise ConfigError if a network with batch norm is to have a gradient penalty."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in discriminator.modules()):
        raise ConfigError(
            "adversarial_loss is 'wasserstein', but the discriminator has batch norm, with which the gradient of one "
            "image depends on the others. Pass --discriminator_norm instance, or null for none."
        )
