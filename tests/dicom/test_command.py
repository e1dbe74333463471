# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai dicom`` from a study to its results, and where the patient's identity is."""

from __future__ import annotations

import pytest

pytest.importorskip("highdicom", reason="pip install segan-monai[dicom]")

import gzip
import json

import nibabel
import numpy as np
import pydicom
from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.errors import ConfigError, DataError
from tests.dicom.conftest import run_dicom
from tests.dicom.reading import points_of_frames, points_of_labels, sources_of_frames
from tests.dicom.studies import PATIENT, SECRETS


@pytest.mark.slow
def test_from_study_to_results(place):
    folder, study = place
    done = run_dicom(*place, "-o", "out", "--series", f"t1 {PATIENT['PatientID']}", "--rtstruct", "--picture")
    assert done.returncode == 0, done.stderr
    assert "T1: series 1 'T1 ...' (MR, 12 images, UID" in done.stdout
    (seg,) = (folder / "out").glob("case_*_seg.dcm")
    case = seg.name.removesuffix("_seg.dcm")
    for kind in ("seg", "rtstruct", "overlay"):
        assert f"{kind}: out/{case}_{kind}.dcm" in done.stdout
    labels = nibabel.load(folder / "out" / f"{case}_seg.nii.gz")
    values = np.asarray(labels.dataobj)
    assert set(np.unique(values)) == {0, 1, 2}
    for number, points in points_of_frames(seg).items():
        expected = points_of_labels(values, labels.affine, [number])
        np.testing.assert_allclose(points.mean(0), expected.mean(0), atol=1e-3)
    uids = {str(pydicom.dcmread(file).SOPInstanceUID) for file in study.glob("1_*")}
    assert {uid for uid, _ in sources_of_frames(seg)} <= uids
    command = json.loads((folder / "out" / "run.json").read_text())["command"]
    assert f"predict hippocampus -i out/images/{case} -o out --ckpt_dir=weights --base_channels=4" in command
    written = [file for file in (folder / "out").rglob("*") if file.is_file()]
    named = [file.name for file in written if names_the_patient(file)]
    assert sorted(named) == sorted(f"{case}_{kind}.dcm" for kind in ("seg", "rtstruct", "overlay"))
    assert not any(word in done.stdout + done.stderr for word in SECRETS)


@pytest.mark.slow
def test_anonymous_fractional_results(place):
    folder, _ = place
    done = run_dicom(*place, "-o", "hidden", "--series", "1", "--seg-type", "fractional", "--anonymous", "--rtstruct")
    assert done.returncode == 0, done.stderr
    written = [file for file in (folder / "hidden").rglob("*") if file.is_file()]
    assert not [file for file in written if names_the_patient(file)]
    (seg,) = (folder / "hidden").glob("*_seg.dcm")
    header = pydicom.dcmread(seg)
    assert header.PatientID == "ANONYMOUS"
    probabilities = nibabel.load(next((folder / "hidden").glob("*_probabilities.nii.gz"))).get_fdata()
    assert header.pixel_array.max() / 255 == pytest.approx(probabilities.max(), abs=0.01)


def names_the_patient(file):
    content = file.read_bytes()
    content = gzip.decompress(content) if file.suffix == ".gz" else content
    return any(word.encode() in content or word in file.name for word in SECRETS)


def invoke(*words):
    result = CliRunner().invoke(app, ["dicom", *map(str, words)])
    return result.stdout, result.exception


def test_list_names_the_series(place):
    printed, error = invoke("hippocampus", place[1], "--list")
    assert error is None
    assert [line.split(" (")[0] for line in printed.splitlines()] == ["series 1 'T1 ...'", "series 2 'T2'"]


def test_refusals(place, tmp_path):
    study = place[1]
    _, error = invoke("hippocampus", study, "-o", tmp_path / "out")
    assert isinstance(error, DataError)
    assert "without --series, T1 fits 2 series" in str(error)
    _, error = invoke("hippocampus", study, "-o", tmp_path / "kx-77310-q", "--series", "1")
    assert isinstance(error, ConfigError)
    assert "the output folder contains the patient's name or ID" in str(error)
    _, error = invoke("skin", study, "-o", tmp_path / "out")
    assert isinstance(error, ConfigError)
    assert "the bundle takes images of modality RGB. Expected CT or MR" in str(error)
    _, error = invoke("hippocampus", study, "--seg-type", "surface")
    assert isinstance(error, ConfigError)
    assert "--seg-type is surface. Expected binary, fractional, labelmap." in str(error)
    assert not (tmp_path / "out").exists()
