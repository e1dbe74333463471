# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A data loader whose batches carry batches of other loaders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.utils.data import DistributedSampler

from segan_monai.errors import DataError


class JoinedLoaders:
    """Loader that adds to each batch of a main loader one batch of each of the other loaders, under its name.

    The length is that of the main loader. A shorter loader begins again; a longer one begins anew with each epoch of
    the main loader, in another order.

    All random choices follow from the state of torch's random generator when the epoch begins. The other loaders are
    seeded by one number drawn then, because they may begin again at any time in the epoch. A resumed run can therefore
    pass over the batches that were used, and gets the same ones after them.

    Args:
        main: yields dictionaries.
        others: loaders by the key that their batches receive.

    Attributes:
        num_workers: 0 if any of the loaders runs its transforms in this process.
        dataset: the data sets of these loaders, whose transforms ``RunCheckpoint`` seeds. Its length is that of the
            main data set, by which federated learning weighs clients.

    Raises:
        DataError: when a loader has no batch.

    Examples:
        >>> list(JoinedLoaders([{"image": 1}, {"image": 2}, {"image": 3}], {"unlabeled": [7, 8]}))
        [{'image': 1, 'unlabeled': 7}, {'image': 2, 'unlabeled': 8}, {'image': 3, 'unlabeled': 7}]
    """

    def __init__(self, main: Any, others: Mapping[str, Iterable]) -> None:
        self.main = main
        self.others = dict(others)
        loaders = {"main": main, **self.others}
        here = {name: loader for name, loader in loaders.items() if getattr(loader, "num_workers", None) == 0}
        self.num_workers = 0 if here else None
        self.dataset = _DataSets(
            len(getattr(main, "dataset", main)), {name: loader.dataset for name, loader in here.items()}
        )

    def __len__(self) -> int:
        return len(self.main)

    def set_epoch(self, epoch: int) -> None:
        """Tell the loaders' distributed samplers, if any, which epoch begins, as MONAI does for a single loader."""
        for loader in (self.main, *self.others.values()):
            sampler = getattr(loader, "sampler", None)
            if isinstance(sampler, DistributedSampler):
                sampler.set_epoch(epoch)

    def attach(self, engine: Engine) -> None:
        """Register with the trainer, which tells the epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.set_epoch(engine.state.epoch))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        seed = int(torch.randint(2**31, ()))
        streams = {name: _endless(name, loader, seed) for name, loader in self.others.items()}
        return self._join(iter(self.main), streams)

    def _join(self, main: Iterator, streams: Mapping[str, Iterator]) -> Iterator[dict[str, Any]]:
        for batch in main:
            yield {**batch, **{name: next(stream) for name, stream in streams.items()}}


class _DataSets(SimpleNamespace):
    """Data sets as attributes, with the length of one of them."""

    def __init__(self, length: int, data_sets: Mapping[str, Any]) -> None:
        super().__init__(**data_sets)
        self._length = length

    def __len__(self) -> int:
        return self._length


def _endless(name: str, loader: Iterable, seed: int) -> Iterator[Any]:
    """Yield the batches of a loader again and again, without drawing from torch's random generator."""
    for turn in count():
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed + turn)
        try:
            iterator = iter(loader)
            first = next(iterator, None)  # samplers draw their seed at the first batch
        finally:
            torch.set_rng_state(before)
        if first is None:
            raise DataError(
                f"the loader of '{name}' has no batch. It needs at least as many samples as its batch size, or "
                "drop_last false."
            )
        yield first
        yield from iterator
