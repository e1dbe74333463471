# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import errno
from pathlib import Path

import pytest

import segan_monai
from segan_monai.errors import OutputError, UserError
from segan_monai.files import append_line, whole_file, write_text, writing


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
    file.write_text("before", encoding="utf-8")
    with whole_file(file) as temporary:
        assert temporary == tmp_path / temporary_name
        temporary.write_text("aft", encoding="utf-8")
        assert file.read_text(encoding="utf-8") == "before"
    assert file.read_text(encoding="utf-8") == "aft"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_an_error_leaves_the_file_as_it_was_and_nothing_else(tmp_path, error):
    file = tmp_path / "table.csv"
    file.write_text("before", encoding="utf-8")
    with pytest.raises(type(error)), whole_file(file) as temporary:  # noqa: PT012 - the error comes from the block
        temporary.write_text("half", encoding="utf-8")
        raise error
    assert file.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_is_named_with_the_reason_and_the_remedy(tmp_path):
    expected = r"history.csv cannot be written \(No space left on device\).*Free space"
    with pytest.raises(OutputError, match=expected) as caught, writing("run/history.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(caught.value, UserError)
    file = tmp_path / "missing" / "table.csv"
    with pytest.raises(OutputError, match=r"missing/table\.csv cannot be written"), whole_file(file) as temporary:
        temporary.write_text("", encoding="utf-8")


def test_text_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "run.json"
    write_text(file, "Münster\n")
    assert file.read_bytes() == b"M\xc3\xbcnster\n"
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "half \ud800")
    assert file.read_bytes() == b"M\xc3\xbcnster\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("folder", ["segan_monai", "scripts"])
def test_text_is_utf8_whatever_the_locale(folder):
    """In a container without a locale Python's default may be ASCII, and names of patients are not."""
    left = []
    for file in (Path(segan_monai.__file__).parents[1] / folder).rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or any(k.arg == "encoding" for k in call.keywords):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if isinstance(call.func, ast.Name) and name == "write_text":  # that of segan_monai.files
                continue
            text = any(k.arg == "text" for k in call.keywords)  # of a process
            if name in ("read_text", "write_text", "FileHandler") or (
                text and name in ("run", "Popen", "check_output")
            ):
                left.append(f"{file.name}:{call.lineno}: {ast.unparse(call)}")
    assert not left


def test_a_line_is_appended_after_one_that_was_cut_off(tmp_path):
    file = tmp_path / "journal.jsonl"
    append_line(file, "one")
    append_line(file, "zwei ä")
    assert file.read_bytes() == "one\nzwei ä\n".encode()
    file.write_bytes(b"one\ntw")
    append_line(file, "three")
    assert file.read_bytes() == b"one\ntw\nthree\n"
    with pytest.raises(OutputError, match="cannot be written"):
        append_line(tmp_path, "one")
