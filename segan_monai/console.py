# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Console output that is safe in any encoding."""

from __future__ import annotations

import io
import sys


def escape_what_cannot_be_printed() -> None:
    r"""Make stdout and stderr escape characters that their encoding lacks, such as ``\u03bc``.

    Consoles and redirected files on Windows use encodings such as cp1252; ``LANG=C`` and ``PYTHONIOENCODING`` select
    others. By default, the first case name that cannot be encoded would end the program.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test runner or notebook may have replaced the stream
            stream.reconfigure(errors="backslashreplace")
