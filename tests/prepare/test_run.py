# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Data sets in the layouts of their sites, prepared, and read as bundles read them."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from monai.bundle import ConfigParser
from monai.data import load_decathlon_datalist
from PIL import Image

from segan_monai.data import ct_cases, find_cases, resolve_regions, write_phantoms
from segan_monai.errors import ConfigError, DataError
from segan_monai.parallel import map_in_processes
from segan_monai.prepare import PrepareOptions, prepare_data_set
from segan_monai.prepare.archives import unpack
from segan_monai.prepare.manifest import read_manifest
from segan_monai.transforms import LoadCased, LoadPhotographd
from segan_monai.volume_files import read_volume
from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, PANCREAS, SKIN
from tests.data.challenges import write_iseg, write_mrbrains
from tests.prepare.series import LPS, write_pancreas, write_series


def nifti(file):
    image = nibabel.load(file)
    return np.asanyarray(image.dataobj), image.affine


def prepare(data_set, source, folder, workers=1, **options):
    return prepare_data_set(data_set, source, folder, PrepareOptions(**options), workers)


@pytest.fixture
def task(tmp_path, write_volume):
    """A decathlon task of three cases and a test image."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "Task04_Hippocampus"
    for name in ("a", "b", "c"):
        write_volume(folder / f"imagesTr/{name}.nii.gz", generator.normal(size=(6, 5, 4)))
        write_volume(folder / f"labelsTr/{name}.nii.gz", generator.integers(0, 3, (6, 5, 4)).astype(np.int32))
    write_volume(folder / "imagesTs/d.nii.gz", generator.integers(0, 200, (6, 5, 4)).astype(np.int32))
    pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "abc"]
    content = {
        "name": "Hippocampus",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": pairs,
        "test": ["./imagesTs/d.nii.gz", "./imagesTs/not_unpacked.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_decathlon_task_is_read_by_this_package_and_by_monai(task, tmp_path):
    outcome = prepare("msd", task, tmp_path / "out")
    assert outcome.succeeded
    assert outcome.made == ["a", "b", "c", "d"]
    cases = find_cases(tmp_path / "out", modalities=["MRI"], require_labels=True)
    assert [case["case"] for case in cases] == ["a", "b", "c"]
    for case in cases:
        for key, folder, kind in (("image", "imagesTr", np.float32), ("label", "labelsTr", np.uint8)):
            values, affine = nifti(case[key])
            source, source_affine = nifti(task / folder / f"{case['case']}.nii.gz")
            assert values.dtype == kind
            assert np.array_equal(values, source.astype(kind))
            assert np.array_equal(affine, source_affine)
    assert nifti(tmp_path / "out/imagesTs/d.nii.gz")[0].dtype == np.uint8
    json_file = tmp_path / "out/dataset.json"
    assert load_decathlon_datalist(json_file, True, "training")[1]["label"] == cases[1]["label"]
    assert len(load_decathlon_datalist(json_file, True, "test")) == 1
    content = json.loads(json_file.read_text(encoding="utf-8"))
    assert (content["licence"], content["numTraining"], content["tensorImageSize"]) == ("CC-BY-SA 4.0", 3, "3D")


def test_manifest_has_the_hashes_of_sources_and_results(task, tmp_path):
    prepare("msd", task, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    record = manifest["cases"]["b"]
    for root, files in ((task, record["sources"]), (tmp_path / "out", record["results"])):
        assert [file["path"] for file in files] == ["imagesTr/b.nii.gz", "labelsTr/b.nii.gz"]
        for file in files:
            content = (root / file["path"]).read_bytes()
            assert file["sha256"] == hashlib.sha256(content).hexdigest()
            assert file["bytes"] == len(content)
    assert manifest["options"]["spacing_mm"] is None
    assert manifest["versions"]["SimpleITK"]


def written(folder):
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder / "imagesTr").iterdir())}


def test_only_what_changed_is_made_again(task, tmp_path, write_volume):
    out = tmp_path / "out"
    prepare("msd", task, out)
    before = written(out)
    os.utime(task / "imagesTr/a.nii.gz")  # touched, the same bytes
    write_volume(task / "imagesTr/b.nii.gz", np.ones((6, 5, 4)))
    (out / "imagesTr/c.nii.gz").write_bytes(b"damaged")
    outcome = prepare("msd", task, out)
    assert (outcome.made, outcome.kept) == (["b", "c"], ["a", "d"])
    assert written(out)["a.nii.gz"] == before["a.nii.gz"]
    assert (nifti(out / "imagesTr/b.nii.gz")[0] == 1).all()
    assert prepare("msd", task, out, spacing_mm=(2.0, 2.0, 2.0)).made == ["a", "b", "c", "d"]
    assert read_manifest(out)["options"]["spacing_mm"] == [2, 2, 2]


@pytest.fixture
def two_channels(tmp_path, write_volume):
    """A decathlon task of two cases with two channels."""
    folder = tmp_path / "Task"
    for name in "ab":
        write_volume(folder / f"imagesTr/{name}.nii.gz", np.random.default_rng(0).normal(size=(6, 5, 4, 2)))
        write_volume(folder / f"labelsTr/{name}.nii.gz", np.ones((6, 5, 4), np.uint8))
    pairs = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in "ab"]
    content = {"modality": {"0": "T1", "1": "T2"}, "training": pairs}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


LABELS = ["labelsTr/a.nii.gz", "labelsTr/b.nii.gz"]
IMAGES = ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"]
CHANNELS = [f"imagesTr/{name}_000{channel}.nii.gz" for name in "ab" for channel in range(2)]


def prepare_one_case(monkeypatch, source, folder, **options):
    """Stop after the first case."""

    def stopped(*arguments, **settings):
        yield next(iter(map_in_processes(*arguments, **settings)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("segan_monai.prepare.run.map_in_processes", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare("msd", source, folder, **options)


def test_files_of_other_options_do_not_stay(two_channels, tmp_path):
    out = tmp_path / "out"
    prepare("msd", two_channels, out)
    (out / "imagesTr/own.nii.gz").write_bytes(b"of the user")
    (out / "imagesTr/b.nii.gz").write_bytes(b"replaced by the user")
    outcome = prepare("msd", two_channels, out, four_d=False)
    assert files_in(out) == [*sorted(["imagesTr/b.nii.gz", "imagesTr/own.nii.gz", *CHANNELS]), *LABELS]
    assert outcome.notes == [
        "1 outdated file removed, such as imagesTr/a.nii.gz",
        "outdated, but changed since they were prepared, so not removed: imagesTr/b.nii.gz",
    ]
    outcome = prepare("msd", two_channels, out)
    assert files_in(out) == [*sorted(["imagesTr/own.nii.gz", *IMAGES]), *LABELS]
    assert outcome.notes == ["4 outdated files removed, such as imagesTr/a_0000.nii.gz"]
    assert "earlier_results" not in read_manifest(out)


def test_a_folder_of_two_preparations_is_refused_until_the_end(two_channels, tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare("msd", two_channels, out)
    prepare_one_case(monkeypatch, two_channels, out, spacing_mm=(2.0, 2.0, 2.0))
    with pytest.raises(DataError, match=r"out: the preparation has not ended: .*Repeat the command segan-monai pre"):
        find_cases(out)
    assert prepare("msd", two_channels, out, spacing_mm=(2.0, 2.0, 2.0)).kept == ["a"]
    assert len(find_cases(out)) == 2
    (out / "dataset.json").unlink()
    for text in ("{}", "[]", "no JSON", '{"made_by": "another program"}'):
        (out / "manifest.json").write_text(text, encoding="utf-8")
        assert len(find_cases(out)) == 2, "as in nnU-Net's format"


def test_outdated_files_are_known_after_two_stops(two_channels, tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare("msd", two_channels, out)
    for four_d, spacing_mm in ((False, None), (True, (2.0, 2.0, 2.0))):
        prepare_one_case(monkeypatch, two_channels, out, four_d=four_d, spacing_mm=spacing_mm)
    assert files_in(out) == [*sorted([*IMAGES, *CHANNELS[:2]]), *LABELS]
    prepare("msd", two_channels, out, modalities=("T2",))
    assert files_in(out) == [*IMAGES, *LABELS]


def test_journal_of_other_options_does_not_count(task, tmp_path):
    out = tmp_path / "out"
    prepare("msd", task, out)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    records, manifest["cases"] = manifest["cases"], {}
    (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    other = {**manifest["options"], "n4": True}
    lines = [[manifest["options"], "a", records["a"]], [other, "b", records["b"]]]
    (out / ".manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert prepare("msd", task, out).kept == ["a"]


def test_the_same_command_gives_the_same_bytes_with_any_workers(task, tmp_path):
    prepare("msd", task, tmp_path / "one")
    outcome = prepare("msd", task, tmp_path / "two", workers=2)
    assert sorted(outcome.made) == ["a", "b", "c", "d"]
    (tmp_path / "one/manifest.json").unlink()  # has times
    for file in sorted((tmp_path / "one").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


def test_a_bad_case_costs_itself_alone_and_is_made_when_it_is_mended(task, tmp_path, write_volume):
    good = (task / "imagesTr/b.nii.gz").read_bytes()
    (task / "imagesTr/b.nii.gz").write_bytes(good[:100])
    write_volume(task / "labelsTr/c.nii.gz", np.full((6, 5, 4), 0.5))
    outcome = prepare("msd", task, tmp_path / "out", workers=2)
    assert not outcome.succeeded
    assert set(outcome.failed) == {"b", "c"}
    assert "b.nii.gz cannot be read" in outcome.failed["b"]
    assert "c.nii.gz is not a label map" in outcome.failed["c"]
    assert [case["case"] for case in find_cases(tmp_path / "out")] == ["a", "d"]
    assert "failed: b: " in outcome.summary()
    (task / "imagesTr/b.nii.gz").write_bytes(good)
    write_volume(task / "labelsTr/c.nii.gz", np.ones((6, 5, 4)))
    outcome = prepare("msd", task, tmp_path / "out")
    assert outcome.succeeded
    assert outcome.made == ["b", "c"]


def test_nothing_usable_is_an_error(task, tmp_path):
    for name in "abc":
        (task / f"imagesTr/{name}.nii.gz").write_bytes(b"")
    (task / "imagesTs/d.nii.gz").unlink()
    with pytest.raises(DataError, match=r"none of 3 cases could be prepared\. a: .*a\.nii\.gz cannot be read"):
        prepare("msd", task, tmp_path / "out")


def test_voxels_that_are_not_finite_and_grids_that_differ(task, tmp_path, write_volume):
    write_volume(task / "imagesTr/a.nii.gz", np.full((6, 5, 4), np.nan))
    write_volume(task / "labelsTr/b.nii.gz", np.zeros((6, 5, 3), np.uint8))
    failed = prepare("msd", task, tmp_path / "out").failed
    assert "120 of 120 voxels are NaN or infinite" in failed["a"]
    assert "has shape (6, 5, 4), but" in failed["b"]


@pytest.mark.slow
def test_killed_and_started_again(task, tmp_path, write_volume):
    for index in range(16):
        write_volume(task / f"imagesTr/e{index}.nii.gz", np.random.default_rng(index).normal(size=(64, 64, 16)))
    content = json.loads((task / "dataset.json").read_text(encoding="utf-8"))
    content["training"] += [{"image": f"imagesTr/e{index}.nii.gz"} for index in range(16)]
    (task / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=prepare_data_set, args=("msd", task, out, None, 2))
    process.start()
    while process.is_alive() and len(list(out.glob("imagesTr/*"))) < 5:
        time.sleep(0.01)
    workers = [
        folder for folder in Path("/proc").iterdir() if folder.name.isdecimal() and _parent(folder) == process.pid
    ]
    assert workers
    process.kill()
    process.join()
    while any(_parent(worker) is not None for worker in workers):
        time.sleep(0.01)  # they end by themselves
    assert not (out / "dataset.json").exists()
    journal = (out / ".manifest.jsonl").read_text(encoding="utf-8")
    done = {json.loads(line)[1] for line in journal.splitlines()}
    assert 0 < len(done) < 20
    (out / ".manifest.jsonl").write_text(journal + '[{"four_d": true', encoding="utf-8")  # a line that was cut off
    outcome = prepare("msd", task, out)
    assert sorted(outcome.kept) == sorted(done)
    assert len(outcome.made) + len(outcome.kept) == 20
    assert not list(out.rglob(".*"))


def _parent(entry):
    """Of a process that runs; None of one that has ended."""
    try:
        state, parent = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


@pytest.mark.parametrize("kind", ["tar file", "folder with tar file", "zip file"])
def test_archives(task, tmp_path, kind):
    source = tmp_path / "downloads"
    source.mkdir()
    if kind == "zip file":
        archive = Path(shutil.make_archive(str(source / "task"), "zip", task.parent, task.name))
    else:
        archive = source / "Task04_Hippocampus.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(task, task.name)
    outcome = prepare("msd", source if kind == "folder with tar file" else archive, tmp_path / "out")
    assert outcome.made == ["a", "b", "c", "d"]
    assert sorted(path.name for path in source.iterdir()) == [archive.name]
    sources = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))["cases"]["a"]["sources"]
    assert sources[0]["path"] == "Task04_Hippocampus/imagesTr/a.nii.gz"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "imagesTr",
        "imagesTs",
        "labelsTr",
        "manifest.json",
    ]
    assert prepare("msd", source, tmp_path / "out").kept == ["a", "b", "c", "d"]


def test_archive_that_would_write_elsewhere_or_is_cut_off(task, tmp_path):
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip/x.zip", "w") as file:
        file.writestr("../evil.txt", "x")
    with pytest.raises(DataError, match=r"x\.zip was not unpacked .*it holds '\.\./evil\.txt'"):
        prepare("isic", tmp_path / "zip", tmp_path / "out")
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar/x.tar", "w") as tar:
        tar.add(task / "dataset.json", "../evil.json")
    with pytest.raises(DataError, match=r"x\.tar was not unpacked \(OutsideDestinationError"):
        prepare("msd", tmp_path / "tar", tmp_path / "out")
    archive = tmp_path / "tar/x.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(task, task.name)
    archive.write_bytes(archive.read_bytes()[:6000])
    with pytest.raises(DataError, match=r"x\.tar was not unpacked \(ReadError"):
        prepare("msd", tmp_path / "tar", tmp_path / "out")
    assert not list(tmp_path.rglob("evil*"))


def zip_with_bits(file, flags=0, compression=zipfile.ZIP_STORED):
    """Write a zip file of one member, and set these fields in its two headers."""
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("DICOM/IM1", "content")
    content = bytearray(file.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(signature) + offset
        content[place : place + 4] = flags.to_bytes(2, "little") + compression.to_bytes(2, "little")
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("bits", "cause"),
    [
        ({"flags": 1}, r"\(DICOM/IM1 is encrypted\)\. Expected a zip file without a password\."),
        ({"compression": 9}, r"\(That compression method is not supported\)\. Expected the usual compression"),
    ],
)
@pytest.mark.parametrize(("name", "stem"), [("a.zip", "a"), ("study", "study_unpacked")])
def test_a_zip_file_that_python_cannot_unpack(tmp_path, bits, cause, name, stem):
    zip_with_bits(tmp_path / name, **bits)
    with pytest.raises(DataError, match=rf'{name} was not unpacked {cause}.* with 7-Zip: 7z x ".*" -o".*/{stem}"\.'):
        unpack(tmp_path / name, tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if name == "a.zip":
        with pytest.raises(DataError, match=r"a\.zip was not unpacked"):
            prepare("msd", tmp_path / name, tmp_path / "out")


def test_backslashes_in_a_zip_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("DICOM\\", "")
        file.writestr("DICOM\\series\\IM1", "content")
    unpack(tmp_path / "a.zip", tmp_path / "a")
    assert (tmp_path / "a/DICOM/series/IM1").read_text(encoding="utf-8") == "content"
    for number, name in enumerate(("..\\..\\x", "a\\..\\..\\x", "\\x", "\\\\server\\x")):
        archive = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(name, "content")
        with pytest.raises(DataError, match=re.escape(f"{archive} was not unpacked (BadZipFile: it holds {name!r})")):
            unpack(archive, tmp_path / "b" / "b")
    assert not list(tmp_path.rglob("x"))


def test_a_damaged_table_of_a_zip_file(tmp_path):
    zip_with_bits(tmp_path / "a.zip")
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(b"PK\x01\x02", b"none"))
    with pytest.raises(DataError, match=r"a\.zip was not unpacked \(BadZipFile: Bad magic number"):
        prepare("msd", tmp_path / "a.zip", tmp_path / "out")


def test_loose_files_beside_an_archive_are_used(task, tmp_path):
    with zipfile.ZipFile(task / "notes.zip", "w") as file:
        file.writestr("readme.txt", "")
    outcome = prepare("msd", task, tmp_path / "out")
    assert outcome.made == ["a", "b", "c", "d"]
    assert find_cases(tmp_path / "out", require_labels=True)
    write_pancreas(tmp_path / "ct")
    (labels,) = (tmp_path / "ct").glob("TCIA*")
    (labels / "label0001.nii.gz").rename(tmp_path / "ct/label0001.nii.gz")
    shutil.move(task / "notes.zip", tmp_path / "ct/more.zip")
    assert prepare("pancreas-ct", tmp_path / "ct", tmp_path / "ct_out").succeeded
    assert len(ct_cases(tmp_path / "ct_out", require_labels=True)) == 1


def test_messages_name_the_source_whose_archives_were_unpacked(task, tmp_path, write_volume):
    with zipfile.ZipFile(task / "notes.zip", "w") as file:
        file.writestr("readme.txt", "")
    write_volume(task / "labelsTr/c.nii.gz", np.full((6, 5, 4), 0.5))
    outcome = prepare("msd", task, tmp_path / "out")
    assert f"{task}/labelsTr/c.nii.gz is not a label map" in outcome.failed["c"]
    with pytest.raises(ConfigError, match=rf"^{task}/dataset\.json has no modality T1"):
        prepare("msd", task, tmp_path / "out", modalities=("T1",))
    with pytest.raises(DataError, match=rf"nothing of iSEG 2017 in {task}\."):
        prepare("iseg", task, tmp_path / "iseg")


def test_places_that_are_refused(task, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x.txt").write_text("", encoding="utf-8")
    prepare("msd", task, tmp_path / "prepared")
    for data_set, source, folder, message in (
        ("msd", tmp_path / "none", tmp_path / "out", "there is no such file or folder"),
        ("msd", task, task / "out", "one contains the other"),
        ("msd", task, task, "one contains the other"),
        ("msd", task, tmp_path, "one contains the other"),
        ("msd", task, tmp_path / "full", r"is not empty: it holds x\.txt, and has no manifest\.json"),
        ("msd", task, tmp_path / "full/x.txt", "is a file"),
        ("msd", task / "dataset.json", tmp_path / "out", r"is a file\. Expected a folder, or a \.zip"),
        ("iseg", task, tmp_path / "prepared", "holds msd, not iseg"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(data_set, source, folder)
    with pytest.raises(ConfigError, match="unknown data set 'x'; expected one of brats, msd, isic"):
        prepare("x", task, tmp_path / "out")


@pytest.mark.parametrize(
    ("data_set", "expected"),
    [
        ("brats", r"nothing of BraTS .*HGG\|LGG.*found 1 files \(1 \.txt\), such as sub/x\.txt"),
        ("msd", r"nothing of the decathlon .*Looked for dataset\.json"),
        ("isic", r"nothing of ISIC .*ISIC-2017_Training_Data.*ISIC2018_Task1-2"),
        ("iseg", r"nothing of iSEG 2017 .*subject-1-T1\.hdr"),
        ("mrbrains", r"nothing of MRBrainS 2013 .*TrainingData/1/T1\.nii"),
        ("pancreas-ct", r"nothing of Pancreas-CT .*DICOM series of CT.*label0001\.nii\.gz"),
    ],
)
def test_unknown_layout_says_what_was_looked_for_and_found(tmp_path, data_set, expected):
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/sub/x.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=expected):
        prepare(data_set, tmp_path / "src", tmp_path / "out")


def test_too_little_room(task, tmp_path):
    import segan_monai.prepare.run as module

    with pytest.raises(DataError, match=r"1048576\.0 GiB are needed for the result, .* GiB are free"):
        module._check_room(tmp_path, 2**50, "for the result")
    growing = PrepareOptions(spacing_mm=(0.5, 1.0, 1.5))  # voxels of 6 mm3 become 8 times as many, of 4 bytes not 2
    case = {"image": str(task / "imagesTr/a.nii.gz")}
    assert module._room_for([case], growing) == pytest.approx(16 * (task / "imagesTr/a.nii.gz").stat().st_size, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["brats2015", "brats2018", "brats2021", "brats2023"])
def test_brats_of_every_year_is_one_file_a_case(tmp_path, layout):
    source, out = tmp_path / "src", tmp_path / "out"
    write_phantoms(source, 2, 0, 8.0, layout, workers=1)
    outcome = prepare("brats", source, out)
    assert outcome.succeeded
    assert not outcome.findings
    modalities = ["t2", "t1c"]  # another order, and not all
    before = find_cases(source, modalities=modalities)
    after = find_cases(out, modalities=modalities, require_labels=True)
    assert [case["case"] for case in before] == [case["case"] for case in after]
    load = LoadCased(modalities=modalities)
    for old, new in zip(before, after, strict=True):
        assert new["channels"] == [1, 0]
        assert {key: old.get(key) for key in ("subject", "grade", "convention")} == {
            key: new.get(key) for key in ("subject", "grade", "convention")
        }
        loaded, expected = load(new), load(old)
        assert np.array_equal(loaded["image"], expected["image"])
        assert np.array_equal(loaded["label"], expected["label"])
        assert np.allclose(loaded["image"].affine, expected["image"].affine, atol=1e-5)
    assert resolve_regions("auto", after) == resolve_regions("auto", before)
    names = json.loads((out / "dataset.json").read_text(encoding="utf-8"))["labels"]
    assert names["4" if layout != "brats2023" else "3"] == "enhancing tumour"


def test_brats_2013_names_its_label_maps_otherwise(tmp_path):
    source = tmp_path / "src"
    write_phantoms(source, 1, 0, 8.0, "brats2015", workers=1)
    (label,) = source.rglob("*OT*.mha")
    folder = label.parent.with_name("VSD.Brain_3more.XX.XX.OT")
    label.parent.rename(folder)
    (folder / label.name).rename(folder / "VSD.Brain_3more.XX.XX.OT.6560.mha")
    assert prepare("brats", source, tmp_path / "out").succeeded
    assert "label" in find_cases(tmp_path / "out")[0]


def test_brats_case_without_a_modality_costs_itself_alone(tmp_path):
    source = tmp_path / "src"
    write_phantoms(source, 2, 0, 8.0, workers=1)
    next(source.glob("*1/*_t2.nii.gz")).unlink()
    outcome = prepare("brats", source, tmp_path / "out")
    assert outcome.made == ["Phantom2021_00002"]
    assert "has no file for t2" in outcome.failed["Phantom2021_00001"]


def test_a_file_each_and_fewer_modalities(tmp_path):
    source, out = tmp_path / "src", tmp_path / "out"
    write_phantoms(source, 1, 0, 8.0, workers=1)
    prepare("brats", source, out, modalities=("flair", "t1"), four_d=False)
    (case,) = find_cases(out, modalities=["t1", "flair"])
    assert [Path(file).name for file in case["image"]] == [
        "Phantom2021_00001_0001.nii.gz",
        "Phantom2021_00001_0000.nii.gz",
    ]
    assert np.array_equal(
        LoadCased()(case)["image"], LoadCased()(find_cases(source, modalities=["t1", "flair"])[0])["image"]
    )


def test_iseg_becomes_nifti_with_tissues(tmp_path):
    write_iseg(tmp_path / "src")
    assert prepare("iseg", tmp_path / "src", tmp_path / "out").succeeded
    cases = find_cases(tmp_path / "out", require_labels=True)
    assert [(case["case"], case["domain"]) for case in cases] == [
        ("iSEG_subject-1", "iSEG"),
        ("iSEG_subject-2", "iSEG"),
    ]
    raw = np.asanyarray(nibabel.load(tmp_path / "src/subject-1-label.hdr").dataobj)[..., 0]
    label, affine = nifti(cases[0]["label"])
    for value, tissue in ((0, 0), (10, 1), (150, 2), (250, 3)):
        assert np.array_equal(label == tissue, raw == value)
    image = nibabel.load(tmp_path / "src/subject-1-T1.hdr")
    assert np.array_equal(nifti(cases[0]["image"])[0], np.asanyarray(image.dataobj)[..., 0])
    assert np.array_equal(affine, image.affine)
    names = [Path(file["path"]).name for file in _record(tmp_path / "out", "iSEG_subject-1")["sources"]]
    assert names == ["subject-1-T1.hdr", "subject-1-T1.img", "subject-1-label.hdr", "subject-1-label.img"]


def _record(folder, case):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["cases"][case]


@pytest.mark.parametrize("strip", [True, False])
def test_mrbrains_without_skull(tmp_path, strip):
    write_mrbrains(tmp_path / "src/TrainingData", ("1",))
    write_mrbrains(tmp_path / "src/TestData", ("1",), labels=())
    outcome = prepare("mrbrains", tmp_path / "src", tmp_path / "out", strip_skull=strip)
    assert outcome.succeeded
    assert any("MRBrainS_TestData_1" in note for note in outcome.notes) == strip
    (case,) = find_cases(tmp_path / "out", require_labels=True)
    assert case.get("skull_strip", False) != strip, "the bundle strips what is not"
    head = nifti(tmp_path / "src/TrainingData/1/T1.nii")[0]
    eight = nifti(tmp_path / "src/TrainingData/1/LabelsForTraining.nii")[0]
    tissue = np.array([0, 2, 2, 3, 3, 1, 1, 0, 0])[eight]
    assert np.array_equal(nifti(case["label"])[0], tissue)
    assert np.array_equal(nifti(case["image"])[0], np.where(tissue > 0, head, 0) if strip else head)


def test_spacing_is_of_right_forward_up_whatever_the_order_of_the_axes(tmp_path, write_volume):
    source = tmp_path / "src/subject-1-T1.nii"
    affine = np.array([[0, 0, 3.0, 5], [-1.0, 0, 0, 9], [0, 2.0, 0, -7], [0, 0, 0, 1]])  # stored P, S, R
    ramp = np.broadcast_to(np.arange(24.0)[:, None, None], (24, 16, 8))
    label = (ramp >= 12).astype(np.uint8) * 150
    write_volume(source, np.ascontiguousarray(ramp), affine)
    write_volume(tmp_path / "src/subject-1-label.nii", label, affine)
    assert prepare("iseg", tmp_path / "src", tmp_path / "out", spacing_mm=(3.0, 2.0, 1.0)).succeeded
    values, new = nifti(tmp_path / "out/imagesTr/iSEG_subject-1.nii.gz")
    assert values.shape == (12, 32, 8)
    assert np.allclose(nibabel.affines.voxel_sizes(new), [2, 1, 3])
    assert np.allclose(new @ [-0.5, -0.5, -0.5, 1], affine @ [-0.5, -0.5, -0.5, 1]), "the volume's corner has moved"
    assert np.allclose(values[:, 5, 5], np.arange(12) * 2 + 0.5)
    assert np.array_equal(nifti(tmp_path / "out/labelsTr/iSEG_subject-1.nii.gz")[0][:, 0, 0], [0] * 6 + [2] * 6)


def test_n4_takes_most_of_a_bias_field_away(tmp_path, write_volume):
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 32)] * 3, indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.8
    tissue = np.where(inside, 100.0 + 50 * (np.abs(x) < 0.4), 0)
    biased = (tissue * np.exp(0.4 * y)).astype(np.float32)
    write_volume(tmp_path / "src/subject-1-T1.nii", biased, np.eye(4))
    prepare("iseg", tmp_path / "src", tmp_path / "out", n4=True, n4_shrink_factor=2)
    corrected = nifti(tmp_path / "out/imagesTs/iSEG_subject-1.nii.gz")[0]
    white = tissue == 150
    assert corrected[white].std() / corrected[white].mean() < 0.25 * biased[white].std() / biased[white].mean()
    assert not corrected[~inside].any()


def test_pancreas_ct_lies_on_the_series(tmp_path):
    image, organ = write_pancreas(tmp_path / "src")
    outcome = prepare("pancreas-ct", tmp_path / "src", tmp_path / "out")
    assert outcome.succeeded
    assert outcome.notes == [
        "label maps without a series, skipped: label0025.nii.gz",
        "label map flipped along y: 1 case",
    ]
    (case,) = ct_cases(tmp_path / "out", require_labels=True)
    assert case["case"] == "PANCREAS_0001"
    for key, expected in (("image", image), ("label", organ)):
        values, affine = nifti(case[key])
        assert np.array_equal(values, expected)
        assert np.allclose(affine, LPS, atol=1e-5)
    assert len(_record(tmp_path / "out", "PANCREAS_0001")["sources"]) == 9


def test_pancreas_ct_never_drops_a_slice_silently(tmp_path):
    image, _ = write_pancreas(tmp_path / "src")
    folders = [tmp_path / "src" / f"PANCREAS_00{number}" for number in ("02", "03", "04")]
    of_case = [
        write_series(folder, image, LPS, patient=folder.name, uid=f"1.2.826.0.1.3680043.2.1125.{folder.name[-1]}")
        for folder in folders
    ]
    of_case[0][-1].write_bytes(of_case[0][-1].read_bytes()[:200])
    of_case[1][3].unlink()
    of_case[2][-1].unlink()
    outcome = prepare("pancreas-ct", tmp_path / "src", tmp_path / "out")
    assert outcome.made == ["PANCREAS_0001", "PANCREAS_0004"]
    assert list(outcome.failed) == ["PANCREAS_0002", "PANCREAS_0003"]
    assert f"{of_case[0][-1].name} cannot be read as an image slice: it is truncated" in outcome.failed["PANCREAS_0002"]
    assert "1 slice is missing" in outcome.failed["PANCREAS_0003"]
    incomplete = "PANCREAS_0004: the series may be incomplete: found 7 slices, without InstanceNumber 1 of 8"
    assert incomplete in outcome.notes
    assert f"note: {incomplete}" in outcome.summary()


@pytest.mark.parametrize("value", [1e300, -1e300, 3.5e38])
def test_numbers_that_float32_does_not_hold_are_named(value, tmp_path):
    values = np.full((4, 5, 6), 0.5)
    values[1, 2, 3] = value
    (tmp_path / "src/imagesTr").mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "src/imagesTr/a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 6), 0.5), np.eye(4)), tmp_path / "src/imagesTr/b.nii.gz")
    listed = {"training": [{"image": f"imagesTr/{name}.nii.gz"} for name in "ab"]}
    (tmp_path / "src/dataset.json").write_text(json.dumps(listed), encoding="utf-8-sig")
    outcome = prepare("msd", tmp_path / "src", tmp_path / "out")
    assert outcome.made == ["b"]
    assert r"1 of 120 voxels are NaN or infinite in float32, whose largest value is 3.4" in outcome.failed["a"]


def test_pancreas_ct_takes_the_series_that_fits_or_names_the_patient(tmp_path):
    image, _ = write_pancreas(tmp_path / "src")
    scout = tmp_path / "src/Pancreas-CT/PANCREAS_0001/scout"
    write_series(scout, image[:, :, :3], LPS, uid="1.2.826.0.1.3680043.2.1125.9")
    write_series(
        tmp_path / "src/x/y", image[:, :, ::3], LPS, patient="PANCREAS_0002", uid="1.2.826.0.1.3680043.2.1125.7"
    )
    shutil.copy(
        tmp_path / "src/TCIA_pancreas_labels-02-05-2017/label0001.nii.gz",
        tmp_path / "src/TCIA_pancreas_labels-02-05-2017/label0002.nii.gz",
    )
    outcome = prepare("pancreas-ct", tmp_path / "src", tmp_path / "out")
    assert outcome.made == ["PANCREAS_0001"]
    assert "label0002.nii.gz has shape (12, 10, 8), but series" in outcome.failed["PANCREAS_0002"]
    write_series(scout.with_name("again"), image, LPS, uid="1.2.826.0.1.3680043.2.1125.8")
    outcome = prepare("pancreas-ct", tmp_path / "src", tmp_path / "out")
    assert "3 series of one patient" in outcome.failed["PANCREAS_0001"]


def photographs(images, masks, *names, size=(40, 30)):
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in names:
        pixels = generator.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.jpg")
        Image.fromarray(pixels[..., 0]).save(images / f"{name}_superpixels.png")
        mask = np.zeros((size[1], size[0]), np.uint8)
        mask[: size[1] // 2] = 255
        Image.fromarray(mask).save(masks / f"{name}_segmentation.png")


def test_isic_zips_keep_their_sections_and_bytes(tmp_path):
    source = tmp_path / "src"
    photographs(tmp_path / "x/ISIC2018_Task1-2_Training_Input", tmp_path / "x/ISIC2018_Task1_Training_GroundTruth", "a")
    photographs(tmp_path / "x/ISIC2018_Task1-2_Test_Input", tmp_path / "x/ISIC2018_Task1_Test_GroundTruth", "b")
    source.mkdir()
    for folder in sorted((tmp_path / "x").iterdir()):
        shutil.make_archive(str(source / folder.name), "zip", tmp_path / "x", folder.name)
    # one of them unpacked beside its archive, another unpacked and the archive gone
    shutil.copytree(tmp_path / "x/ISIC2018_Task1-2_Test_Input", source / "ISIC2018_Task1-2_Test_Input")
    shutil.copytree(tmp_path / "x/ISIC2018_Task1_Test_GroundTruth", source / "ISIC2018_Task1_Test_GroundTruth")
    (source / "ISIC2018_Task1_Test_GroundTruth.zip").unlink()
    outcome = prepare("isic", source, tmp_path / "out")
    assert outcome.succeeded, outcome.summary()
    cases = find_cases(tmp_path / "out", require_labels=True)
    assert [(case["case"], case["section"]) for case in cases] == [("a", "training"), ("b", "test")]
    original = tmp_path / "x/ISIC2018_Task1-2_Test_Input/b.jpg"
    assert Path(cases[1]["image"]).read_bytes() == original.read_bytes()
    assert LoadPhotographd(size=(8, 8), regions={"lesion": [255]})(cases[0])["image"].shape == (3, 8, 8)


def test_isic_reduced_and_bad_masks(tmp_path):
    photographs(tmp_path / "src/images", tmp_path / "src/masks", "a", "b", "c")
    Image.new("L", (40, 30), 7).save(tmp_path / "src/masks/b_segmentation.png")
    Image.new("L", (30, 40)).save(tmp_path / "src/masks/c_segmentation.png")
    outcome = prepare("isic", tmp_path / "src", tmp_path / "out", longest_side_px=20)
    assert "has the values 7. Expected a mask of 0 and 255" in outcome.failed["b"]
    assert "c_segmentation.png" in outcome.failed["c"]
    with Image.open(tmp_path / "out/imagesTr/a.jpg") as image, Image.open(tmp_path / "out/labelsTr/a.png") as mask:
        assert image.size == mask.size == (20, 15)
        assert np.asarray(mask).max() == 255


@pytest.mark.slow
@pytest.mark.real_data
def test_real_brains_as_brats_2015_in_mha(data_dir, tmp_path):
    source = tmp_path / "src"
    names = {"t1c": "MR_T1c", "t2": "MR_T2", "flair": "MR_Flair"}
    patient = data_dir / "open_ms/patient26"
    for kind, name in [*names.items(), ("seg", "OT")]:
        image = SimpleITK.ReadImage(str(patient / f"patient26_{kind}.nii.gz"))
        folder = source / f"HGG/brats_2013_pat0026_1/VSD.Brain.XX.O.{name}.54"
        folder.mkdir(parents=True)
        SimpleITK.WriteImage(image, str(folder / f"VSD.Brain.XX.O.{name}.54.mha"))
    assert prepare("brats", source, tmp_path / "out").succeeded
    (case,) = find_cases(tmp_path / "out", modalities=["t1c", "t2", "flair"], require_labels=True)
    assert case["grade"] == "HGG"
    values, affine = nifti(case["image"])
    for channel, kind in enumerate(names):
        expected, expected_affine = nifti(patient / f"patient26_{kind}.nii.gz")
        assert np.array_equal(values[..., channel], expected)
    assert np.array_equal(affine, expected_affine)
    assert np.array_equal(nifti(case["label"])[0], nifti(patient / "patient26_seg.nii.gz")[0])
    loaded = LoadCased(modalities=["t1c", "t2", "flair"])(case)
    assert loaded["image"].shape == (3, 182, 218, 182)


@pytest.mark.real_data
def test_real_ct_as_dicom_series(data_dir, tmp_path):
    image, affine = nifti(data_dir / "abdominal_ct/s0009_ct.nii.gz")
    organ = nifti(data_dir / "abdominal_ct/s0009_pancreas.nii.gz")[0]
    # a scanner stores columns to the left and rows to the back
    turn = np.diag([-1.0, -1, 1, 1])
    turn[:2, 3] = np.array(image.shape[:2]) - 1
    below = slice(20, 120)
    stored, lps = image[::-1, ::-1, below], affine @ turn
    lps[2, 3] += 20 * 1.5
    write_series(tmp_path / "src/PANCREAS_0001/a/b", stored, lps, intercept=-1024)
    label = nibabel.Nifti1Image(organ[::-1, :, below], np.diag([-1.5, 1.5, 1.5, 1]))
    nibabel.save(label, tmp_path / "src/label0001.nii.gz")
    outcome = prepare("pancreas-ct", tmp_path / "src", tmp_path / "out")
    assert outcome.succeeded
    assert outcome.notes == ["label map flipped along y: 1 case"]
    (case,) = ct_cases(tmp_path / "out", require_labels=True)
    values, written_affine = nifti(case["image"])
    assert values.dtype == np.int16
    assert np.array_equal(values[::-1, ::-1], image[:, :, below])
    assert np.allclose(written_affine, lps, atol=1e-4)
    assert np.array_equal(nifti(case["label"])[0][::-1, ::-1], organ[:, :, below])


@pytest.mark.real_data
def test_real_brain_as_analyze(data_dir, tmp_path):
    template = data_dir / "brain_tissue/template"
    (tmp_path / "src").mkdir()
    values = nifti(template / "t1.nii.gz")[0]
    tissue = nifti(template / "label.nii.gz")[0]
    for kind, array in (("T1", values.astype(np.int16)), ("label", np.array([0, 10, 150, 250], np.uint8)[tissue])):
        image = nibabel.AnalyzeImage(array[..., None], None)
        image.header.set_zooms((2, 2, 2, 1))
        nibabel.save(image, tmp_path / f"src/subject-1-{kind}.img")
    assert prepare("iseg", tmp_path / "src", tmp_path / "out").succeeded
    (case,) = find_cases(tmp_path / "out", require_labels=True)
    loaded = LoadCased(num_channels=1)(case)
    assert np.array_equal(loaded["image"][0], values.astype(np.int16))
    assert np.array_equal(loaded["label"][0], tissue)
    before = read_volume(tmp_path / "src/subject-1-T1.hdr")
    assert np.array_equal(loaded["image"].affine, before.affine)


@pytest.mark.real_data
def test_real_hippocampi_keep_their_domains(data_dir, tmp_path):
    task = (data_dir / "msd_hippocampus").resolve()
    content = json.loads((task / "dataset.json").read_text(encoding="utf-8"))
    content["training"] = content["training"][:6]
    (tmp_path / "src").mkdir()
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / "src" / name).symlink_to(task / name)
    (tmp_path / "src/dataset.json").write_text(json.dumps(content), encoding="utf-8")
    outcome = prepare("msd", tmp_path / "src", tmp_path / "out")
    assert not outcome.failed
    before, after = find_cases(tmp_path / "src"), find_cases(tmp_path / "out")
    assert [case["domain"] for case in after] == [case["domain"] for case in before]
    for old, new in zip(before, after, strict=True):
        loaded, expected = LoadCased()(new), LoadCased()(old)
        assert np.array_equal(loaded["image"], expected["image"])
        assert np.array_equal(loaded["label"], expected["label"])
        assert np.array_equal(loaded["image"].affine, expected["image"].affine)


@pytest.mark.real_data
def test_real_photographs(data_dir, tmp_path):
    outcome = prepare("isic", data_dir / "isic2017", tmp_path / "out")
    assert outcome.succeeded
    assert len(find_cases(tmp_path / "out", require_labels=True)) == 6
    first = outcome.made[0]
    source = data_dir / f"isic2017/images/{first}.jpg"
    assert (tmp_path / f"out/imagesTr/{first}.jpg").read_bytes() == source.read_bytes()


SETTINGS = {"device": "cpu", "folds": 2, "num_workers": 0, "slice_size": [32, 32], "patch_size": [8, 8, 8]} | {
    "plane_size": [32, 32]
}


@pytest.mark.parametrize("data_set", ["brats", "msd", "isic", "iseg", "pancreas-ct"])
def test_the_bundle_of_each_data_set_reads_the_result(data_set, tmp_path, request):
    source, out = tmp_path / "src", tmp_path / "out"
    if data_set == "brats":
        source, bundle, channels = request.getfixturevalue("phantoms"), BRATS, 3
    elif data_set == "msd":
        source, bundle, channels = request.getfixturevalue("task"), HIPPOCAMPUS, 1
    elif data_set == "isic":
        photographs(source / "images", source / "masks", "a", "b")
        bundle, channels = SKIN, 3
    elif data_set == "iseg":
        write_iseg(source)
        bundle, channels = "brain_mri_adversarial_normalization_segmentation", 1
    else:
        image, _ = write_pancreas(source)
        write_series(source / "other", image, LPS, patient="PANCREAS_0025", uid="1.2.826.0.1.3680043.2.1125.5")
        bundle, channels = PANCREAS, 1
    assert prepare(data_set, source, out).succeeded
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs/train.json")
    parser.update({key: value for key, value in SETTINGS.items() if key in parser})
    parser.update({"dataset_dir": str(out), "output_dir": str(tmp_path / "run")})
    case = parser.get_parsed_content("validate#dataset")[0]
    assert case["image"].shape[0] == channels
    assert case["label"].max() > 0
