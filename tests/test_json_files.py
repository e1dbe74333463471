# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from segan_monai.command_line import read_arguments
from segan_monai.data import decathlon_cases, read_split
from segan_monai.errors import ConfigError, DataError
from segan_monai.json_files import read_json, read_json_lines, read_json_object, refuse_byte_order_mark, write_json

CONTENT = {"training": [{"image": "ä.nii.gz"}]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_unicode_encoding_with_and_without_mark(encoding, tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(CONTENT, ensure_ascii=False), encoding=encoding)
    assert read_json(file) == CONTENT
    (tmp_path / "ä.nii.gz").touch()
    assert decathlon_cases(file)[0]["case"] == "ä"
    split = {"training": ["ä"], "validation": []}
    file.write_text(json.dumps(split, ensure_ascii=False), encoding=encoding)
    assert read_split(file).items() >= split.items()


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\x00\x81", "ä".encode("cp1252"), b"", b"[" * 100_000])
def test_what_is_no_json_is_named_with_what_to_do(content, tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json is not valid JSON \(.*\)\. Write it again\."):
        read_json(file, "Write it again.")


def test_folders_missing_files_and_other_values(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
    with pytest.raises(DataError, match="is not valid JSON"):
        read_json(tmp_path)
    (tmp_path / "a.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json contains a list\. Expected a JSON object"):
        read_json_object(tmp_path / "a.json")


def test_lines_that_are_damaged_are_skipped_and_said(tmp_path, caplog):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\xff\xfe\x00\n\n{"a":\n[2]\r\n{"cut')
    assert list(read_json_lines(file)) == [{"a": 1}, [2]]
    assert "a.jsonl: skipped 3 damaged lines" in caplog.text
    assert list(read_json_lines(tmp_path / "none.jsonl")) == []
    caplog.clear()
    assert list(read_json_lines(tmp_path)) == []
    assert "cannot be read (Is a directory) and is treated as empty" in caplog.text


@pytest.mark.parametrize(("encoding", "name"), [("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16")])
def test_a_config_with_a_mark_is_refused_in_words(encoding, name, tmp_path):
    file = tmp_path / "a.json"
    file.write_text("{}", encoding=encoding)
    with pytest.raises(ConfigError, match=rf"a\.json begins with a {name} byte order mark, .* Save the file as UTF-8"):
        refuse_byte_order_mark(file)
    with pytest.raises(ConfigError, match=r"a\.json begins with a UTF-(8|16) byte order mark"):
        read_arguments(["training", "--args_file", str(file)])
    file.write_text("{}", encoding="utf-8")
    refuse_byte_order_mark(file)


def test_what_is_written_is_read_again_and_a_value_that_json_lacks_changes_nothing(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, CONTENT)
    before = file.read_bytes()
    assert before == b'{\n    "training": [\n        {\n            "image": "\\u00e4.nii.gz"\n        }\n    ]\n}\n'
    assert read_json(file) == CONTENT
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"dice": float("nan")}, allow_nan=False)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", before)]
    write_json(file, [1, "x"], indent=None)
    assert file.read_bytes() == b'[1, "x"]\n'
