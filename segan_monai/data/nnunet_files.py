# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The same cases and the same split for nnU-Net v2, without a copy of any image."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, DataError


def write_nnunet(
    cases: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    channels: Sequence[str],
    labels: Mapping[str, int],
) -> Path:
    """Write ``dataset.json`` of nnU-Net's raw format; images and label maps stay where they are.

    The object ``dataset`` of it names the files of every case by absolute paths. :func:`nnunet_cases` reads it, too, if
    they lie below the folder.

    Args:
        cases: labelled ones, as :func:`segan_monai.data.find_cases` returns them.
        folder: ``$nnUNet_raw/Dataset<three digits>_<name>``; made if there is none.
        channels: names of the images of each case, in their order.
        labels: name of each class to its value in the label maps, without the background.

    Returns:
        The file.

    Raises:
        DataError: a case without label map, with another number of images than ``channels``, or with several channels
            in one file; files with several endings.
        ConfigError: the values of the labels are not 1, 2, 3, ...: nnU-Net takes no others.
    """
    if sorted(labels.values()) != list(range(1, len(labels) + 1)):
        raise ConfigError(
            f"labels have the values {sorted(labels.values())}. nnU-Net expects 1 to {len(labels)}: change the label "
            "maps, for example by segan-monai prepare."
        )
    files: dict[str, dict[str, Any]] = {}
    for case in cases:
        images = [case["image"]] if isinstance(case["image"], str) else list(case["image"])
        if "label" not in case:
            raise DataError(f"case {case['case']} has no label map. Give labelled cases only.")
        if len(images) != len(channels) or len(case.get("channels", [])) > 1:
            raise DataError(
                f"case {case['case']} has {len(images)} files for the {len(channels)} channels {', '.join(channels)}. "
                "nnU-Net expects a file a channel: split the volume."
            )
        paths = [str(Path(path).resolve()) for path in (*images, case["label"])]
        files[case["case"]] = {"images": paths[:-1], "label": paths[-1]}
    endings = {_ending(path) for entry in files.values() for path in (*entry["images"], entry["label"])}
    if len(endings) != 1:
        raise DataError(
            f"the files end in {', '.join(sorted(endings)) or 'nothing: there are no cases'}. nnU-Net expects one "
            "ending for images and label maps: convert them, for example by segan-monai prepare."
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
        split: ``training`` and ``validation``, as :func:`segan_monai.data.split_cases` returns them.
        file: ``$nnUNet_preprocessed/Dataset<three digits>_<name>/splits_final.json``; nnU-Net draws folds of its own if
            it is not there when the training starts.

    Returns:
        The file.
    """
    train, val = ([case["case"] for case in split[part]] for part in ("training", "validation"))
    return _written(Path(file), [{"train": train, "val": val}])


def _ending(path: str) -> str:
    suffixes = Path(path).suffixes
    return "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def _written(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    return file
