# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Warns where a network is applied to images that it was trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.data.split_file import cases_of_trained_content, read_split
from segan_monai.errors import DataError
from segan_monai.member_weights import split_of

logger = logging.getLogger(__name__)


def warn_of_training_images(cases: Sequence[Mapping[str, Any]], weights: Sequence[Path]) -> None:
    """Warn of cases that weights were trained on, whatever their names: their label maps are too good.

    Weights without a ``split.json`` are taken as trained on none of them, as are those with a damaged one, of which
    another warning tells.

    Args:
        cases: those to segment.
        weights: file of the network, or one file per member of an ensemble.
    """
    splits = []
    for file in map(split_of, weights):
        try:
            if file.is_file():
                splits.append(read_split(file))
        except DataError as error:
            logger.warning("the images that the network was trained on are unknown: %s", error)
    trained = cases_of_trained_content(cases, *splits)
    if trained:
        logger.warning(
            "%d of %d cases were trained on, such as %s: their label maps, and any Dice expected of them, are better "
            "than those of new images",
            len(trained),
            len(cases),
            min(case["case"] for case in trained),
        )
