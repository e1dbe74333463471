# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""One optimizer step of a phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from segan_monai.engines.accumulation import Part
from segan_monai.engines.gradient_exchange import GradientExchange
from segan_monai.engines.loss_watch import names_of_cases, unchanged_unless
from segan_monai.engines.parameters import weights_of

if TYPE_CHECKING:
    from segan_monai.engines.phased import PhasedTrainer


class PhaseStep:
    """Accumulates the gradients of the parts of a batch, and takes one step on their sum.

    Args:
        trainer: its losses, autocast type, gradient scalers and exchanges between processes are used.
        phase: name of the phase; each phase has a separate gradient scaler.
        optimizer: optimizer of the network trained in this phase.

    Attributes:
        loss: weighted sum of the terms, detached, once all parts are added.
    """

    def __init__(self, trainer: PhasedTrainer, phase: str, optimizer: Optimizer) -> None:
        self.trainer = trainer
        self.phase = phase
        self.optimizer = optimizer
        self.exchange: GradientExchange = trainer.exchange_of(phase, optimizer)
        self.scaler: torch.amp.GradScaler | None = None
        self.loss: Tensor = torch.zeros((), device=trainer.state.device)
        self.has_gradient = False
        self._terms: dict[str, Tensor] = {}
        optimizer.zero_grad(set_to_none=True)

    def add(self, part: Part, terms: Mapping[str, Tensor], weights: Mapping[str, Any]) -> None:
        """Add the gradient of one part of the batch.

        Args:
            part: the part; its share of the batch multiplies the terms.
            terms: scalar loss terms by name, means over the samples of the part; logged under these names.
            weights: weight of each term in the sum; -1 to maximize.

        Raises:
            NonFiniteLossError: if a term is not finite. No weight changes then. The message names the first term. On a
                GPU it is raised up to ten iterations later, and the weights stay unchanged in between.
        """
        if not terms:
            if part.last and self._terms:
                self._watch()
            return
        for name, term in terms.items():
            value = term.detach() * part.share
            self._terms[name] = self._terms[name] + value if name in self._terms else value
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum() * part.share
        self.loss = self.loss + loss.detach()
        if part.last:
            self._watch()
        # independent of the weights: layer 0 alone (S3-3C-s0) is the masked image itself
        if not loss.requires_grad:
            return
        self.has_gradient = True
        if self.trainer.autocast_dtype is torch.float16:
            self.scaler = self.trainer.scaler_of(self.phase)
            loss = self.scaler.scale(loss)
        if not part.last:
            loss.backward()
            return
        with self.exchange.during_backward():
            loss.backward()

    def _watch(self) -> None:
        values = torch.stack([*self._terms.values()])
        state = self.trainer.state
        cases = names_of_cases(state.batch)
        self.trainer.losses.add(self.phase, list(self._terms), values, state.epoch, state.iteration, cases)
        state.output["terms"].update(zip(self._terms, values.unbind(), strict=True))

    def take(self, constrain: Callable[[], None]) -> None:
        """Average the gradients over processes, and take the step.

        Args:
            constrain: changes weights of the optimizer after the step, such as clamping.
        """
        if not self._terms:  # no part has a term in this iteration
            return
        with self._finite_in_all_processes():
            if self.scaler:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            elif self.has_gradient:
                self.optimizer.step()
            constrain()

    @contextmanager
    def _finite_in_all_processes(self) -> Iterator[None]:
        """Average gradients, and undo the changes of weights in the block if a loss of any process is not finite.

        The same message tells all processes whether a signal requests a stop.
        """
        trainer = self.trainer
        told = trainer.stops.told()
        if trainer.losses.finite is None:  # the host has read the losses
            self.exchange.complete([told])
            yield
            return
        share = trainer.losses.finite.float()  # becomes the share of processes with finite losses
        self.exchange.complete([told, share])
        with unchanged_unless(share == 1, weights_of(self.optimizer)):
            yield
