# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The mark of simulated data, so that results on them are never taken for results on patients."""

from __future__ import annotations

import os
from pathlib import Path

MARK = "SIMULATED phantom (segan-monai)"
"""Text in the header of every simulated volume and in a description beside them; NIfTI's ``descrip`` has 79 bytes."""

_DESCRIPTIONS = ("README.txt", "dataset.json")


def is_simulated(dataset_dir: str | os.PathLike[str] | None) -> bool:
    """Return whether this package simulated a data set; False if the folder or its description cannot be read.

    Args:
        dataset_dir: folder of the data set, in which ``README.txt`` or ``dataset.json`` contains ``MARK``.
    """
    if not dataset_dir:
        return False
    for name in _DESCRIPTIONS:
        try:
            if MARK.encode() in (Path(dataset_dir) / name).read_bytes():
                return True
        except (OSError, ValueError):  # ValueError: a null byte in the path
            continue
    return False
