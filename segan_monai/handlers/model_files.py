# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The trained weights, ``model.pt``, and what belongs beside them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segan_monai.networks.weights import save_atomically
from segan_monai.quality.file import quality_file
from segan_monai.trained import write_trained_settings

logger = logging.getLogger(__name__)


def write_model(
    weights: Mapping[str, Any], output_dir: Path, ckpt_dir: Path, trained_settings: Mapping[str, Any]
) -> None:
    """Write the weights of a training to both of its folders, with their settings and the split of the cases.

    ``quality.json`` beside them is removed: it was fitted to the weights before, so inference would refuse it.

    Args:
        weights: state dictionary of the deployed network.
        output_dir: folder of the run, which may have a ``split.json``.
        ckpt_dir: folder of the weights, which receives a copy of it; it may be the same.
        trained_settings: content of ``model.json``; nothing is written if it is empty.

    Raises:
        OutputError: A file cannot be written.
    """
    for folder in {output_dir, ckpt_dir}:
        folder.mkdir(parents=True, exist_ok=True)
        save_atomically(weights, folder / "model.pt")
        _remove_quality_of_earlier_weights(folder / "model.pt")
    split = output_dir / "split.json"
    if split.is_file() and ckpt_dir != output_dir:
        shutil.copyfile(split, ckpt_dir / "split.json")
    for folder in {output_dir, ckpt_dir} if trained_settings else ():
        write_trained_settings(folder / "model.pt", trained_settings)


def _remove_quality_of_earlier_weights(weights: Path) -> None:
    file = quality_file(weights)
    if file.is_file():
        file.unlink()
        logger.warning("removed %s: it was fitted to the weights before this training; fit it again", file)
