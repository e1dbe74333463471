# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes the files of a release; nothing is uploaded."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from scripts.release.bundles import large_files, model_card, read_metadata, write_zip
from scripts.release.versions import disagreements, tag_disagreement
from segan_monai import __version__

TOP = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check options and versions, and write zips, cards and checksums; return the exit status.

    Args:
        arguments: words of the command line; None for those of the process.
    """
    parser = argparse.ArgumentParser(prog="bash scripts/release.sh", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder that has the wheel and the source archive")
    parser.add_argument("--hub", help="address of the bundles' repositories; required without --trial")
    parser.add_argument("--summary", action="append", default=[], metavar="BUNDLE=FILE", help="summary.json for a card")
    parser.add_argument("--trial", action="store_true", help="allow unreleased changes in the changelog")
    parser.add_argument("--check", action="store_true", help="check options and versions, and make nothing")
    options = parser.parse_args(arguments)
    bundles = sorted(path for path in (TOP / "bundles").iterdir() if path.is_dir())
    wrong = disagreements(TOP, released=not options.trial)
    if tag := tag_disagreement(TOP, __version__):
        wrong.append(tag)
    if options.hub is None and not options.trial:
        wrong.append("--hub is missing; expected the address of the bundles' repositories, or --trial")
    summaries, unusable = read_summaries(options.summary, [bundle.name for bundle in bundles])
    wrong += unusable
    if wrong:
        print("\n".join(f"error: {text}." for text in wrong), file=sys.stderr)
        return 1
    if options.check:
        return 0
    hub = (options.hub or "https://huggingface.co/OWNER").rstrip("/")
    for bundle in bundles:
        summary = summaries.get(bundle.name)
        cards = options.folder / "hub" / bundle.name
        cards.mkdir(parents=True, exist_ok=True)
        (cards / "README.md").write_text(model_card(bundle, summary), encoding="utf-8")
        url = f"{hub}/{bundle.name}/resolve/{read_metadata(bundle)['version']}"  # a tag: main changes
        (cards / "large_files.yml").write_text(large_files(bundle, url), encoding="utf-8")
        write_zip(bundle, options.folder, summary)
    files = sorted(file for file in options.folder.iterdir() if file.suffix in (".whl", ".gz", ".zip"))
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]
    (options.folder / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


def read_summaries(texts: Sequence[str], bundles: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Read the values of ``--summary``.

    Args:
        texts: ``BUNDLE=FILE`` each; relative to the top of the checkout.
        bundles: names of all bundles.

    Returns:
        ``summary.json`` by bundle, and what is wrong with the others.
    """
    found: dict[str, Any] = {}
    wrong = []
    for text in texts:
        name, _, file = text.partition("=")
        if name not in bundles or not file:
            wrong.append(f"--summary {text}; expected BUNDLE=FILE with one of the bundles {', '.join(bundles)}")
        elif not Path(file).is_file():
            wrong.append(f"--summary {text}: there is no file {Path(file).resolve()}")
        else:
            found[name] = json.loads(Path(file).read_text(encoding="utf-8"))
    return found, wrong


if __name__ == "__main__":
    sys.exit(main())
