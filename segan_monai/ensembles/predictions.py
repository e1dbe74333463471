# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Probability maps that an inference or an evaluation has saved."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.utils import ensure_tuple

from segan_monai.data import LABEL_CONVENTIONS, read_split, resolve_regions
from segan_monai.data.split_file import TRAINED_ON
from segan_monai.errors import ConfigError, DataError
from segan_monai.json_files import read_json_object
from segan_monai.member_weights import given_weights, split_of, weight_files
from segan_monai.metrics.summary import listed, read_metrics
from segan_monai.trained import read_initial_settings
from segan_monai.transforms import region_file_name

logger = logging.getLogger(__name__)

WHOLE = "_probabilities.nii.gz"
_MARKS = ("$", "@", "%")  # of expressions, references and macros
_AGAIN = "Run segan-monai predict again, with --save_probabilities regions."


@dataclass
class Predictions:
    """Probability maps of the cases in an output folder.

    Attributes:
        folder: the folder.
        regions: label values of each region, in channel order.
        files: by case, the one file of all regions, or one file per region in their order.
        trained_on: by case, the ``split.json`` of the weights that were trained on it; cases of any data set.
        threshold: how label maps follow from the probabilities, see ``regions_to_label_map``: None for a softmax.
    """

    folder: Path
    regions: dict[str, list[int]]
    files: dict[str, list[Path]]
    trained_on: dict[str, str]
    threshold: float | None

    def maps(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities (K, H, W[, D]) of a case in float32, and its affine (4, 4).

        Raises:
            DataError: The case has no maps, a file is damaged, or it has another number of regions.
        """
        if case not in self.files:
            raise DataError(f"{self.folder} has no probability maps of case {case}. {_AGAIN}")
        parts = []
        for file in self.files[case]:
            try:
                image: Any = nibabel.load(file)
                parts.append(image.get_fdata(dtype=np.float32))
            except Exception as error:  # from nibabel, gzip, zlib, ...
                raise DataError(f"{file} cannot be read ({error}). {_AGAIN}") from error
        if len(parts) == len(self.regions):
            values = np.stack(parts)
        elif parts[0].ndim > 2 and parts[0].shape[-1] == len(self.regions):
            values = np.moveaxis(parts[0], -1, 0)
        else:
            raise DataError(
                f"{self.files[case][0]} has shape {parts[0].shape}; expected {len(self.regions)} regions "
                f"({', '.join(self.regions)}) as its last axis. {_AGAIN}"
            )
        return values, image.affine


def read_predictions(folder: Path) -> Predictions:
    """Find the probability maps in the output folder of ``segan-monai predict`` or ``evaluate``.

    Maps of cases that the last run in the folder did not finish are omitted, with a warning: they may be of other
    weights.

    Raises:
        DataError: The folder is none of them, has no probability maps, or lacks the map of a region of a case.
    """
    if not (folder / "run.json").is_file():
        raise DataError(
            f"{folder} has no run.json; expected an output folder of segan-monai predict with --save_probabilities "
            "regions."
        )
    config = read_json_object(folder / "run.json").get("config", {})
    regions = regions_of_run(folder)
    files = {file.name.removesuffix(WHOLE): [file] for file in sorted(folder.glob(f"*{WHOLE}"))}
    first, *_ = endings = [f"_probability_{region_file_name(region)}.nii.gz" for region in regions]
    for file in sorted(folder.glob(f"*{first}")):
        case = file.name.removesuffix(first)
        files[case] = [folder / f"{case}{ending}" for ending in endings]
        if missing := [file for file in files[case] if not file.is_file()]:
            raise DataError(f"{missing[0]} does not exist, but {file.name} does. {_AGAIN}")
    cases = _cases_of_last_run(folder)
    if cases is not None and (left := sorted(files.keys() - cases)):
        logger.warning(
            "%s: omitted the probability maps of %s, which the last run there did not finish. To use them, run "
            "segan-monai predict on all cases at once.", folder, listed(left),
        )  # fmt: skip
        files = {case: of_case for case, of_case in files.items() if case in cases}
    if not files:
        raise DataError(f"{folder} has no probability maps. {_AGAIN}")
    return Predictions(folder, regions, files, _trained_on(_weights_of(folder)), None if _has_softmax(config) else 0.5)


def _cases_of_last_run(folder: Path) -> set[str] | None:
    """Return the cases that the last inference or evaluation in a folder finished; None if it does not say so."""
    journal = folder / "inference.json"
    if journal.is_file():
        cases = read_json_object(journal).get("cases")
        return None if cases is None else {case for case, found in cases.items() if found["status"] == "finished"}
    return set(read_metrics(folder)["case"]) if (folder / "metrics.csv").is_file() else None


def label_threshold(members: Sequence[Predictions]) -> float | None:
    """Return how label maps follow from the mean of members, see ``Predictions.threshold``.

    Raises:
        DataError: Some members are of a softmax, and others are not.
    """
    first, *others = members
    for member in others:
        if member.threshold != first.threshold:
            names = ["a sigmoid", "a softmax"] if member.threshold is None else ["a softmax", "a sigmoid"]
            raise DataError(
                f"the probabilities in {first.folder} are of {names[0]}, those in {member.folder} of {names[1]}. "
                "Expected predictions of one bundle, or of bundles alike."
            )
    return first.threshold


def _has_softmax(config: Mapping[str, Any]) -> bool:
    """Return whether the postprocessing of a run's config applies a softmax."""
    postprocessing = config.get("postprocessing")
    steps = postprocessing.get("transforms", ()) if isinstance(postprocessing, Mapping) else ()
    return any(isinstance(step, Mapping) and bool(step.get("softmax")) for step in steps)


def regions_of_run(folder: Path) -> dict[str, list[int]]:
    """Return the label values of each region of an inference or an evaluation, in channel order.

    They are those of its settings. Where these are ``auto`` or an expression, they are those of the training, with the
    values in ``summary.json``, which lacks regions that no case is labelled for.

    Args:
        folder: output folder of the run.

    Raises:
        ConfigError: Nothing of these tells the regions, or one has no valid label values.
        DataError: A file is damaged.
    """
    record, summary = folder / "run.json", folder / "summary.json"
    given = read_json_object(record).get("config", {}).get("regions", "auto") if record.is_file() else "auto"
    if _is_written_out(given):
        return resolve_regions(given)
    of_summary = read_json_object(summary)["regions"] if summary.is_file() else {}
    found = {name: list(of_region["reference_values"]) for name, of_region in of_summary.items()}
    weights = _weights_of(folder) if record.is_file() else []
    trained = read_initial_settings(weights[0]).get("regions") if weights else None
    return {**trained, **found} if isinstance(trained, Mapping) else found or resolve_regions("auto")


def _is_written_out(regions: Any) -> bool:
    """Return whether a setting is a label convention or label values by region, and no expression."""
    if not isinstance(regions, Mapping):
        return isinstance(regions, str) and regions in LABEL_CONVENTIONS
    values = [value for of_region in regions.values() for value in ensure_tuple(of_region)]
    return all(isinstance(value, int) for value in values)


def _trained_on(weights: Sequence[Path]) -> dict[str, str]:
    """Return the cases that weights were trained on, as far as their splits still exist."""
    found: dict[str, str] = {}
    for file in map(split_of, weights):
        split = read_split(file) if file.is_file() else {"training": (), "unlabeled": ()}
        found |= {case: str(file) for part in TRAINED_ON for case in split[part]}
    return found


def _weights_of(folder: Path) -> list[Path]:
    """Return the weights of an inference, from its journal, or of an evaluation, from its settings.

    Settings that are expressions name none, because nothing in a folder of results is evaluated.
    """
    journal = folder / "inference.json"
    if journal.is_file():
        listed = read_json_object(journal).get("weights", ())
        return [Path(file) for file in ([listed] if isinstance(listed, str) else listed)]
    record = read_json_object(folder / "run.json")
    config = record.get("config", {})
    given = config.get("weights")
    paths = [config.get("ckpt_dir")] if given is None else given_weights(given)
    if not all(isinstance(path, str) and not path.startswith(_MARKS) for path in paths):
        return []
    places = [Path(record.get("working_directory", "")) / Path(path).expanduser() for path in paths]
    if given is not None:
        return [place / "model.pt" if place.is_dir() else place for place in places]
    try:
        return weight_files(None, places[0])
    except ConfigError:  # an included ensemble has lost members
        return []
