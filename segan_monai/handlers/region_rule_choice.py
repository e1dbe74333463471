# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice of each region's post-processing on the validation cases."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import ensure_tuple

from segan_monai.errors import ConfigError, DataError
from segan_monai.handlers.per_case import PerCase
from segan_monai.places import require_outside_package
from segan_monai.trained import settings_file, write_region_rules
from segan_monai.transforms.known_labels import known_voxels
from segan_monai.transforms.region_rules import RegionRule, kept_components, label_components, threshold_mask
from segan_monai.transforms.regions import label_to_regions

logger = logging.getLogger(__name__)

THRESHOLDS = (0.5, 0.4, 0.6, 0.3)
FRACTIONS = (0.1, 0.2, 0.5, 1.0)
VOXELS = (10, 30, 100, 300, 1000)
CANDIDATES = [
    RegionRule(threshold, fraction, voxels, fill_holes)
    for fill_holes in (False, True)
    for threshold in THRESHOLDS
    for fraction, voxels in [(0.0, 0), *((f, 0) for f in FRACTIONS), *((0.0, v) for v in VOXELS)]
]
"""Rules that are tried [ours]; the first is the default."""
LEAST_GAIN = 0.002
"""A rule replaces the default only if it increases the mean Dice by this much [ours]."""


class RegionRuleChoice(PerCase[np.ndarray]):
    """Chooses a ``RegionRule`` per region by the mean Dice of validation cases, and writes it to ``model.json``.

    Evaluation, inference and exports then use it, because settings of ``model.json`` travel with the weights. Each
    region is judged by itself. A rule must increase the mean Dice by ``LEAST_GAIN``, and still increase it without the
    case that gains most; else the region keeps the default. Attach it to an evaluator whose output has
    ``probabilities`` (K, H, W, D) on the grid of the batch's ``label`` (1, H, W, D).

    Voxels whose label is unknown count in the size of a component, but not in the Dice. A case counts for the regions
    for which it was labelled (``labelled_regions``).

    Args:
        weights: ``model.pt``, beside which ``model.json`` lies, or a list of this one file.
        regions: label values of each region.
        subset: the cases that are evaluated, which must be ``validation``: other cases would flatter the result.
        ignore_label: value of voxels whose label is unknown; None for none.

    Raises:
        ConfigError: ``subset`` is another one, there are several files of weights, the weights have no ``model.json``,
            or they are those of the package.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        regions: Mapping[str, Sequence[int]],
        subset: str,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        files = ensure_tuple(weights)
        self.weights = Path(files[0])
        self.ignore_label = ignore_label
        self.regions = regions
        if subset != "validation":
            raise ConfigError(
                f"learn_region_rules: subset is {subset}; expected validation, so that no test case decides the rules. "
                "Add --subset validation."
            )
        if len(files) > 1:
            raise ConfigError(
                f"learn_region_rules: there are {len(files)} weights; expected one network, beside whose weights the "
                "rules are written. Choose the rules of one member, and pass them to the ensemble as --region_rules."
            )
        require_outside_package("ckpt_dir", self.weights.parent)
        if not settings_file(self.weights).is_file():
            raise ConfigError(
                f"learn_region_rules: {settings_file(self.weights)} does not exist, and receives the rules. Set "
                "--ckpt_dir to the folder of a training, or train again: earlier versions did not write it."
            )

    def of_case(self, case: Mapping[str, Any], result: Mapping[str, Any]) -> np.ndarray:
        """Return the Dice of every region and candidate for a case."""
        return dice_of_case(case, result["probabilities"].cpu().numpy(), self.regions, self.ignore_label)

    def write(self, found: Mapping[str, np.ndarray]) -> None:
        """Choose the rules, and write them.

        Raises:
            DataError: No case could be evaluated.
        """
        if not found:
            raise DataError("learn_region_rules: no case could be evaluated, so no rule is chosen.")
        rules, gains = choose_rules(list(found.values()), self.regions)
        write_region_rules(self.weights, rules, {"cases": list(found), "regions": gains})
        logger.info(
            "%s of %d validation cases written to %s; evaluation and inference use them (--region_rules null: not)",
            "rules" if rules else "the finding that no rule helps",
            len(found),
            settings_file(self.weights),
        )


def choose_rules(
    dice: Sequence[np.ndarray], regions: Iterable[str]
) -> tuple[dict[str, dict[str, float | bool]], dict[str, dict[str, float]]]:
    """Choose a rule per region by the Dice of all cases together, see ``best_candidate``.

    Args:
        dice: of each case, the result of ``dice_of_case``.
        regions: names of the regions.

    Returns:
        The numbers of ``RegionRule`` that are not the default, by region whose rule helps; and, by region with a
        labelled case, ``dice_before`` and ``dice_after``, means over the cases.
    """
    table = np.stack(dice)  # (cases, regions, candidates)
    rules, gains = {}, {}
    for index, name in enumerate(regions):
        of_region = table[:, index][~np.isnan(table[:, index, 0])]
        if not len(of_region):
            logger.info("%s: no case is labelled for it, so no rule is chosen", name)
            continue
        best = best_candidate(of_region)
        before, after = of_region.mean(axis=0)[[0, best]].round(4).tolist()
        gains[name] = {"dice_before": before, "dice_after": after}
        if best:
            default = RegionRule()._asdict()
            rules[name] = {k: v for k, v in CANDIDATES[best]._asdict().items() if v != default[k]}
        logger.info("%s: %s, Dice %.4f -> %.4f", name, rules.get(name, "no rule helps"), before, after)
    return rules, gains


def dice_of_case(
    case: Mapping[str, Any],
    probabilities: np.ndarray,
    regions: Mapping[str, Sequence[int]],
    ignore_label: int | None = None,
) -> np.ndarray:
    """Return the Dice of every region and candidate (regions, candidates), see ``dice_of_candidates``.

    Args:
        case: ``case``, ``label`` (1, H, W[, D]) and, if only some regions are labelled, ``labelled_regions``.
        probabilities: (K, H, W[, D]) on the grid of the label.
        regions: label values of each of the K regions.
        ignore_label: value of voxels whose label is unknown; None for none.
    """
    label = case["label"]
    references = label_to_regions(label, regions, ignore_label).cpu().numpy().astype(bool)
    known = known_voxels(label, regions, ignore_label, case.get("labelled_regions"), case["case"])
    masks = zip(probabilities, references, known.cpu().numpy().astype(bool), strict=True)
    return np.stack([dice_of_candidates(*of_region) for of_region in masks])


def dice_of_candidates(probability: np.ndarray, reference: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the Dice of every candidate for one region of a case.

    It is 1 if both masks are empty, and NaN if no voxel has a known label.

    Args:
        probability: (H, W, D).
        reference: boolean (H, W, D).
        known: boolean (H, W, D), whether the label is known.
    """
    if not known.any():
        return np.full(len(CANDIDATES), np.nan)
    reference = reference & known
    found = {}
    for threshold, fill_holes in product(THRESHOLDS, (False, True)):
        labelled, sizes = label_components(threshold_mask(probability, threshold, fill_holes))
        voxels, hits = (np.bincount(labelled[mask], minlength=len(sizes)) for mask in (known, reference))
        found[threshold, fill_holes] = sizes, voxels, hits
    true = np.count_nonzero(reference)
    result = []
    for rule in CANDIDATES:
        sizes, voxels, hits = found[rule.threshold, rule.fill_holes]
        kept = kept_components(sizes, rule)
        total = true + voxels[kept].sum()
        result.append(2 * hits[kept].sum() / total if total else 1.0)
    return np.array(result)


def best_candidate(dice: np.ndarray) -> int:
    """Return the index of the best rule for Dice of shape (cases, candidates); 0, the default, unless it helps.

    Of rules that are equally good, the first is taken, which changes less.
    """
    gains = dice - dice[:, :1]
    without_best_case = gains.sum(axis=0) - gains.max(axis=0)
    useful = (gains.mean(axis=0) >= LEAST_GAIN) & (without_best_case > 0)
    return int(np.where(useful, gains.mean(axis=0), 0).round(6).argmax())
