# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading of ``history.csv``, whose names are ``training/<term>`` and ``validation/<metric>``, as in TensorBoard."""

from __future__ import annotations

import os

import pandas as pd

TRAINING, VALIDATION, LAYERS = "training/", "validation/", "layers/"
KEY_METRIC = "mean_dice"
_WITHOUT_PHASE = "^parameters_|^peak_memory_mib$"


def read_history(file: str | os.PathLike[str]) -> pd.DataFrame:
    """Read ``history.csv``, see ``EpochLog``; names in files of earlier versions are converted."""
    return with_phases(pd.read_csv(file))


def with_phases(history: pd.DataFrame) -> pd.DataFrame:
    """Add the prefixes ``training/`` and ``validation/`` to the names in files of earlier versions, which lack them.

    In such files, the validation metrics follow the training terms in each validated epoch, and ``mean_dice`` is the
    first of them.

    Args:
        history: table with the columns ``epoch`` and ``name``, among others.

    Returns:
        The same table if the names already have prefixes, else a copy with prefixes.

    Raises:
        ValueError: An epoch is not a number.
    """
    names, epochs = history["name"].astype(str), pd.to_numeric(history["epoch"])
    if names.str.startswith((TRAINING, VALIDATION)).any():
        return history
    of_phase = (epochs > 0) & ~names.str.contains(_WITHOUT_PHASE)
    of_validation: set[str] = set()
    for _, of_epoch in names[of_phase].groupby(epochs):
        listed = of_epoch.tolist()
        if KEY_METRIC in listed:
            of_validation |= set(listed[listed.index(KEY_METRIC) :])
    phases = names.map(lambda name: VALIDATION if name in of_validation else TRAINING)
    return history.assign(name=names.where(~of_phase, phases + names))
