# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Read whole cases in several processes, and keep what was found so that the next check reads only what changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from tqdm import tqdm

from segan_monai.check.cases import Case, files_of
from segan_monai.errors import user_error_in
from segan_monai.parallel import available_processes, map_in_processes

_MOST_VALUES = 300  # of a label map that are kept; one with more is an image by mistake
_AT_ONCE = 8  # cases handed to a process


def read_contents(
    cases: Sequence[Case], loader: Any, settings: str, record: Path, processes: int | None = None
) -> dict[str, dict[str, Any]]:
    """Read cases as the run will, and say what is in them.

    Args:
        cases: the cases.
        loader: the transform that reads one.
        settings: text that changes whenever the loader's settings do.
        record: a file with a line a case, keyed by path, size and time of change of its files. What is in it already is
            not read again; every case is added as soon as it is read.
        processes: how many; by default the cores at hand, at most 8.

    Returns:
        Of each case either ``error`` (a message), or ``intensities`` (least and greatest of each channel),
        ``image_hashes`` (of each channel that is not one value), ``labels`` (pairs of value and voxels, None without
        label map), ``label_hashes``.

    Raises:
        DataError: a process was killed.
    """
    keys = {case["case"]: _key(case, loader, settings) for case in cases}
    known = dict(_read_record(record))
    found = {name: known[key] for name, key in keys.items() if key in known}
    todo = [case for case in cases if case["case"] not in found]
    processes = available_processes(-(-len(todo) // _AT_ONCE), processes)
    record.parent.mkdir(parents=True, exist_ok=True)
    bar = partial(tqdm, desc="contents", initial=len(found), total=len(cases), unit="case", disable=None)
    read = partial(read_content, loader=loader)
    with record.open("a", encoding="utf-8") as file:
        contents = map_in_processes(read, todo, processes, chunksize=_AT_ONCE)
        for name, content in bar(contents):
            file.write(json.dumps([keys[name], content]) + "\n")
            file.flush()
            found[name] = content
    return {case["case"]: found[case["case"]] for case in cases}


def read_content(case: Case, loader: Any) -> tuple[str, dict[str, Any]]:
    """The name of a case and what is in it, see `read_contents`."""
    try:
        loaded = loader(dict(case))
    except Exception as error:
        mendable = user_error_in(error)
        if mendable is None:
            raise
        return case["case"], {"error": str(mendable)}
    image_key, *label_keys = loader.keys
    channels = [_pixels(channel) for channel in loaded[image_key]]
    ranges = [[float(channel.min()), float(channel.max())] for channel in channels]
    content: dict[str, Any] = {
        "intensities": ranges,
        "image_hashes": [_digest(c) for c, (lower, upper) in zip(channels, ranges, strict=True) if lower < upper],
        "labels": None,
        "label_hashes": [],
    }
    label = next((_pixels(loaded[key]) for key in label_keys if case.get(key)), None)
    if label is not None:
        values, counts = np.unique(label, return_counts=True)
        pairs = list(zip(values.tolist(), counts.tolist(), strict=True))
        content["labels"] = pairs[:_MOST_VALUES]
        content["label_hashes"] = [_digest(label)] if values.any() else []
    return case["case"], content


def _pixels(image: torch.Tensor) -> np.ndarray:
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    return np.ascontiguousarray(plain.numpy())


def _digest(pixels: np.ndarray) -> str:
    """Of voxels, not of the file: compressed again, the same image has other bytes."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=16, key=str(pixels.shape).encode()[:64]).hexdigest()


def _key(case: Case, loader: Any, settings: str) -> str:
    files = [file for key in loader.keys if case.get(key) for file in files_of(case[key])]
    marks = [(file, mark.st_size, mark.st_mtime_ns) if (mark := _stat(file)) else (file,) for file in files]
    text = json.dumps([settings, case["case"], case.get("channels"), marks], default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _stat(file: str) -> os.stat_result | None:
    try:
        return Path(file).stat()
    except OSError:
        return None


def _read_record(record: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of an earlier check; the last may have been cut off when it was killed."""
    if not record.is_file():
        return
    with record.open(encoding="utf-8") as file:
        for line in file:
            try:
                key, content = json.loads(line)
            except ValueError:
                continue
            yield key, content
