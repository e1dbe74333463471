# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Volumes without labels, for inference: those directly in a folder, or a single file."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from segan_monai.data.layout import Layout
from segan_monai.data.nnunet import by_channel, volumes_in
from segan_monai.data.unread import OTHER_IMAGES, warn_of_unread
from segan_monai.errors import DataError
from segan_monai.file_kinds import PICTURES, VOLUMES, file_id, has_ending
from segan_monai.volume_files import read_volume

logger = logging.getLogger(__name__)

_LABEL_MAP = re.compile(r".+[_-](seg|segm|segmentation|label|labels|mask|probabilities)", re.IGNORECASE | re.DOTALL)
_OF_LABELS = re.compile(r"(labels?|masks?|segmentations?)(tr|ts)?", re.IGNORECASE)
_MOST_LABELS = 32  # [ours] different values in a label map; an image has more


def plain_cases(folder: Path, channels: int, keep_incomplete: bool = False) -> list[dict[str, Any]]:
    """Return one case per volume in a folder, or per group of files with nnU-Net's channel numbers.

    Label maps, which inference writes too, are omitted: files named ``<case>_seg``, ``-seg``, ``_label``, ``_mask`` and
    the like. A folder named ``labels``, ``labelsTr``, ``masks`` or the like, whose first file has few different whole
    numbers as values, holds no images.

    Args:
        folder: The folder; its subfolders are not searched.
        channels: Number of channels of a case.
        keep_incomplete: Return a case that lacks a channel with the reason under ``unusable``.

    Returns:
        The cases, sorted; empty if the folder has no volumes.

    Raises:
        DataError: The folder holds only label maps.
    """
    volumes = volumes_in(folder)
    images = [name for name in volumes if not _LABEL_MAP.fullmatch(file_id(name))]
    if _OF_LABELS.fullmatch(folder.name) and images and _looks_like_labels(folder / images[0]):
        images = []
    if volumes and not images:
        raise DataError(
            f"{folder} holds {len(volumes)} label maps, such as {volumes[0]}, and no images. Set --dataset_dir to the "
            "folder of the images; if these are images, move them to a folder with another name, or list them in a "
            "--datalist file."
        )
    if len(images) < len(volumes):
        omitted = [name for name in volumes if name not in images]
        more = ", ..." if len(omitted) > 3 else ""
        logger.warning("%s: omitted %d label maps: %s%s", folder, len(omitted), ", ".join(omitted[:3]), more)
    warn_of_unread(folder, VOLUMES, (*OTHER_IMAGES, *PICTURES))
    return _grouped(folder, images, channels, keep_incomplete)


def _looks_like_labels(file: Path) -> bool:
    try:
        values = np.unique(read_volume(file).values)
    except DataError:  # its loader will report it
        return False
    return len(values) <= _MOST_LABELS and bool((values == values.round()).all())


def _grouped(folder: Path, images: list[str], channels: int, keep_incomplete: bool) -> list[dict[str, Any]]:
    grouped = by_channel(images)
    expected = list(range(channels))
    complete = [] if grouped is None else [case for case, files in grouped.items() if list(files) == expected]
    if grouped is None or (not complete if keep_incomplete else len(complete) < len(grouped)):
        grouped = {file_id(name): {0: name} for name in images}
        complete = list(grouped)
        if len(grouped) < len(images):  # one name with two endings: find_cases reports it
            return [{"case": file_id(name), "subject": file_id(name), "image": str(folder / name)} for name in images]
    cases: list[dict[str, Any]] = []
    for case, files in grouped.items():
        paths = [str(folder / name) for name in files.values()]
        cases.append({"case": case, "subject": case, "image": paths if len(paths) > 1 else paths[0]})
        if case not in complete:
            cases[-1]["unusable"] = (
                f"case {case} in {folder} has the channels {', '.join(f'{number:04d}' for number in files)}; expected "
                f"{', '.join(f'{number:04d}' for number in expected)}. Complete it, or move it out of the folder."
            )
    return cases


def single_case(file: Path) -> list[dict[str, Any]]:
    """Return a volume or photograph as a data set of one case.

    Raises:
        DataError: The file is neither, judged by its name.
    """
    if not has_ending(file, (*VOLUMES, *PICTURES)):
        datalist = f" A list of cases is passed as --datalist {file}." if has_ending(file, ".json") else ""
        raise DataError(
            f"dataset_dir {file}: it is no image. Expected a folder, or one file that ends in "
            f"{', '.join((*VOLUMES, *PICTURES))}.{datalist}"
        )
    return [{"case": file_id(file), "subject": file_id(file), "image": str(file)}]


PLAIN = Layout(
    name="plain folder of images",
    data_set="images",
    expected=f"images ({', '.join(VOLUMES)}) in the folder itself",
    matches=lambda folder, _: bool(volumes_in(folder)),
    cases=lambda folder, modalities, keep_incomplete: plain_cases(folder, len(modalities or [None]), keep_incomplete),
    label_maps=lambda files, _: {path: file_id(path) for path in files},
)
