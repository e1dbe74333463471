# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Parts of work that several independent processes share, such as the tasks of a Slurm array."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from segan_monai.errors import ConfigError

T = TypeVar("T")
PARTS = "parts"
"""Subfolder of an output folder with the records of its parts."""


@dataclass(frozen=True)
class Part:
    """One of several parts of a list of tasks.

    Attributes:
        number: from 1 to ``parts``.
        parts: number of parts.
    """

    number: int
    parts: int

    @property
    def name(self) -> str:
        """Name for files and folders of this part, such as ``2_of_4``."""
        return f"{self.number}_of_{self.parts}"

    def folder(self, output_dir: str | os.PathLike[str]) -> Path:
        """Return the folder for records of this part in the output folder that all parts share."""
        return Path(output_dir) / PARTS / self.name

    def of(self, items: Sequence[T]) -> list[T]:
        """Return every ``parts``-th item, beginning with number ``number``. Each item is in exactly one part.

        Examples:
            >>> Part(2, 3).of("abcdefg")
            ['b', 'e']
        """
        return list(items[self.number - 1 :: self.parts])


def parse_part(text: str | None) -> Part | None:
    """Parse a part such as ``2/4``.

    Args:
        text: number of the part, from 1, and number of parts; None for all.

    Raises:
        ConfigError: The text has another form.

    Examples:
        >>> parse_part("2/4")
        Part(number=2, parts=4)
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", str(text))
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(
            f"cannot parse the part '{text}'; expected its number, from 1, and the number of parts, such as 2/4. The "
            "tasks of a Slurm array are numbered by --array=1-4, and their number is $SLURM_ARRAY_TASK_ID."
        )
    return Part(int(found[1]), int(found[2]))
