# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Output that any console or file can take."""

from __future__ import annotations

import io
import sys


def escape_what_cannot_be_printed() -> None:
    r"""Let standard output and error write characters that their encoding lacks as escapes, such as ``\u03bc``.

    A console on Windows, or a file that output is redirected to there, has an encoding such as cp1252; ``LANG=C`` and
    ``PYTHONIOENCODING`` choose others. By default the first name of a case outside of it would end the program.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else somebody put an object of another kind there
            stream.reconfigure(errors="backslashreplace")
