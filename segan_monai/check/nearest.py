# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Suggests the known names nearest to an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ``Did you mean a or b? ``, or an empty string if no known name is similar."""
    found = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(prefix + other for other in found)}? " if found else ""
