# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Check of the weights with which a training begins: cases that they have seen, and settings that they had."""

from __future__ import annotations

from collections.abc import Sequence

from monai.bundle import ConfigParser

from segan_monai.check.cases import Case
from segan_monai.check.report import Report
from segan_monai.data.split_file import cases_of_trained_content, read_split
from segan_monai.errors import ConfigError, DataError
from segan_monai.member_weights import initial_file, split_of
from segan_monai.trained import contradictions, read_initial_settings, settings_of_training
from segan_monai.trained.record import ADJUSTABLE

OF_TASK = ADJUSTABLE | {"regions", "num_classes"}
"""Settings in which a training may well differ from the one that it begins with."""


def cases_begun_on(parser: ConfigParser, report: Report) -> Sequence[Case]:
    """Return the cases that the initial weights were trained on, if these are known.

    Args:
        parser: parsed config of a training.
        report: receives a warning if a split is damaged.
    """
    weights = _weights(parser)
    if weights is None:
        return ()
    try:
        split_file = split_of(initial_file(weights))
        split = read_split(split_file, "Copy it again from that training.") if split_file.is_file() else None
    except ConfigError:  # building the network says so
        return ()
    except DataError as error:
        report.warning(
            "subjects", "initial_weights", f"it is unknown which cases initial_weights was trained on: {error}"
        )
        return ()
    return cases_of_trained_content(parser.get_parsed_content("cases"), split) if split else ()


def check_initial_settings(parser: ConfigParser, report: Report) -> None:
    """Report settings of preprocessing and network that are not those of the initial weights.

    Other shapes are not loaded, and the log of the training names them; another window or order of modalities would go
    unnoticed.

    Args:
        parser: parsed config of a training.
        report: receives a warning.
    """
    weights = _weights(parser)
    if weights is None or ("resume" in parser and parser.get_parsed_content("resume")):
        return
    try:
        file = initial_file(weights)
    except ConfigError:  # building the network says so
        return
    try:
        trained = read_initial_settings(file)
    except ConfigError as error:
        report.warning("initial weights", "initial_weights", f"their settings are unknown: {error}")
        return
    others = contradictions(trained, settings_of_training(parser), OF_TASK) if trained else {}
    report.note("initial weights", "settings of their training" if trained else "no model.json beside them")
    if others:
        listed = ", ".join(f"{key} was {before}, and is {now} here" for key, (before, now) in others.items())
        report.warning(
            "initial weights",
            "initial_weights",
            f"initial_weights {weights} was trained with other settings: {listed}. Set them alike, unless you mean it: "
            "what the weights have learnt holds for images that are prepared as theirs were.",
        )


def _weights(parser: ConfigParser) -> str | None:
    return parser.get_parsed_content("initial_weights") if "initial_weights" in parser else None
