# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno

import pytest

from segan_monai.errors import OutputError, UserError
from segan_monai.files import whole_file, writing


@pytest.mark.parametrize(
    ("name", "temporary_name"),
    [
        ("case.v2_seg.nii.gz", ".case.v2_seg.part.nii.gz"),
        ("last.pt", ".last.part.pt"),
        ("case_seg.png", ".case_seg.part.png"),
    ],
)
def test_the_file_is_what_it_was_until_the_new_one_is_whole(tmp_path, name, temporary_name):
    file = tmp_path / name
    file.write_text("before")
    with whole_file(file) as temporary:
        assert temporary == tmp_path / temporary_name
        temporary.write_text("aft")
        assert file.read_text() == "before"
    assert file.read_text() == "aft"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_an_error_leaves_the_file_as_it_was_and_nothing_else(tmp_path, error):
    file = tmp_path / "table.csv"
    file.write_text("before")
    with pytest.raises(type(error)), whole_file(file) as temporary:
        temporary.write_text("half")
        raise error
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_is_named_with_the_reason_and_the_remedy(tmp_path):
    expected = r"history.csv cannot be written \(No space left on device\).*Free space"
    with pytest.raises(OutputError, match=expected) as caught, writing("run/history.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(caught.value, UserError)
    file = tmp_path / "missing" / "table.csv"
    with pytest.raises(OutputError, match=r"missing/table\.csv cannot be written"), whole_file(file) as temporary:
        temporary.write_text("")
