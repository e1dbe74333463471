# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Export of cases and split to nnU-Net v2, without copying images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, DataError
from segan_monai.json_files import write_json


def write_nnunet(
    cases: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    channels: Sequence[str],
    labels: Mapping[str, int],
) -> Path:
    """Write ``dataset.json`` of nnU-Net's raw format, without copying images and label maps.

    Its object ``dataset`` names the files of each case by absolute paths. ``nnunet_cases`` also reads it, if the
    files are below the folder.

    Args:
        cases: Labelled cases, as ``segan_monai.data.find_cases`` returns them.
        folder: ``$nnUNet_raw/Dataset<three digits>_<name>``; created if missing.
        channels: Names of the images of each case, in their order.
        labels: Mapping of class names to values in the label maps, without background.

    Returns:
        Path of ``dataset.json``.

    Raises:
        DataError: A case has no label map, a number of images other than that of ``channels``, or several channels in
            one file; the files have different endings.
        ConfigError: The label values are not 1, 2, 3, ..., as nnU-Net requires.
    """
    if sorted(labels.values()) != list(range(1, len(labels) + 1)):
        raise ConfigError(
            f"labels have the values {sorted(labels.values())}. nnU-Net expects 1 to {len(labels)}: convert the label "
            "maps, for example with segan-monai prepare."
        )
    files: dict[str, dict[str, Any]] = {}
    for case in cases:
        images = [case["image"]] if isinstance(case["image"], str) else list(case["image"])
        if "label" not in case:
            raise DataError(f"case {case['case']} has no label map. Pass labelled cases only.")
        if len(images) != len(channels) or len(case.get("channels", [])) > 1:
            raise DataError(
                f"case {case['case']} has {len(images)} files for the {len(channels)} channels {', '.join(channels)}. "
                "nnU-Net expects one file per channel: split the volume."
            )
        paths = [str(Path(path).resolve()) for path in (*images, case["label"])]
        files[case["case"]] = {"images": paths[:-1], "label": paths[-1]}
    endings = {_ending(path) for entry in files.values() for path in (*entry["images"], entry["label"])}
    if len(endings) != 1:
        raise DataError(
            f"the files end in {', '.join(sorted(endings)) or 'nothing: there are no cases'}. nnU-Net expects one "
            "ending for images and label maps: convert them, for example with segan-monai prepare."
        )
    content = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, **labels},
        "numTraining": len(files),
        "file_ending": endings.pop(),
        "dataset": files,
    }
    return _written(Path(folder) / "dataset.json", content)


def write_nnunet_split(split: Mapping[str, Sequence[Mapping[str, Any]]], file: str | os.PathLike[str]) -> Path:
    """Write a split as nnU-Net's fold 0.

    Args:
        split: ``training`` and ``validation``, as ``segan_monai.data.split_cases`` returns them.
        file: ``$nnUNet_preprocessed/Dataset<three digits>_<name>/splits_final.json``. If it does not exist when
            training starts, nnU-Net generates its own folds.

    Returns:
        Path of the file.
    """
    train, val = ([case["case"] for case in split[part]] for part in ("training", "validation"))
    return _written(Path(file), [{"train": train, "val": val}])


def _ending(path: str) -> str:
    suffixes = Path(path).suffixes
    return "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def _written(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)
    return file
