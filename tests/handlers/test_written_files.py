# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from segan_monai.handlers.written_files import written

OUT = Path("out")


def finished(case, *endings, **more):
    return {"case": case, "status": "finished", "files": [case + ending for ending in endings], **more}


def test_files_are_counted_by_their_kind():
    lines = [
        finished("a", "_seg.nii.gz", "_overlay.png", "_probability_WT.nii.gz", "_notes.json", ml={"WT": 1.5}),
        finished("b", "_seg.nii.gz"),
        {"case": "c", "status": "failed", "files": []},
    ]
    assert written(OUT, lines) == [
        "2 of 3 cases segmented, 1 failed; written:",
        f"  {OUT / '*_seg.nii.gz'}: 2 files, label map",
        f"  {OUT / 'a_overlay.png'}: picture of the label map's outlines",
        f"  {OUT / 'a_probability_WT.nii.gz'}: probability of a region",
        f"  {OUT / 'a_notes.json'}: one per case",
        f"  {OUT / 'volumes.csv'}: ml per case and region",
        f"  {OUT / 'inference.json'}: status, files and error per case",
    ]


def test_a_part_has_its_records_elsewhere_and_flagged_cases_are_counted_once():
    doubtful, fine = {"flag": "below 0.5"}, {"flag": ""}
    lines = [
        finished("a", "_seg.png", quality={"WT": doubtful, "TC": doubtful}),
        finished("b", "_seg.png", quality={"WT": fine}),
    ]
    assert written(OUT, lines, OUT / "part") == [
        "2 of 2 cases segmented; written:",
        f"  {OUT / '*_seg.png'}: 2 files, label map",
        f"  {OUT / 'part' / 'quality.csv'}: expected Dice per case and region; 1 of 2 flagged",
        f"  {OUT / 'part' / 'inference.json'}: status, files and error per case",
    ]


def test_nothing_finished_is_said_so():
    lines = [{"case": "a", "status": "failed", "files": []}]
    assert written(OUT, lines) == [
        "0 of 1 cases segmented, 1 failed; written:",
        f"  {OUT / 'inference.json'}: status, files and error per case",
    ]
