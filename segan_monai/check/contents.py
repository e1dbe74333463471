# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Parallel reading of whole cases, with a record so that the next check reads only changed cases."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from tqdm import tqdm

from segan_monai.check.cases import Case, files_of
from segan_monai.data.case_digest import image_files
from segan_monai.errors import user_error_in
from segan_monai.files import append_line
from segan_monai.json_files import read_json_lines
from segan_monai.parallel import available_processes, map_in_processes
from segan_monai.transforms.case_loader import CaseLoader
from segan_monai.transforms.head_intensity import noise_share

_MAX_VALUES = 300  # label values kept per label map; a map with more is probably an image
_CHUNK_SIZE = 8  # cases sent to a process at once
_FOUND = {"intensities", "noise", "image_hashes", "labels", "label_hashes"}


def read_contents(
    cases: Sequence[Case], loader: CaseLoader, settings: str, record: Path, processes: int | None = None
) -> dict[str, dict[str, Any]]:
    """Read cases as the run will, and summarize their contents.

    Args:
        cases: the cases.
        loader: the transform that reads a case.
        settings: text that changes whenever the loader's settings do.
        record: JSON Lines file with one line per case, keyed by path, size and modification time of its files. Recorded
            cases are not read again; each new case is recorded as soon as it is read.
        processes: number of processes; default: the available cores, at most 8.

    Returns:
        Case name to either ``error`` (a message) or

        - ``intensities``: minimum and maximum of each channel,
        - ``noise``: fraction of voxels of each channel that hold noise of the background, see ``noise_share``,
        - ``image_hashes``: digest of each channel that is not constant,
        - ``labels``: pairs of label value and voxel count; None without a label map,
        - ``label_hashes``: digest of the label map, if it is not empty.

    Raises:
        DataError: A process was killed.
    """
    keys = {case["case"]: _key(case, loader, settings) for case in cases}
    known = dict(_read_record(record))
    found = {name: known[key] for name, key in keys.items() if key in known}
    todo = [case for case in cases if case["case"] not in found]
    processes = available_processes(-(-len(todo) // _CHUNK_SIZE), processes)
    record.parent.mkdir(parents=True, exist_ok=True)
    bar = partial(tqdm, desc="contents", initial=len(found), total=len(cases), unit="case", disable=None)
    read = partial(read_content, loader=loader)
    for name, content in bar(map_in_processes(read, todo, processes, chunksize=_CHUNK_SIZE)):
        append_line(record, json.dumps([keys[name], content]))
        found[name] = content
    return {case["case"]: found[case["case"]] for case in cases}


def without_ignored(contents: Mapping[str, dict[str, Any]], ignore_label: int | None) -> dict[str, dict[str, Any]]:
    """Return the contents of cases without voxels whose label is unknown."""
    return {
        name: found | {"labels": [pair for pair in found["labels"] if pair[0] != ignore_label]}
        if found.get("labels") is not None
        else found
        for name, found in contents.items()
    }


def read_content(case: Case, loader: CaseLoader) -> tuple[str, dict[str, Any]]:
    """Return the name of a case and its contents, see ``read_contents``."""
    try:
        loaded = loader(dict(case))
    except Exception as error:
        user_error = user_error_in(error)
        if user_error is None:
            raise
        return case["case"], {"error": str(user_error)}
    image_key, *label_keys = loader.keys
    channels = [_pixels(channel) for channel in loaded[image_key]]
    ranges = [[float(channel.min()), float(channel.max())] for channel in channels]
    content: dict[str, Any] = {
        "intensities": ranges,
        "noise": [round(noise_share(channel), 4) for channel in channels],
        "image_hashes": [_digest(c) for c, (lower, upper) in zip(channels, ranges, strict=True) if lower < upper],
        "labels": None,
        "label_hashes": [],
    }
    label = next((_pixels(loaded[key]) for key in label_keys if case.get(key)), None)
    if label is not None:
        values, counts = np.unique(label, return_counts=True)
        pairs = list(zip(values.tolist(), counts.tolist(), strict=True))
        content["labels"] = pairs[:_MAX_VALUES]
        content["label_hashes"] = [_digest(label)] if values.any() else []
    return case["case"], content


def _pixels(image: torch.Tensor) -> np.ndarray:
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    return np.ascontiguousarray(plain.numpy())


def _digest(pixels: np.ndarray) -> str:
    """Digest the voxels, not the file, whose bytes depend on its compression."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=16, key=str(pixels.shape).encode()[:64]).hexdigest()


def _key(case: Case, loader: CaseLoader, settings: str) -> str:
    listed = [Path(file) for key in loader.keys if case.get(key) for file in files_of(case[key])]
    files = [str(part) for file in listed for part in (image_files(file) if file.exists() else [file])]
    marks = [(file, mark.st_size, mark.st_mtime_ns) if (mark := _stat(file)) else (file,) for file in files]
    text = json.dumps([settings, case["case"], case.get("channels"), marks], default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _stat(file: str) -> os.stat_result | None:
    try:
        return Path(file).stat()
    except OSError:
        return None


def _read_record(record: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the keys and contents recorded by an earlier check, which may have been killed."""
    for line in read_json_lines(record):
        match line:
            case [str(key), dict(content)] if "error" in content or content.keys() >= _FOUND:
                yield key, content
