# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The Markdown files that users read."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(TOP / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
        *TOP.glob("docs/**/*.md"),
        *TOP.glob("bundles/*/docs/README.md"),
    ]
)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(TOP))


def script_of(page: Path, language: str = "bash") -> str:
    """Join all blocks of a page in one language, in their order."""
    return "".join(blocks_of(page, language))


def blocks_of(page: Path, language: str) -> list[str]:
    """Return the blocks of a page in one language, in their order."""
    return [text for _, found, text in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))
