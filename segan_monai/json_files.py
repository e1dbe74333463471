# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""JSON that comes from outside: in any Unicode encoding, with or without a byte order mark, and perhaps damaged."""

from __future__ import annotations

import codecs
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_json(file: str | os.PathLike[str], remedy: str = "Correct it there, or download it again.") -> Any:
    """Read a JSON file in UTF-8, UTF-16 or UTF-32; a byte order mark, as editors on Windows write it, is no fault.

    Args:
        file: the file.
        remedy: what to do about a damaged one.

    Raises:
        DataError: it is not JSON (with line and column), or cannot be read.
        FileNotFoundError: there is no such file.
    """
    try:
        return json.loads(Path(file).read_bytes())  # of bytes, json finds the encoding
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{file} is not valid JSON ({error}). {remedy}") from error


def read_json_object(file: str | os.PathLike[str], remedy: str = "Correct it there, or download it again.") -> dict:
    """Read a JSON file that holds an object, see `read_json`.

    Raises:
        DataError: see `read_json`; it holds something else.
        FileNotFoundError: there is no such file.
    """
    content = read_json(file, remedy)
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__}. Expected a JSON object {{...}}. {remedy}")
    return content


def read_json_lines(file: Path) -> Iterator[Any]:
    """Give the JSON values of a file with one per line; what cannot be read is skipped, with a warning.

    A process that was killed leaves its last line cut off, which is expected; anything else is damage. Both are only
    records of work that can be done again.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("%s cannot be read (%s) and counts as empty", file, error.strerror)
        return
    skipped = 0
    for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        try:
            value = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            value = None
            skipped += 1
        if value is not None:
            yield value
    if skipped:
        logger.warning("%s: %d damaged lines are skipped; what they recorded is done again", file, skipped)


def refuse_byte_order_mark(file: str | os.PathLike[str]) -> None:
    """Raise ConfigError for a config or args file with a byte order mark: MONAI reads both itself, and not with one."""
    with Path(file).open("rb") as stream:
        start = stream.read(3)
    if mark := next((mark for mark in _MARKS if start.startswith(mark)), None):
        name = "UTF-8" if mark == codecs.BOM_UTF8 else "UTF-16"
        raise ConfigError(
            f"{file} begins with a byte order mark of {name}, with which MONAI cannot read it. Save it as "
            "UTF-8 without one (in Notepad: encoding UTF-8, not UTF-8 with BOM or UTF-16)."
        )
