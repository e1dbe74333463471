# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""MONAI datasets that tolerate unreadable cases."""

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
from segan_monai.deferred import are_deferred, write_in_time
from segan_monai.errors import DataError, causes, reason
from segan_monai.files import writing

logger = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """Dataset for inference that returns an error record for a case that cannot be read or transformed.

    A case with ``unusable``, see ``find_cases``, is one of these, and that text is its error.

    Takes the arguments of MONAI's ``Dataset``; each case has its name under ``case``. Each item is the transformed
    case, or ``{"case": name, "error": text}``.
    """

    def _transform(self, index: int) -> Any:
        if "unusable" in self.data[index]:
            return {"case": self.data[index]["case"], "error": self.data[index]["unusable"]}
        try:
            return super()._transform(index)
        except Exception as error:  # readers and transforms raise many types; `CaseEvaluator` records the error
            return {"case": self.data[index]["case"], "error": reason(error)}


class CaseCacheDataset(CacheDataset):
    """``CacheDataset`` that can skip and report unreadable cases, and can cache on disk.

    With ``skip_unreadable``, each unreadable case is logged and listed in ``report``:

    - Found while the cache is filled, the case is removed. In a distributed run it is replaced by a readable case,
      because all processes must take the same number of steps.
    - Found later (with a ``cache_rate`` below 1, files are read in every epoch), it is replaced by the next readable
      case, so that batches keep their size.

    With ``cache_dir``, preprocessed cases are kept in files for later runs, see ``CaseCache``. All cases are then
    preprocessed or found at the start and memory-mapped; ``cache_rate`` has no effect.

    Args:
        data: Cases, each with its name under ``case``.
        transform: Called with a case.
        cache_dir: Folder of preprocessed cases, shared by any number of data sets and configs; None to disable.
        skip_unreadable: Whether to skip unreadable cases; if False, the first one stops the run.
        report: List of unreadable cases, a CSV file with the columns ``case,error``.
        **settings: Further arguments of ``CacheDataset``.

    Raises:
        DataError: A case is unreadable and ``skip_unreadable`` is False, or all cases are unreadable.
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
        self.skipped: list[list[str]] = []
        super().__init__(data, transform, **settings)

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        cache = super()._fill_cache(indices)
        if self.files is not None and cache:
            logger.info("%d cases found in the cache %s, %d added", self.files.read, self.files.folder, self.files.made)
        good = [index for index, item in enumerate(cache) if item is not None]
        if len(good) == len(cache):
            return cache
        if not good and len(cache) == len(self.data):
            raise self._all_bad()
        if good and idist.get_world_size() > 1:  # all processes must take the same number of steps
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
        """Record an unreadable case; raise the error again if cases are not skipped or the data is not its cause."""
        if not self.skip_unreadable or not any(isinstance(link, DataError) for link in causes(error)):
            raise error
        text = reason(error).encode(errors="backslashreplace").decode()  # a path may hold bytes that are not UTF-8
        row = [self.data[index]["case"], text]
        deferred = are_deferred(self.report.parent)
        if row in (self.skipped if deferred else [*self.skipped, *self._reported()]):
            return
        self.skipped.append(row)
        logger.warning("case %s is skipped: %s", *row)
        write_in_time(self.report.parent, partial(self._add, row))

    def _reported(self) -> list[list[str]]:
        """Return the rows of the report, which other processes write too."""
        if not self.report.is_file():
            return []
        with self.report.open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))

    def _add(self, row: list[str]) -> None:
        rows = [row] if self.report.is_file() else [["case", "error"], row]
        with writing(self.report), self.report.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)

    def _all_bad(self) -> DataError:
        first = ": ".join(self.skipped[0])
        return DataError(f"none of {len(self.data)} cases can be read. Fix or replace the files. The first is {first}")


def _cached_part(transform: Sequence[Callable] | Callable | None) -> list[Any]:
    """Return the transforms whose results ``CacheDataset`` caches: those before the first random one."""
    # creating or flattening a Compose would reseed its random transforms
    transforms = transform.transforms if isinstance(transform, Compose) else ensure_tuple(transform)
    return list(takewhile(lambda t: isinstance(t, Transform) and not isinstance(t, RandomizableTrait), transforms))
