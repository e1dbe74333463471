# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Names in ``history.csv``: ``training/<term>`` and ``validation/<metric>``, as in TensorBoard."""

from __future__ import annotations

import os

import pandas as pd

TRAINING, VALIDATION = "training/", "validation/"
KEY_METRIC = "mean_dice"
_OF_NEITHER = "^parameters_|^peak_memory_mib$"


def read_history(file: str | os.PathLike[str]) -> pd.DataFrame:
    """Read ``history.csv``, see `EpochLog`; a file of an earlier version with the names of today."""
    return with_phases(pd.read_csv(file))


def with_phases(history: pd.DataFrame) -> pd.DataFrame:
    """Give the names of an earlier version's file, which do not say where a value is from, their prefixes.

    In such a file, the metrics of the validation follow the terms of the training in each validated epoch, `mean_dice`
    first.

    Args:
        history: columns ``epoch`` and ``name``, and others.

    Returns:
        The same table if the names have prefixes already; else a copy whose names have them.

    Raises:
        ValueError: an epoch is no number.
    """
    names, epochs = history["name"].astype(str), pd.to_numeric(history["epoch"])
    if names.str.startswith((TRAINING, VALIDATION)).any():
        return history
    of_phase = (epochs > 0) & ~names.str.contains(_OF_NEITHER)
    of_validation: set[str] = set()
    for _, of_epoch in names[of_phase].groupby(epochs):
        listed = of_epoch.tolist()
        if KEY_METRIC in listed:
            of_validation |= set(listed[listed.index(KEY_METRIC) :])
    phases = names.map(lambda name: VALIDATION if name in of_validation else TRAINING)
    return history.assign(name=names.where(~of_phase, phases + names))
