# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Safe case names from arbitrary file names."""

from __future__ import annotations

import hashlib
import os
from typing import Any
from urllib.parse import quote

from segan_monai.errors import DataError

LONGEST = 200
"""Maximum length of a case name in bytes.

File names may have 255 bytes, and results append suffixes such as ``_probabilities.nii.gz``.
"""

_PREFIX_BYTES = 180


def case_name(name: str) -> str:
    r"""Return a name that is safe in file names, tables, logs and HTML.

    Most names are returned unchanged. Slashes, non-printable characters (tabs, line breaks) and non-UTF-8 bytes are
    percent-encoded, as in a URL. In names longer than 200 bytes, a digest of the whole name replaces the end.

    Args:
        name: name of a file or folder, as Python decodes it: non-UTF-8 bytes are lone surrogates.

    Examples:
        >>> case_name("scan\t1"), case_name("scan\udcff"), case_name("Müller 2")
        ('scan%091', 'scan%FF', 'Müller 2')
    """
    safe = "".join(c if c.isprintable() and c not in "/\\" else quote(_bytes(c), safe="") for c in name)
    if len(safe.encode()) <= LONGEST:
        return safe
    kept = safe.encode()[:_PREFIX_BYTES].decode(errors="ignore")
    return f"{kept}~{hashlib.sha256(_bytes(name)).hexdigest()[:12]}"


def is_case_name(name: Any) -> bool:
    """Return whether a user-supplied value is a valid case name."""
    return isinstance(name, str) and bool(name) and case_name(name) == name


def with_case_names(case: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a case with safe names for ``case`` and ``subject``, see ``case_name``."""
    return {**case, **{key: case_name(case[key]) for key in ("case", "subject")}}


def path_for_simpleitk(path: str | os.PathLike[str]) -> str:
    """Return a path as text after checking that it is valid UTF-8.

    SimpleITK terminates the process when it is given any other path.

    Raises:
        DataError: The path contains non-UTF-8 bytes.
    """
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}: the path contains non-UTF-8 bytes, which SimpleITK cannot open. Rename the file or folder."
        ) from error
    return text


def _bytes(text: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # a surrogate that represents no byte, which JSON may contain
        return text.encode(errors="surrogatepass")
