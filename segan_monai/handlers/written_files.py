# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What an inference has written where, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.report.quality import far_cases

VOLUMES = "volumes.csv"
QUALITY = "quality.csv"
KINDS = {
    "_seg": "label map",
    "_overlay": "picture of the label map's outlines",
    "_probabilities": "probabilities",
    "_probability_": "probability of a region",
    "_normalized": "normalized image",
    "_rois": "regions of interest",
}


def written(output_dir: Path, lines: Sequence[Mapping[str, Any]], record_dir: Path | None = None) -> list[str]:
    """Return lines of text that say what an inference has written where.

    Args:
        output_dir: folder of the files.
        lines: lines of the journal, one per case that was reached.
        record_dir: folder of ``inference.json`` and ``volumes.csv``; None for ``output_dir``.
    """
    record_dir = record_dir or output_dir
    finished = [line for line in lines if line["status"] == "finished"]
    failed = len(lines) - len(finished)
    text = [f"{len(finished)} of {len(lines)} cases segmented{f', {failed} failed' if failed else ''}; written:"]
    of_ending: dict[str, list[str]] = {}
    for line in finished:
        for file in line["files"]:
            of_ending.setdefault(file.removeprefix(line["case"]), []).append(file)
    for ending, files in of_ending.items():
        name, count = (files[0], "") if len(files) == 1 else (f"*{ending}", f"{len(files)} files, ")
        kind = next((kind for part, kind in KINDS.items() if ending.startswith(part)), "one per case")
        text.append(f"  {output_dir / name}: {count}{kind}")
    if any(line.get("ml") for line in finished):
        text.append(f"  {record_dir / VOLUMES}: ml per case and region")
    if any(line.get("quality") for line in finished):
        flagged = sum(any(found["flag"] for found in (line.get("quality") or {}).values()) for line in finished)
        text.append(
            f"  {record_dir / QUALITY}: expected Dice per case and region; {flagged} of {len(finished)} flagged"
        )
    if far := far_cases({line["case"]: line for line in finished}):
        text.append(f"  {far}")
    return [*text, f"  {record_dir / 'inference.json'}: status, files and error per case"]
