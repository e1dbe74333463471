# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""JSON files: read in any Unicode encoding, with or without a byte order mark, possibly damaged; written atomically."""

from __future__ import annotations

import codecs
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, DataError
from segan_monai.files import write_text

logger = logging.getLogger(__name__)

_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_json(file: str | os.PathLike[str], remedy: str = "Correct the file, or download it again.") -> Any:
    """Read a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Args:
        file: the file.
        remedy: sentence that ends the error message if the file is damaged.

    Raises:
        DataError: The file is not valid JSON (the message gives line and column) or cannot be read.
        FileNotFoundError: The file does not exist.
    """
    try:
        return json.loads(Path(file).read_bytes())  # json detects the encoding of bytes
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{file} is not valid JSON ({error}). {remedy}") from error


def read_json_object(file: str | os.PathLike[str], remedy: str = "Correct the file, or download it again.") -> dict:
    """Read a JSON file that contains an object, see ``read_json``.

    Raises:
        DataError: The file cannot be read (see ``read_json``) or contains another type.
        FileNotFoundError: The file does not exist.
    """
    content = read_json(file, remedy)
    if not isinstance(content, dict):
        raise DataError(f"{file} contains a {type(content).__name__}. Expected a JSON object {{...}}. {remedy}")
    return content


def write_json(file: str | os.PathLike[str], content: Any, **options: Any) -> None:
    """Write a value as JSON in UTF-8, atomically, see ``whole_file``.

    Args:
        file: destination; its folder must exist.
        content: the value.
        options: options of ``json.dumps``; by default, ``indent`` is 4.

    Raises:
        OutputError: The file cannot be written.
        TypeError, ValueError: ``json.dumps`` cannot write the value. The file is unchanged.
    """
    write_text(file, json.dumps(content, **{"indent": 4, **options}) + "\n")


def read_json_lines(file: Path) -> Iterator[Any]:
    """Iterate over the values of a JSON Lines file, skipping unreadable lines with a warning.

    A killed process may leave its last line incomplete. Skipping damaged lines is safe because each records work that
    can be repeated.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("%s cannot be read (%s) and is treated as empty", file, error.strerror)
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
        logger.warning("%s: skipped %d damaged lines; the work they recorded is repeated", file, skipped)


def refuse_byte_order_mark(file: str | os.PathLike[str]) -> None:
    """Check that a config or args file has no byte order mark, with which MONAI cannot read it.

    Raises:
        ConfigError: The file begins with a byte order mark.
    """
    with Path(file).open("rb") as stream:
        start = stream.read(3)
    if mark := next((mark for mark in _MARKS if start.startswith(mark)), None):
        name = "UTF-8" if mark == codecs.BOM_UTF8 else "UTF-16"
        raise ConfigError(
            f"{file} begins with a {name} byte order mark, which MONAI cannot read. Save the file as "
            "UTF-8 without one (in Notepad: encoding UTF-8, not UTF-8 with BOM or UTF-16)."
        )
