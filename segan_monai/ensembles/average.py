# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Averages saved probability maps case by case, and makes label maps of the means."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from tqdm import tqdm

from segan_monai.ensembles.predictions import Predictions, label_threshold, read_predictions
from segan_monai.errors import ConfigError, DataError
from segan_monai.files import writing
from segan_monai.json_files import read_json_object, write_json
from segan_monai.transforms import RegionRulesd, RegionsToLabelMapd, SaveCased, SaveProbabilitiesd

RECORD = "ensemble.json"
"""File that names the members of an ensemble, the cases, and the cases that a member was trained on."""


def average_predictions(
    folders: Sequence[Path],
    output_dir: Path,
    region_rules: Mapping[str, Any] | None = None,
    output_labels: str | Sequence[int] = "consecutive",
    save_probabilities: bool | str = False,
) -> list[str]:
    """Write the label map of the mean probability of several predictions, for every case.

    One map of one member is read at a time, so memory grows neither with members nor with cases. Each member may be an
    ensemble itself; its mean then counts as one.

    Args:
        folders: output folders of ``segan-monai predict`` or ``evaluate`` with probability maps of the same cases.
        output_dir: receives ``<case>_seg.nii.gz``, and ``ensemble.json`` with the members and the cases.
        region_rules: post-processing of the mean, see ``RegionRulesd``; None for none. Rules of the members' weights
            are not applied.
        output_labels: see ``regions_to_label_map``.
        save_probabilities: also write the mean probabilities, see ``SaveProbabilitiesd``.

    Returns:
        The names of the cases.

    Raises:
        ConfigError: There are fewer than two folders, one is repeated or receives the output, or a rule is wrong.
        DataError: A folder has no maps; or members have different regions, cases or grids.
    """
    _check_folders(folders, output_dir)
    members = [read_predictions(folder) for folder in folders]
    for member in members:
        if any((member.folder / f"{case}_seg.png").is_file() for case in member.files):
            raise DataError(
                f"{member.folder} has label maps of photographs (PNG), which this command would write as NIfTI. Give "
                "the trainings of the members to one inference or evaluation instead: --weights A,B."
            )
    regions = members[0].regions
    cases = sorted(members[0].files)
    for member in members[1:]:
        _require_same(members[0], member)
    steps: list[Any] = [RegionRulesd("pred", list(regions), region_rules)] if region_rules else []
    threshold = label_threshold(members)  # also refuses a sigmoid beside a softmax
    if region_rules:
        threshold = 0.5  # rules have thresholds of their own
    steps.append(RegionsToLabelMapd("pred", regions, output_labels, threshold))
    steps.append(SaveCased("pred", output_dir=output_dir, output_postfix="seg", output_dtype=torch.uint8))
    if save_probabilities:
        steps.append(SaveProbabilitiesd("probabilities", output_dir, list(regions), save_probabilities))
    record = {
        "members": [str(folder) for folder in folders],
        "regions": regions,
        "region_rules": dict(region_rules) if region_rules else None,
        "cases": cases,
        "trained_on": {case: file for member in members for case, file in member.trained_on.items()},
    }
    with writing(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / RECORD, record)  # first, so that no case of a stopped run is evaluated that a member knew
    for case in tqdm(cases, desc="ensemble", unit="case"):
        mean = mean_of_case(members, case)
        data: dict[Any, Any] = {"pred": mean, "probabilities": mean}
        for step in steps:
            data = step(data)
    return cases


def mean_of_case(members: Sequence[Predictions], case: str) -> MetaTensor:
    """Return the mean probabilities (K, H, W[, D]) of a case, with the metadata that writers need.

    Raises:
        DataError: The maps of two members have different grids.
    """
    mean, affine = members[0].maps(case)
    mean = mean / len(members)
    for member in members[1:]:
        values, other = member.maps(case)
        if values.shape != mean.shape or not np.allclose(other, affine, atol=1e-3):
            raise DataError(
                f"case {case}: the maps in {members[0].folder} have shape {mean.shape[1:]}, those in {member.folder} "
                f"{values.shape[1:]}; or their affines differ. Expected predictions of the same image."
            )
        mean += values / len(members)
    meta = {
        "filename_or_obj": f"{case}.nii.gz",
        "source_files": str(members[0].files[case][0]),
        "original_affine": affine,
        "spatial_shape": mean.shape[1:],
    }
    return MetaTensor(torch.from_numpy(mean), affine=torch.from_numpy(affine), meta=meta)


def refuse_trained_cases(predictions: Path, cases: Collection[str]) -> None:
    """Refuse to evaluate an ensemble on cases that one of its members was trained on.

    Predictions that are not of an ensemble are accepted.

    Args:
        predictions: the folder that ``average_predictions`` has written.
        cases: names of the cases to evaluate.

    Raises:
        ConfigError: A member was trained on a case.
    """
    if not (predictions / RECORD).is_file():
        return
    trained_on = read_json_object(predictions / RECORD).get("trained_on", {})
    if seen := sorted(set(cases) & set(trained_on)):
        raise ConfigError(
            f"{len(seen)} of {len(cases)} cases were trained on by a member of the ensemble {predictions}, such as "
            f"{seen[0]} ({trained_on[seen[0]]}), so their metrics would be too high. Evaluate label maps of held-out "
            "cases only: predict these, or move the others elsewhere."
        )


def _check_folders(folders: Sequence[Path], output_dir: Path) -> None:
    places = [folder.resolve() for folder in folders]
    if len(places) < 2:
        raise ConfigError(f"an ensemble needs two or more folders of predictions; found {len(places)}.")
    if len(set(places)) < len(places):
        raise ConfigError("a folder of predictions is named twice; expected different members.")
    if output_dir.resolve() in places:
        raise ConfigError(f"the output folder {output_dir} is one of the members. Give another one.")


def _require_same(first: Predictions, other: Predictions) -> None:
    if list(first.regions) != list(other.regions):
        raise DataError(
            f"the regions in {first.folder} are {', '.join(first.regions)}, those in {other.folder} are "
            f"{', '.join(other.regions)}. Expected the same, in the same order."
        )
    if differing := sorted(set(first.files) ^ set(other.files)):
        where, lacking = (first, other) if differing[0] in first.files else (other, first)
        raise DataError(
            f"case {differing[0]} has probability maps in {where.folder}, but not in {lacking.folder} "
            f"({len(differing)} cases differ). Expected predictions of the same images."
        )
