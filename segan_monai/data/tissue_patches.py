# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Every patch of every case as one dataset, as in Delisle et al. (2020), Section 3.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
from torch.utils.data import Dataset

from segan_monai.errors import ConfigError


class TissuePatchDataset(Dataset):
    """All patches of a dataset of cases, so that an epoch sees each patch once and a batch mixes cases.

    Args:
        cases: cached cases, each with the patch centres that ``TissueCentresd`` stored as ``label_centres``.
        cut: called with a case that has one centre; returns a list with its patch, such as ``RandTissuePatchesd`` with
            ``num_samples`` None.

    Raises:
        ConfigError: in a run of several processes, which would take different numbers of steps.
    """

    def __init__(self, cases: Sequence[Mapping[str, Any]], cut: Any) -> None:
        if idist.get_world_size() > 1:
            raise ConfigError(
                "patches_per_volume is null: processes with different numbers of patches would wait for each other. "
                "Pass --patches_per_volume with a number, or train in one process."
            )
        self.cases = cases
        self.cut = cut
        counts = [len(cases[index]["label_centres"]) for index in range(len(cases))]
        self.ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Any:
        case = int(np.searchsorted(self.ends, index, side="right"))
        first = int(self.ends[case - 1]) if case else 0
        found = self.cases[case]
        (patch,) = self.cut({**found, "label_centres": found["label_centres"][index - first][None]})
        return patch
