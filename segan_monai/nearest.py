# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Suggests the known names nearest to an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return at most three known names that are similar to a name, the most similar first."""
    return difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)


def near(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ``Did you mean a or b? ``, or an empty string if no known name is similar."""
    found = nearest(name, known)
    return f"Did you mean {' or '.join(prefix + other for other in found)}? " if found else ""
