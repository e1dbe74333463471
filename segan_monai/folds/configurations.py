# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Configurations to compare: a bundle with different overlays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segan_monai.bundles_by_name import find_bundle, find_overlay
from segan_monai.check.config_files import read_config_file
from segan_monai.errors import ConfigError
from segan_monai.json_files import read_json_object
from segan_monai.reproduce import Plan, ResultTable

BUNDLE_ROW = "bundle"
"""Name of the configuration without overlays."""


def configurations(bundle: str, rows: Sequence[str]) -> ResultTable:
    """Return the configurations to compare as the rows of a table.

    Args:
        bundle: name or folder of a bundle, see ``find_bundle``.
        rows: ``NAME=OVERLAY[,OVERLAY...]``, from the cheapest to the most expensive; ``NAME=`` for the bundle as it
            is. Without any, the bundle as it is is the only row, ``bundle``.

    Raises:
        ConfigError: The bundle cannot be trained by folds, a row has another form, two rows have the same name or the
            same overlays, or an overlay does not exist.
    """
    folder = find_bundle(bundle).resolve()
    missing = [name for name in ("train.json", "evaluate.json") if not (folder / "configs" / name).is_file()]
    if missing:
        raise ConfigError(f"{folder} cannot be cross-validated: it has no configs/{missing[0]}.")
    if not {"folds", "fold"} <= set(read_json_object(folder / "configs" / "train.json")):
        raise ConfigError(f"{folder} cannot be cross-validated: its train.json has no keys folds and fold.")
    overlays: dict[str, list[Path]] = {}
    for text in rows or [f"{BUNDLE_ROW}="]:
        name, equals, files = text.partition("=")
        name = name.strip()
        if not name or not equals:
            raise ConfigError(
                f"cannot parse the row '{text}'; expected NAME=OVERLAY[,OVERLAY...], such as 2-D=axial_slices, or "
                "NAME= for the bundle as it is."
            )
        if set(name) & set("/\\+"):
            raise ConfigError(f"cannot use the row name '{name}'; expected one without /, \\ and +: it names folders.")
        if name in overlays:
            raise ConfigError(f"two rows are named '{name}'; expected different names.")
        found = [find_overlay(file.strip(), folder).resolve() for file in files.split(",") if file.strip()]
        if same := [other for other, of_other in overlays.items() if of_other == found]:
            raise ConfigError(f"the rows '{same[0]}' and '{name}' have the same overlays; omit one of them.")
        overlays[name] = found
    return ResultTable(
        name="folds",
        title="Out-of-fold results",
        source="",
        data="",
        bundle=str(folder),
        metrics=["dice", "hd95_mm"],
        rows=overlays,
        published={name: {} for name in overlays},
    )


def folds_of(plan: Plan) -> list[int]:
    """Return the numbers of all folds, from the key ``folds`` of the overlays, the user's settings or the bundle.

    Args:
        plan: bundle, overlays for all rows, settings, and the overlays of each row. Later ones win.

    Raises:
        ConfigError: The key is no number of folds, or rows have different numbers.
    """
    shared = [read_config_file(file) for file in plan.configs] + [plan.overrides]
    settings = read_json_object(Path(plan.table.bundle) / "configs" / "train.json")
    for content in shared:
        settings |= content
    found = {}
    for name, overlays in plan.table.rows.items():
        merged = dict(settings)
        for file in overlays:
            merged |= read_config_file(file)
        found[name] = merged["folds"]
        if not isinstance(found[name], int) or found[name] < 2:
            raise ConfigError(f"folds is {found[name]!r}; expected a number of at least 2, such as --set folds=5.")
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{count} in '{name}'" for name, count in found.items())
        raise ConfigError(
            f"the rows have different numbers of folds ({listed}), so their cases could not be compared. Remove the "
            "key 'folds' from their overlays, and pass --set folds=5."
        )
    return list(range(next(iter(found.values()))))
