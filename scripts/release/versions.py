# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Check that all places that state a version agree."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path


def disagreements(top: Path, released: bool = False) -> list[str]:
    """Return what contradicts the version of the package; empty if all agree.

    Args:
        top: top of the checkout.
        released: the version is to be released: its section of the changelog has entries and a date, and nothing is
            listed as unreleased. Otherwise the changelog must have a section of the last release only.
    """
    version = re.findall(r'__version__ = "(.+)"', (top / "segan_monai" / "_version.py").read_text(encoding="utf-8"))[0]
    found = []
    citation = re.findall(r"^version: (.+)$", (top / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    if citation != [version]:
        found.append(f"CITATION.cff has the version {', '.join(citation) or 'none'}; expected {version}")
    for file in sorted(top.glob("bundles/*/configs/metadata.json")):
        metadata, name = json.loads(file.read_text(encoding="utf-8")), file.parents[1].name
        if metadata["version"] not in metadata["changelog"]:
            found.append(f"{name}: the changelog of metadata.json has no version {metadata['version']}")
        if (needed := metadata["required_packages_version"].get("segan-monai")) != version:
            found.append(f"{name}: metadata.json requires segan-monai {needed}; expected {version}")
    return found + _of_changelog((top / "CHANGELOG.md").read_text(encoding="utf-8"), version, released)


def _of_changelog(text: str, version: str, released: bool) -> list[str]:
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", text, re.MULTILINE))
    own = [title for title in sections if re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", title)]
    if not own:
        return [f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD'"]
    if released and sections.get("Unreleased", "").strip():
        return [f"CHANGELOG.md lists changes as unreleased; move them to a new version, now {version}"]
    return []


def tag_disagreement(top: Path, version: str) -> str | None:
    """Return what is wrong with the tag of the current commit: it is to be ``vVERSION``, or there is none."""
    listed = subprocess.run(
        ["git", "tag", "--points-at", "HEAD", "--list", "v*"],
        cwd=top,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    tags = listed.stdout.split()
    if tags and f"v{version}" not in tags:
        return f"the commit has the tag {', '.join(tags)}; expected v{version}"
    return None
