# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Style check of the JSON configs: valid syntax, unique keys, indentation by 4."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Raise an error for duplicate keys, which the JSON module would silently merge."""
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)):
        raise ValueError(f"duplicate key among {keys}")
    return dict(pairs)


def main() -> int:
    """Check every config; return the exit status."""
    failed = 0
    for file in sorted([*Path("bundles").rglob("*.json"), *Path("configs").rglob("*.json")]):
        text = file.read_text(encoding="utf-8")
        try:
            json.loads(text, object_pairs_hook=no_key_twice)
            lines = text.splitlines()
            if not text.endswith("}\n") or any(
                (len(line) - len(line.lstrip(" "))) % 4 or "\t" in line for line in lines
            ):
                raise ValueError("expected an indentation of 4 spaces and a final line feed")
        except ValueError as error:
            print(f"{file}: {error}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
