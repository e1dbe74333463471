# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Detection of loss terms that are NaN or infinite, without a wait of the host in every iteration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segan_monai.errors import UserError


class NonFiniteLossError(UserError):
    """Error for a loss term that became NaN or infinite; the weights are those before the step."""


class _Losses(NamedTuple):
    """Loss terms of one phase that the host has not read yet."""

    phase: str
    names: list[str]
    values: Tensor
    epoch: int
    iteration: int
    cases: str


class LossWatch:
    """Reads loss terms on the host, and raises an error if one is not finite.

    On a GPU, reading a value makes the host wait until all kernels have run. Terms are therefore collected and read
    together. Until then, ``finite`` keeps on the device whether all terms so far were finite, and
    ``unchanged_unless(watch.finite, ...)`` undoes every step after one that was not. So no weight changes after a
    non-finite loss, although the host learns of it later.

    Args:
        look_after: number of phases whose terms are read together; 1 reads them at once, before the step.

    Attributes:
        finite: scalar of type bool on the device, or None if terms are read at once.
    """

    def __init__(self, look_after: int = 1) -> None:
        self.look_after = look_after
        self.finite: Tensor | None = None
        self._unread: list[_Losses] = []

    def reset(self) -> None:
        """Forget all terms, before a new run."""
        self.finite, self._unread = None, []

    def add(self, phase: str, names: Sequence[str], values: Tensor, epoch: int, iteration: int, cases: str) -> None:
        """Add the terms of a phase before its step, and read all terms if it is time.

        Args:
            phase: name of the phase, such as ``critic``.
            names: names of the terms.
            values: their values (N,), detached.
            epoch: number of the epoch, for the message.
            iteration: number of the iteration, for the message.
            cases: names of the cases in the batch, for the message.

        Raises:
            NonFiniteLossError: a term that was read is not finite. The message names the first one.
        """
        self._unread.append(_Losses(phase, list(names), values, epoch, iteration, cases))
        if self.look_after > 1:
            now = values.isfinite().all()
            self.finite = now if self.finite is None else self.finite & now
        if len(self._unread) >= self.look_after:
            self.look()

    def look(self) -> None:
        """Read all terms that were not read yet.

        Raises:
            NonFiniteLossError: a term is not finite.
        """
        unread, self._unread = self._unread, []
        if not unread or torch.cat([losses.values for losses in unread]).isfinite().all():  # the only wait of the host
            return
        first = next(losses for losses in unread if not losses.values.isfinite().all())
        index = int(first.values.isfinite().logical_not().nonzero()[0])
        raise NonFiniteLossError(
            f"loss term '{first.names[index]}' of the {first.phase} became {float(first.values[index])} in epoch "
            f"{first.epoch}, iteration {first.iteration}, on a batch of {first.cases}; "
            "expected a finite number. The checkpoint of the last epoch is kept. Lower the learning rate, train "
            "without amp, or check these images for extreme intensities; then continue with --resume true."
        )


def names_of_cases(batch: Any) -> str:
    """Return the distinct case names of a batch, and of the unlabelled batch that it carries, as text."""
    batches = [batch, batch.get("unlabeled")] if isinstance(batch, dict) else []
    names = [name for part in batches if isinstance(part, dict) for name in part.get("case") or ()]
    return ", ".join(dict.fromkeys(map(str, names))) or "cases without names"


@contextmanager
def unchanged_unless(finite: Tensor, tensors: Sequence[Tensor]) -> Iterator[None]:
    """Undo the changes that the block makes to tensors in place, unless a scalar on their device is True.

    The host does not read the scalar. This costs one copy of the tensors.
    """
    with torch.no_grad():
        before = torch._foreach_add(list(tensors), 0) if tensors else []
    yield
    with torch.no_grad():
        for tensor, old in zip(tensors, before, strict=True):
            torch.where(finite, tensor, old, out=tensor)
