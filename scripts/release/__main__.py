# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes the files of a release; nothing is uploaded."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from scripts.release.bundles import large_files, model_card, write_zip
from scripts.release.versions import disagreements, tag_disagreement
from segan_monai import __version__

TOP = Path(__file__).parents[2]


def main() -> int:
    """Check the versions and write zips, cards and checksums; return the exit status."""
    parser = argparse.ArgumentParser(prog="bash scripts/release.sh", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder that has the wheel and the source archive")
    parser.add_argument("--hub", default="https://huggingface.co/OWNER", help="address of the bundles' repositories")
    parser.add_argument("--summary", action="append", default=[], metavar="BUNDLE=FILE", help="summary.json for a card")
    parser.add_argument("--trial", action="store_true", help="allow unreleased changes in the changelog")
    options = parser.parse_args()
    wrong = disagreements(TOP, released=not options.trial)
    if tag := tag_disagreement(TOP, __version__):
        wrong.append(tag)
    if wrong:
        print("\n".join(f"error: {text}." for text in wrong), file=sys.stderr)
        return 1
    summaries = dict(text.split("=", 1) for text in options.summary)
    for bundle in sorted(path for path in (TOP / "bundles").iterdir() if path.is_dir()):
        file = summaries.get(bundle.name)
        summary = json.loads(Path(file).read_text(encoding="utf-8")) if file else None
        cards = options.folder / "hub" / bundle.name
        cards.mkdir(parents=True, exist_ok=True)
        (cards / "README.md").write_text(model_card(bundle, summary), encoding="utf-8")
        url = f"{options.hub}/{bundle.name}/resolve/main"
        (cards / "large_files.yml").write_text(large_files(bundle, url), encoding="utf-8")
        write_zip(bundle, options.folder, summary)
    files = sorted(file for file in options.folder.iterdir() if file.suffix in (".whl", ".gz", ".zip"))
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]
    (options.folder / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
