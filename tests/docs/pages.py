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


def script_of(page: Path) -> str:
    """All commands of a page, as somebody would type them one block after the other into one shell."""
    return "".join(text for _, language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language == "bash")


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))
