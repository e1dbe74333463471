# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice among configurations by their out-of-fold Dice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from segan_monai.errors import DataError
from segan_monai.reproduce.paired import paired_differences


@dataclass(frozen=True)
class Choice:
    """Chosen configuration.

    Attributes:
        winner: name of the chosen configuration.
        best: name of the configuration with the highest mean Dice.
        dice: mean Dice over patients of every candidate, on the patients that all candidates share.
        differences: all other candidates minus the best one, see ``paired_differences``.
        reason: a sentence that says why the winner was chosen.
    """

    winner: str
    best: str
    dice: dict[str, float]
    differences: pd.DataFrame
    reason: str


def choose_row(scores: pd.DataFrame, candidates: Sequence[str]) -> Choice:
    """Choose the cheapest configuration that is not worse than the best one beyond noise.

    The best configuration has the highest mean Dice. Another is as good if the 95 % confidence interval of its paired
    difference to the best (bootstrap over patients) includes 0. Of these, the cheapest is chosen [ours]: nnU-Net takes
    the highest mean alone (Isensee et al. 2021).

    Args:
        scores: result of ``out_of_fold_scores``.
        candidates: names of configurations, from the cheapest to the most expensive.

    Raises:
        DataError: there is no candidate, or the candidates share no patient.
    """
    if not candidates:
        raise DataError("no configuration has results of all folds, so none can be chosen.")
    found = scores[scores["row"].isin(candidates)]
    by_patient = found.groupby(["row", "patient"])["dice"].mean().unstack("row").dropna()
    if by_patient.empty:
        raise DataError(f"the configurations {', '.join(candidates)} share no patient, so they cannot be compared.")
    dice = {name: float(by_patient[name].mean()) for name in candidates}
    best = max(candidates, key=lambda name: dice[name])  # of equal ones the first, which is the cheapest
    differences = paired_differences(_runs(found), best)
    worse = set(differences.loc[differences["high"] < 0, "row"])
    winner = next(name for name in candidates if name == best or name not in worse)
    return Choice(winner, best, dice, differences, _reason(winner, best, dice, differences))


def _runs(scores: pd.DataFrame) -> list[dict[str, object]]:
    """Return the scores in the form of ``run_row``'s results."""
    return [
        {
            "row": row,
            "seed": seed,
            "fold": fold,
            "dice_of_cases": of_run.groupby("case")["dice"].mean().to_dict(),
            "patient_of_cases": dict(zip(of_run["case"], of_run["patient"], strict=True)),
        }
        for (row, seed, fold), of_run in scores.groupby(["row", "seed", "fold"], sort=False)
    ]


def _reason(winner: str, best: str, dice: dict[str, float], differences: pd.DataFrame) -> str:
    if len(dice) == 1:
        return f"{winner} is the only configuration with results of all folds (mean Dice {dice[winner]:.3f})."
    if winner == best:
        start = f"{best} has the highest mean Dice, {dice[best]:.3f}"
        if best == next(iter(dice)):
            return f"{start}, and is the cheapest configuration."
        return f"{start}, and every cheaper configuration is worse beyond noise."
    line = differences[differences["row"] == winner]
    text = "with fewer than two patients, their difference cannot be told from noise"
    if len(line):
        d = line.iloc[0]
        text = (
            f"their paired difference, {d['difference']:+.4f} (95 % CI {d['low']:+.4f} to {d['high']:+.4f}, "
            f"{d['patients']} patients), is within noise"
        )
    return (
        f"{best} has the highest mean Dice, {dice[best]:.3f}, and {winner} has {dice[winner]:.3f}; {text}, so the "
        "cheaper configuration is chosen."
    )
