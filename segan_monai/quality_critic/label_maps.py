# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Estimated quality of label maps that any program or person has made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.errors import DataError
from segan_monai.metrics import find_label_maps, read_label_map, without_labels
from segan_monai.quality import image_features
from segan_monai.quality_critic.cases import masks_of_label_map
from segan_monai.quality_critic.file import Critic
from segan_monai.quality_critic.network import critic_signals
from segan_monai.quality_critic.stacks import stack_of

Case = Mapping[str, Any]
MOST_NAMES = 8


def match_label_maps(cases: Sequence[Case], folder: Path) -> tuple[list[tuple[Case, Path]], list[str]]:
    """Return the images that have a label map, and sentences that name what lacks its counterpart.

    Args:
        cases: images, see ``segan_monai.data.find_cases``.
        folder: folder of label maps, matched by the name of the case, see ``find_label_maps``.

    Raises:
        DataError: The folder has no label map, or none of an image.
    """
    files = find_label_maps(folder)
    pairs = [(case, files[case["case"]]) for case in cases if case["case"] in files]
    images = {case["case"] for case in cases}
    if not pairs:
        raise DataError(
            f"no label map in {folder} has the name of an image: label maps {_listed(sorted(files))}; images "
            f"{_listed(sorted(images))}. Expected <case>_seg.nii.gz or <case>.nii.gz."
        )
    lacking = {
        "images have no label map": sorted(images - files.keys()),
        "label maps have no image": sorted(files.keys() - images),
    }
    return pairs, [f"{len(names)} {what}: {_listed(names)}" for what, names in lacking.items() if names]


def estimate_label_map(
    critic: Critic,
    case: Case,
    file: Path,
    preprocessing: Callable[[dict[str, Any]], Mapping[str, Any]],
    modalities: Sequence[str],
    values: Mapping[str, Sequence[int]],
    background_labels: Sequence[int] = (),
) -> dict[str, dict[str, Any]]:
    """Return ``expected_dice``, ``lower_bound`` and ``flag`` of every region of a label map.

    Args:
        critic: the critic.
        case: the image.
        file: its label map.
        preprocessing: that of the inference.
        modalities: names of the channels.
        values: values of each region in the label map.
        background_labels: values of other structures in it.

    Raises:
        DataError: A file cannot be read; the label map lies on another grid, or has a value in no region.
    """
    image = preprocessing({key: value for key, value in case.items() if key != "label"})["image"]
    label_map = without_labels(read_label_map(file), background_labels)
    stack = stack_of(image, [masks_of_label_map(label_map, image, values)], critic.size)
    signals = critic_signals(critic.network, stack.image, stack.masks[0], stack.voxel_ml)
    features = image_features(image.as_tensor(), modalities)
    return critic.model.estimate(features, dict(zip(critic.regions, signals, strict=True)))


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
