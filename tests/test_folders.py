# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from segan_monai.folders import walk_files


def test_files_are_sorted_and_hidden_names_and_loops_skipped(tmp_path):
    for name in ("b/2.nii", "a/1.nii", ".hidden/3.nii", "a/._1.nii"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path)] == ["a/1.nii", "b/2.nii"]
