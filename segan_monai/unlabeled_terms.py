# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the loss terms of unlabelled images need, as the check of a config and the trainers demand it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WEIGHTS = ("consistency_weight", "unpaired_weight", "patch_weight")
_OF_CRITIC = ("unpaired_weight", "patch_weight")


def terms_in_use(settings: Mapping[str, Any]) -> list[str]:
    """Return the weights of unlabelled terms that are not 0, as text such as ``patch_weight 0.25``."""
    return [f"{key} {settings[key]}" for key in WEIGHTS if settings.get(key)]


def unmet_needs(settings: Mapping[str, Any]) -> Iterator[str]:
    """Describe each term that lacks what it needs.

    Args:
        settings: values of the config keys by name, or arguments of a trainer under these names. Rules about absent
            keys are skipped.

    Yields:
        Messages that name both settings and say what to do.
    """
    used = terms_in_use(settings)
    if used and settings.get("unlabeled", "use") != "use":
        yield (
            f"{' and '.join(used)} with unlabeled {settings['unlabeled']}: there are no unlabelled images. Set "
            "unlabeled to use, and put such images beside the labelled ones or list them as 'unlabeled' in the "
            "datalist; or set the weight to 0."
        )
    if settings.get("consistency_weight") and not settings.get("ema_decay", True):
        yield (
            f"consistency_weight {settings['consistency_weight']} with ema_decay 0: the teacher is the segmentor with "
            "averaged weights. Set ema_decay, such as 0.99, or consistency_weight to 0."
        )
    norm = settings.get("critic_norm")
    if settings.get("unpaired_weight") and norm:
        yield (
            f"unpaired_weight {settings['unpaired_weight']} with critic_norm {str(norm).lower()}: norm layers remove "
            "the mean features that this term compares. Set critic_norm to false, or use patch_weight."
        )
    yield from _needs_of_critic(settings)


def _needs_of_critic(settings: Mapping[str, Any]) -> Iterator[str]:
    """Describe what the unpaired and the patch term lack."""
    key = next((key for key in _OF_CRITIC if settings.get(key)), None)
    if key is None:
        return
    term = f"{key} {settings[key]}"
    if settings.get("critic_score"):
        yield (
            f"{term} with critic_score true: the term is of the critics' features, and such critics return one score "
            "per image instead. Set critic_score to false."
        )
    if settings.get("foreground_probability") == 1:
        yield (
            f"{term} with foreground_probability 1: the critics compare unlabelled slices with labelled ones that were "
            "not chosen by their label, and there would be none. Set foreground_probability to 0.5."
        )
    if settings.get("balance_gradients") and not settings.get("supervised_weight", True):
        yield (
            f"{term} with balance_gradients true and supervised_weight 0: the weight is relative to the gradient of "
            "the supervised loss. Set supervised_weight to 1, or balance_gradients to false."
        )
    if settings.get("balance_gradients") and settings.get("compile"):
        yield (
            f"{term} with balance_gradients true and compile {settings['compile']}: a compiled network has no "
            "gradients of one layer. Set balance_gradients to false, or omit compile."
        )
