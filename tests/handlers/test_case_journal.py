# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from ignite.engine import Engine

from segan_monai.data.case_cache import digest
from segan_monai.data.split_file import write_split
from segan_monai.errors import OutputError
from segan_monai.handlers import CaseJournal


@pytest.fixture
def cases(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.nii.gz").write_bytes(b"image")
    return [{"case": name, "image": str(tmp_path / f"{name}.nii.gz")} for name in "abc"]


@pytest.fixture
def journal(tmp_path, cases):
    """Of a run that has finished all three cases."""
    begun = CaseJournal(tmp_path / "out", tmp_path / "model.pt")
    assert begun.unfinished(cases) == cases
    lines = []
    for name in "abc":
        (tmp_path / "out" / f"{name}_seg.nii.gz").touch()
        line = {"case": name, "status": "finished", "seconds": 1.0, "error": None, "files": [f"{name}_seg.nii.gz"]}
        lines.append(json.dumps({**line, "key": begun.keys[name], "ended": 10.0}))
    begun.journal.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert CaseJournal(tmp_path / "out", tmp_path / "model.pt").unfinished(cases) == []
    return begun.journal


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-20],
        lambda line: b"\xff\xfe\x00\x81" + line,
        lambda line: b"3",
        lambda line: b"[]",
        lambda line: b'"a"',
        lambda line: b"{}",
        lambda line: line.replace(b'"status": "finished", ', b""),
        lambda line: line.replace(b'["b_seg.nii.gz"]', b"null"),
        lambda line: line.replace(b'["b_seg.nii.gz"]', b"[3]"),
        lambda line: line.replace(b"10.0", b'"yesterday"'),
        lambda line: line.replace(b'"b"', b"[]", 1),
    ],
)
def test_a_case_whose_line_is_damaged_is_run_again(damage, journal, cases, tmp_path):
    first, second, third = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([first, damage(second), third]))
    again = CaseJournal(tmp_path / "out", tmp_path / "model.pt")
    assert [case["case"] for case in again.unfinished(cases)] == ["b"]
    summary = json.loads((tmp_path / "out" / "inference.json").read_text(encoding="utf-8"))
    assert summary["counts"] == {"finished": 2, "failed": 0, "not reached": 1}


def test_a_journal_of_garbage_counts_as_empty(journal, cases, tmp_path, caplog):
    journal.write_bytes(bytes(range(256)) * 4)
    assert CaseJournal(tmp_path / "out", tmp_path / "model.pt").unfinished(cases) == cases
    assert "inference.jsonl: " in caplog.text
    assert "damaged lines" in caplog.text


def test_a_folder_in_its_place_is_named_at_the_start(journal, cases, tmp_path):
    journal.unlink()
    journal.mkdir()
    with pytest.raises(OutputError, match=r"inference\.jsonl cannot be written \(it is a folder\)"):
        CaseJournal(tmp_path / "out", tmp_path / "model.pt").unfinished(cases)


def test_the_quality_of_an_earlier_run_does_not_stay(journal, cases, tmp_path):
    out = tmp_path / "out"
    (out / "report.html").touch()
    assert CaseJournal(out, tmp_path / "model.pt").unfinished(cases) == []
    assert (out / "report.html").exists(), "without quality.csv, it is another's"
    quality = {"lesion": {"expected_dice": 0.9, "lower_bound": 0.8, "flag": ""}}
    lines = [{**json.loads(line), "quality": quality} for line in journal.read_text(encoding="utf-8").splitlines()]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert CaseJournal(out, tmp_path / "model.pt").unfinished(cases) == []
    assert (out / "quality.csv").read_text(encoding="utf-8").splitlines()[1] == "a,lesion,0.9,0.8,"
    (tmp_path / "model.pt").write_bytes(b"other weights, without quality.json")
    assert CaseJournal(out, tmp_path / "model.pt").unfinished(cases) == cases
    assert not (out / "quality.csv").exists()
    assert not (out / "report.html").exists()


def test_members_that_have_got_an_estimate_are_run_again(cases, tmp_path):
    weights = [tmp_path / f"fold_{number}" / "model.pt" for number in range(2)]
    for file in weights:
        file.parent.mkdir()
        file.write_bytes(file.parent.name.encode())

    def keys():
        run = CaseJournal(tmp_path / "out", weights)
        run.unfinished(cases)
        return run.keys

    without = keys()
    assert keys() == without
    for file in weights:
        file.with_name("quality.json").write_text("{}", encoding="utf-8")
    fitted = keys()
    weights[1].with_name("quality.json").write_text('{"of": "another fit"}', encoding="utf-8")
    assert len({keys()["a"], fitted["a"], without["a"]}) == 3


def test_files_that_a_case_no_longer_has_do_not_stay(journal, cases, tmp_path):
    out = tmp_path / "out"
    line = json.loads(journal.read_text(encoding="utf-8").splitlines()[0])
    line["files"].append("a_overlay.png")
    (out / "a_overlay.png").touch()
    journal.write_text(json.dumps(line) + "\n", encoding="utf-8")
    again = CaseJournal(out, tmp_path / "model.pt", repeat_finished=True)
    left = again.unfinished(cases[:1])
    evaluator = Engine(lambda engine, batch: [{"saved_files": [str(out / "a_seg.nii.gz")], "pred": None}])
    evaluator.failures = {}
    again.attach(evaluator)
    evaluator.run([{"case": [case["case"]]} for case in left])
    assert (out / "a_seg.nii.gz").exists()
    assert not (out / "a_overlay.png").exists(), "it shows the outlines of the earlier run"


def left(run_folder, cases):
    return [case["case"] for case in CaseJournal(run_folder / "out", run_folder / "model.pt").unfinished(cases)]


def finish(run_folder, cases):
    """Write the journal of a run that has finished the cases."""
    begun = CaseJournal(run_folder / "out", run_folder / "model.pt")
    begun.unfinished(cases)
    line = {"status": "finished", "seconds": 1.0, "error": None, "files": [], "ended": 10.0}
    text = "".join(json.dumps({**line, "case": case["case"], "key": begun.keys[case["case"]]}) + "\n" for case in cases)
    begun.journal.write_text(text, encoding="utf-8")
    assert left(run_folder, cases) == []


def test_a_case_with_other_channels_is_run_again(cases, tmp_path):
    exchanged = [{**cases[0], "channels": [1, 0]}, *cases[1:]]
    finish(tmp_path, exchanged)
    assert left(tmp_path, [{**cases[0], "channels": [0, 1]}, *cases[1:]]) == ["a"]
    assert left(tmp_path, exchanged) == []


def test_journals_without_channels_stay_valid(journal, cases, tmp_path):
    begun = CaseJournal(tmp_path / "out", tmp_path / "model.pt")
    begun.unfinished(cases)
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(tmp_path.glob("*.nii.gz"))]
    assert list(begun.keys.values()) == [digest([begun._key_of_run(), [state]]) for state in states]


@pytest.mark.parametrize(
    ("header", "text", "voxels"),
    [("v.mhd", "NDims = 3\nElementDataFile = v.raw\n", "v.raw"), ("v.hdr", "Analyze", "v.img")],
)
def test_other_voxels_beside_the_same_header_are_run_again(header, text, voxels, tmp_path):
    (tmp_path / header).write_text(text, encoding="utf-8")
    (tmp_path / voxels).write_bytes(b"old voxels")
    cases = [{"case": "v", "image": str(tmp_path / header)}]
    finish(tmp_path, cases)
    (tmp_path / voxels).write_bytes(b"new voxels, and more")
    assert left(tmp_path, cases) == ["v"]


def test_cases_that_the_weights_were_trained_on_are_named(cases, tmp_path, caplog):
    (tmp_path / "c.nii.gz").write_bytes(b"another image")
    renamed = [{**cases[2], "case": "another name"}]
    write_split(tmp_path / "split.json", {"training": renamed, "validation": []}, {"held_out": 0.2})
    CaseJournal(tmp_path / "out", tmp_path / "model.pt").unfinished(cases[:2])
    assert "trained on" not in caplog.text
    CaseJournal(tmp_path / "out", tmp_path / "model.pt").unfinished(cases)
    assert "1 of 3 cases were trained on, such as c: their label maps" in caplog.text
    (tmp_path / "split.json").write_text("{}", encoding="utf-8")
    assert CaseJournal(tmp_path / "out", tmp_path / "model.pt").unfinished(cases) == cases
    assert "the images that the network was trained on are unknown: " in caplog.text
