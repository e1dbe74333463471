# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""MONAI's datasets for data in which a case may be bad: one does not cost the others."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.data import CacheDataset, Dataset
from monai.transforms import Compose, RandomizableTrait, Transform
from monai.utils import ensure_tuple

from segan_monai.data.case_cache import CaseCache
from segan_monai.errors import DataError, causes, reason
from segan_monai.files import writing

logger = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """Cases for inference: one that cannot be read or prepared comes as its name and what is wrong with it.

    Takes what MONAI's ``Dataset`` takes; each case has its name under ``case``. Gives for each index what the transform
    made of the case, or ``{"case": name, "error": text}``.
    """

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:  # whatever a reader or a transform may raise; `CaseEvaluator` records it
            return {"case": self.data[index]["case"], "error": reason(error)}


class CaseCacheDataset(CacheDataset):
    """MONAI's `CacheDataset` that can pass over the cases which cannot be read, and says which they are.

    With `skip_unreadable`, cases that are bad while the cache is filled are left out (in a run of several processes,
    which must take as many steps each, they are replaced by good ones). One that turns bad later (with
    a `cache_rate` below 1 files are read in every epoch) is replaced by the next good case, so that batches keep their
    size. Both are logged, and listed in a file.

    With `cache_dir`, what is cached is kept in files for later runs, see `CaseCache`: all cases are prepared, or found
    prepared, at the start and mapped into memory, so `cache_rate` has no part in it.

    Args:
        data: cases, each with its name under ``case``.
        transform: called with a case.
        cache_dir: folder of prepared cases, for any number of data sets and configs; None for none.
        skip_unreadable: whether to go on without bad cases; if not, the first one stops the run.
        report: the list of bad cases, CSV with the columns ``case,error``.
        **settings: of `CacheDataset`.

    Raises:
        DataError: a case is bad and `skip_unreadable` is not set, or all are bad.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Sequence[Callable] | Callable | None = None,
        skip_unreadable: bool = False,
        report: str | os.PathLike[str] = "skipped_cases.csv",
        cache_dir: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        self.files: CaseCache | None = None
        if cache_dir:
            settings["cache_rate"] = 1.0
            self.files = CaseCache(cache_dir, [_cached_part(transform), settings.get("as_contiguous", True)])
        self.skip_unreadable = skip_unreadable
        self.report = Path(report)
        super().__init__(data, transform, **settings)

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        cache = super()._fill_cache(indices)
        if self.files is not None and cache:
            logger.info(
                "%d cases found prepared in %s, %d made now", self.files.read, self.files.folder, self.files.made
            )
        good = [index for index, item in enumerate(cache) if item is not None]
        if len(good) == len(cache):
            return cache
        if not good and len(cache) == len(self.data):
            raise self._all_bad()
        if good and idist.get_world_size() > 1:  # where all processes must take the same number of steps
            good = [index if item is not None else good[index % len(good)] for index, item in enumerate(cache)]
        self.data = [*(self.data[index] for index in good), *self.data[len(cache) :]]
        self.cache_num = len(good)
        return [cache[index] for index in good]

    def _load_cache_item(self, idx: int) -> Any:
        prepare = partial(super()._load_cache_item, idx)
        try:
            return prepare() if self.files is None else self.files.get(self.data[idx], prepare)
        except Exception as error:
            self._skip(idx, error)
            return None

    def _transform(self, index: int) -> Any:
        if index >= len(self.data):
            raise IndexError(f"{index} of {len(self.data)} cases")  # ends a loop over the dataset
        for following in range(len(self.data)):
            candidate = (index + following) % len(self.data)
            try:
                return super()._transform(candidate)
            except Exception as error:
                self._skip(candidate, error)
        raise self._all_bad()

    def _skip(self, index: int, error: Exception) -> None:
        """Note a bad case, or let the error through if it is not to be skipped or not one of the data."""
        if not self.skip_unreadable or not any(isinstance(link, DataError) for link in causes(error)):
            raise error
        text = reason(error).encode(errors="backslashreplace").decode()  # a path may hold bytes that are not UTF-8
        row = [self.data[index]["case"], text]
        known = self.report.is_file()
        if known:
            with self.report.open(newline="", encoding="utf-8") as stream:
                if row in csv.reader(stream):
                    return
        logger.warning("case %s is skipped: %s", *row)
        with writing(self.report), self.report.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([row] if known else [["case", "error"], row])

    def _all_bad(self) -> DataError:
        return DataError(f"none of {len(self.data)} cases can be read; {self.report} says why. Mend or replace them.")


def _cached_part(transform: Sequence[Callable] | Callable | None) -> list[Any]:
    """The transforms whose results a `CacheDataset` keeps: those before the first random one."""
    # to make or to flatten a Compose would seed the random transforms in it
    transforms = transform.transforms if isinstance(transform, Compose) else ensure_tuple(transform)
    return list(takewhile(lambda t: isinstance(t, Transform) and not isinstance(t, RandomizableTrait), transforms))
