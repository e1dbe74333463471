# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Names of cases from names of files, whatever characters and bytes these have."""

from __future__ import annotations

import hashlib
import os
from typing import Any
from urllib.parse import quote

from segan_monai.errors import DataError

LONGEST = 200
"""Bytes of a name: a file name may have 255, and results add ``_probabilities.nii.gz`` and the like."""

_KEPT_OF_LONG = 180


def case_name(name: str) -> str:
    r"""Return a name that files, tables, logs and pages can carry; nearly always the same one.

    Slashes, characters that cannot be printed (tabs, line ends) and bytes that are not UTF-8 become ``%`` and two
    digits each, as in a URL. Of a name above 200 bytes the end is replaced by a digest of the whole.

    Args:
        name: of a file or folder, as Python has it: bytes that are not UTF-8 are lone surrogates.

    Examples:
        >>> case_name("scan\t1"), case_name("scan\udcff"), case_name("Müller 2")
        ('scan%091', 'scan%FF', 'Müller 2')
    """
    safe = "".join(c if c.isprintable() and c not in "/\\" else quote(_bytes(c), safe="") for c in name)
    if len(safe.encode()) <= LONGEST:
        return safe
    kept = safe.encode()[:_KEPT_OF_LONG].decode(errors="ignore")
    return f"{kept}~{hashlib.sha256(_bytes(name)).hexdigest()[:12]}"


def is_case_name(name: Any) -> bool:
    """Tell whether a name that somebody gave to a case can be one."""
    return isinstance(name, str) and bool(name) and case_name(name) == name


def with_case_names(case: dict[str, Any]) -> dict[str, Any]:
    """Return a case that was named after its files, with ``case`` and ``subject`` that everything can carry."""
    return {**case, **{key: case_name(case[key]) for key in ("case", "subject")}}


def path_for_simpleitk(path: str | os.PathLike[str]) -> str:
    """Return a path as text, if SimpleITK can open it: it ends the whole process for one that is not UTF-8.

    Raises:
        DataError: the name holds other bytes.
    """
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}: its path holds bytes that are not UTF-8, which SimpleITK cannot open. Rename it."
        ) from error
    return text


def _bytes(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte, as JSON can have it
        return text.encode(errors="surrogatepass")
