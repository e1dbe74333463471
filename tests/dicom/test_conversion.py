# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Result files of a study: those of an earlier call do not stay beside new ones."""

from __future__ import annotations

import pytest

pytest.importorskip("highdicom", reason="pip install segan-monai[dicom]")

import json

from segan_monai.dicom.conversion import BundleOfStudy, DicomOptions, convert_study, write_results
from segan_monai.dicom.study import read_study
from segan_monai.errors import DataError, OutputError
from segan_monai.prepare.volumes import write_nifti
from tests.dicom.conftest import ALGORITHM, REGIONS, label_map
from tests.dicom.studies import image, write_series

BUNDLE = BundleOfStudy(("T1",), "MR", REGIONS, {}, ALGORITHM)
SHAPE = (8, 9, 5)


@pytest.fixture
def convert(tmp_path):
    write_series(tmp_path / "study", image(SHAPE))
    return lambda: convert_study(read_study(tmp_path / "study", tmp_path / "unpacked"), BUNDLE, (), tmp_path / "out")


def infer(converted, output, status="finished"):
    write_nifti(output / f"{converted.case}_seg.nii.gz", label_map(SHAPE), converted.volumes[0].volume.affine)
    (output / "inference.json").write_text(json.dumps({"cases": {converted.case: {"status": status}}}))


def dicom_files(output):
    return sorted(file.name.split("_", 2)[-1] for file in output.glob("*.dcm"))


def test_earlier_results_of_other_kinds_are_removed(convert, tmp_path):
    output = tmp_path / "out"
    converted = convert()
    infer(converted, output)
    other = output / "case_other_rtstruct.dcm"
    write_results(converted, BUNDLE, output, DicomOptions(rtstruct=True))
    other.write_bytes(b"")
    assert dicom_files(output) == ["rtstruct.dcm", "rtstruct.dcm", "seg.dcm"]
    write_results(converted, BUNDLE, output, DicomOptions(anonymous=True))
    assert dicom_files(output) == ["rtstruct.dcm", "seg.dcm"]
    assert other.exists()


def test_earlier_results_do_not_outlive_a_new_conversion_or_a_failed_inference(convert, tmp_path):
    output = tmp_path / "out"
    converted = convert()
    infer(converted, output)
    write_results(converted, BUNDLE, output, DicomOptions())
    infer(converted, output, "failed")
    with pytest.raises(DataError, match=r"has no result \(failed\), so no DICOM is written"):
        write_results(converted, BUNDLE, output, DicomOptions())
    assert dicom_files(output) == []
    infer(converted, output)
    write_results(converted, BUNDLE, output, DicomOptions())
    convert()
    assert dicom_files(output) == []


def test_an_earlier_result_that_cannot_be_removed(convert, tmp_path):
    converted = convert()
    folder = tmp_path / "out" / f"{converted.case}_rtstruct.dcm"
    folder.mkdir()
    with pytest.raises(OutputError, match=r"_rtstruct\.dcm, a result of an earlier call, cannot be removed \(.*Remove"):
        convert()
