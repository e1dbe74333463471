# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from segan_monai.check.contents import read_contents
from segan_monai.errors import DataError
from segan_monai.transforms import LoadCased


class CountingLoader(LoadCased):
    """Notes the cases that it reads in a file, whatever the process."""

    def __init__(self, log):
        super().__init__(["image"])
        self.log = log

    def __call__(self, data):
        with self.log.open("a", encoding="utf-8") as file:
            file.write(data["case"] + "\n")
        return super().__call__(data)

    @property
    def read(self):
        return sorted(self.log.read_text(encoding="utf-8").split()) if self.log.exists() else []


class KilledLoader(LoadCased):
    """Its process is killed as by the kernel when memory runs out."""

    def __call__(self, data):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def cases(tmp_path, write_volume):
    images = [write_volume(tmp_path / f"{i}.nii.gz", np.arange(24.0).reshape(2, 3, 4) + i) for i in range(20)]
    return [{"case": f"c{i}", "image": str(image)} for i, image in enumerate(images)]


def test_what_is_in_a_case(cases, tmp_path):
    found = read_contents(cases[3:4], LoadCased(["image"]), "", tmp_path / "cases.jsonl", 1)["c3"]
    assert found["intensities"] == [[3.0, 26.0]]
    assert found["labels"] is None
    assert len(found["image_hashes"]) == 1


def test_several_processes_find_what_one_finds(cases, tmp_path):
    one = read_contents(cases, LoadCased(["image"]), "", tmp_path / "one.jsonl", 1)
    two = read_contents(cases, LoadCased(["image"]), "", tmp_path / "two.jsonl", 2)
    assert one == two
    assert list(two) == [case["case"] for case in cases]


def test_only_what_changed_is_read_again(cases, tmp_path, write_volume):
    record = tmp_path / "folder" / "cases.jsonl"
    first = CountingLoader(tmp_path / "first")
    read_contents(cases, first, "settings", record, 1)
    assert len(first.read) == 20

    with record.open("a", encoding="utf-8") as file:
        file.write('["a line cut off when the che')
    write_volume(tmp_path / "7.nii.gz", np.zeros((2, 3, 5)))
    second = CountingLoader(tmp_path / "second")
    found = read_contents(cases, second, "settings", record, 1)
    assert second.read == ["c7"]
    assert found["c7"]["intensities"] == [[0.0, 0.0]]

    third = CountingLoader(tmp_path / "third")
    read_contents(cases[:2], third, "other settings", record, 1)
    assert third.read == ["c0", "c1"]


def test_changed_voxels_beside_the_same_header_are_read_again(tmp_path):
    header, voxels, record = tmp_path / "a.mhd", tmp_path / "a.raw", tmp_path / "cases.jsonl"
    image = SimpleITK.GetImageFromArray(np.full((4, 5, 6), 7, np.int16))
    SimpleITK.WriteImage(image, str(header))
    cases = [{"case": "a", "image": str(header)}]
    assert read_contents(cases, LoadCased(["image"]), "", record, 1)["a"]["intensities"] == [[7, 7]]
    voxels.write_bytes(np.full(120, 9, np.int16).tobytes())
    os.utime(voxels, ns=(0, 0))
    assert read_contents(cases, LoadCased(["image"]), "", record, 1)["a"]["intensities"] == [[9, 9]]


def test_what_was_read_before_an_interruption_is_kept(cases, tmp_path):
    class Interrupted(CountingLoader):
        def __call__(self, data):
            if data["case"] == "c5":
                raise KeyboardInterrupt
            return super().__call__(data)

    record = tmp_path / "cases.jsonl"
    with pytest.raises(KeyboardInterrupt):
        read_contents(cases, Interrupted(tmp_path / "first"), "", record, 1)
    assert len(record.read_text(encoding="utf-8").splitlines()) == 5
    second = CountingLoader(tmp_path / "second")
    read_contents(cases, second, "", record, 1)
    assert "c4" not in second.read
    assert "c5" in second.read


def test_errors_are_kept_too(cases, tmp_path):
    record = tmp_path / "cases.jsonl"
    with Path(cases[0]["image"]).open("r+b") as file:
        file.truncate(50)
    for _ in range(2):
        found = read_contents(cases[:1], LoadCased(["image"]), "", record, 1)
        assert "0.nii.gz cannot be read (" in found["c0"]["error"]
    assert len(record.read_text(encoding="utf-8").splitlines()) == 1
    assert json.loads(record.read_text(encoding="utf-8"))[1] == found["c0"]


def test_a_killed_process_is_said(cases, tmp_path):
    with pytest.raises(
        DataError, match="one of 2 processes was killed, probably because the machine ran out of memory"
    ):
        read_contents(cases, KilledLoader(["image"]), "", tmp_path / "cases.jsonl", 2)


@pytest.mark.parametrize("damage", [b"3", b"\xff\xfe\x81", b'["k"]', b'["k", 3]', b'["k", {}]', b"[", b"{}"])
def test_a_damaged_record_is_read_again(cases, tmp_path, damage):
    record = tmp_path / "cases.jsonl"
    found = read_contents(cases[:3], LoadCased(["image"]), "", record, 1)
    first, second, third = record.read_bytes().splitlines()
    key = second.split(b",")[0].removeprefix(b"[")
    record.write_bytes(b"\n".join([first, damage.replace(b'"k"', key), third]))
    loader = CountingLoader(tmp_path / "log")
    assert read_contents(cases[:3], loader, "", record, 1).keys() == found.keys()
