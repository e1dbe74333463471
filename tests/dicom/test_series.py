# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Series as archives hold them: each is read as one volume, or refused with the file and what to do."""

from __future__ import annotations

import pytest

pytest.importorskip("highdicom", reason="pip install segan-monai[dicom]")

import copy
import re
import zipfile

import numpy as np
import pydicom
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from segan_monai.dicom.study import read_study
from segan_monai.dicom.volumes import read_series
from segan_monai.errors import DataError
from tests.dicom.studies import ROOT, image, write_enhanced, write_series

COMPRESSED = [RLELossless, JPEGLSLossless, JPEG2000Lossless]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "study"


def test_order_of_files_and_instance_numbers_does_not_matter(folder, read):
    values = image()

    def shuffle(header, index):
        header.InstanceNumber = (5 * index + 2) % 6 + 1

    files = write_series(folder, values, change=shuffle, names="IM{0}")
    assert files != sorted(files)
    source = read(folder)
    np.testing.assert_array_equal(source.volume.values, values)
    assert [header.SOPInstanceUID for header in source.headers] == [f"{ROOT}.1.9.{index + 1}" for index in range(6)]


def test_ct_in_hounsfield_units(folder, read):
    write_series(folder, image(), modality="CT")
    np.testing.assert_array_equal(read(folder).volume.values, image() - 1024.0)


def test_slices_of_other_sign(folder, read):
    def change(header, index):
        header.PixelRepresentation = int(index > 0)

    values = image()
    values[:, :, 1:] -= 500
    write_series(folder, values, change=change)
    assert values.min() < 0
    np.testing.assert_array_equal(read(folder).volume.values, values)


def test_slices_of_another_number_of_bits(folder, read):
    values = image().astype(np.int64)
    values[:, :, 1:] += 60000

    def change(header, index):
        header.PixelRepresentation = 0
        header.PixelData = values[:, :, index].T.astype("<u2").tobytes()
        if index == 0:
            header.BitsStored, header.HighBit = 12, 11

    write_series(folder, image(), modality="CT", change=change)
    np.testing.assert_array_equal(read(folder).volume.values, values - 1024)


@pytest.mark.parametrize("name", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize("empty", [False, True], ids=["absent", "empty"])
def test_slices_without_a_place_in_mm(name, empty, folder, read):
    def change(header, index):
        if empty:
            setattr(header, name, None)
        else:
            delattr(header, name)

    write_series(folder, image(), change=change)
    refused(read, folder, rf"\.dcm has no {name}, so the size and place of its pixels in mm are unknown\. Expected")


@pytest.mark.parametrize("syntax", COMPRESSED, ids=[syntax.name for syntax in COMPRESSED])
@pytest.mark.parametrize("enhanced", [False, True], ids=["single", "multi-frame"])
def test_compressed_pixels(syntax, enhanced, folder, read):
    values = image((40, 36, 4))
    if enhanced:
        files = [write_enhanced(folder / "enhanced", values)]
        expected = 2 * values + np.arange(4)
    else:
        files, expected = write_series(folder, values), values
    for file in files:
        header = pydicom.dcmread(file)
        header.compress(syntax, generate_instance_uid=False)
        header.save_as(file)
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read(folder).volume.values, expected)


def test_zip_and_dicomdir(folder, tmp_path):
    files = write_series(folder / "DICOM", image(), names="IM{0}")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in files:
            archive.write(file, f"any/{file.name}")
    study = read_study(tmp_path / "study.zip", tmp_path / "unpacked")
    assert [one.frames for one in study.series] == [6]
    np.testing.assert_array_equal(read_series(study, study.series[0]).volume.values, image())

    from pydicom.fileset import FileSet

    medium = FileSet()
    for file in files:
        medium.add(file)
    medium.write(tmp_path / "medium")
    study = read_study(tmp_path / "medium" / "DICOMDIR", tmp_path / "unused")
    assert len(study.series[0].files) == 6
    assert len(read_study(tmp_path / "medium", tmp_path / "unused").series[0].files) == 6  # DICOMDIR itself is no image
    study.series[0].files[2].unlink()
    with pytest.raises(DataError, match=r"DICOMDIR lists 6 files, but 1 are missing, such as .*Copy the whole medium"):
        read_study(tmp_path / "medium" / "DICOMDIR", tmp_path / "unused")


def test_copies_of_an_instance_count_once(folder, read):
    files = write_series(folder, image())
    (folder / "copy.dcm").write_bytes(files[0].read_bytes())
    assert len(read(folder).headers) == 6


def without_preamble(file, syntax=True):
    """Remove the preamble, and with ``syntax=False`` also the file meta information (group 0002)."""
    content = file.read_bytes()[132:]
    length = int.from_bytes(content[8:12], "little")
    file.write_bytes(content if syntax else content[12 + length :])


@pytest.mark.parametrize("syntax", [True, False], ids=["meta", "no meta"])
@pytest.mark.parametrize("enhanced", [False, True], ids=["single", "multi-frame"])
def test_files_without_preamble_and_ending(enhanced, syntax, folder, read):
    files = [write_enhanced(folder / "IM", image())] if enhanced else write_series(folder, image(), names="IM{0:04d}")
    for file in files:
        without_preamble(file, syntax)
    (folder / "notes").write_text("no DICOM")
    source = read(folder)
    np.testing.assert_array_equal(source.volume.values, 2 * image() + np.arange(6) if enhanced else image())
    if enhanced:
        assert len(read(files[0]).source_order()) == 6


def test_images_that_share_a_uid(folder, read):
    def share(header, index):
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.1.8"

    write_series(folder, image(), change=share)
    refused(
        read, folder, r"1_0000\.dcm and 1_\d+\.dcm have one SOPInstanceUID, 1\.2\..*\.1\.8, but different positions\."
    )


@pytest.mark.parametrize("name", ["RescaleIntercept", "RescaleSlope"])
def test_a_frame_with_an_empty_rescaling(name, folder, read):
    def clear(header):
        setattr(header.PerFrameFunctionalGroupsSequence[3].PixelValueTransformationSequence[0], name, None)

    write_enhanced(folder / "enhanced", image(), change=clear)
    refused(read, folder, r"enhanced: frame 4 has an empty RescaleIntercept or RescaleSlope\. Expected numbers")


def test_nothing_of_dicom(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"no DICOM images; found no DICOM file\. Expected the folder, zip file"):
        read_study(tmp_path / "study", tmp_path / "unused")
    with pytest.raises(DataError, match=r"notes\.txt is not DICOM"):
        read_study(tmp_path / "study" / "notes.txt", tmp_path / "unused")
    with pytest.raises(DataError, match=r"absent: there is no such file"):
        read_study(tmp_path / "absent", tmp_path / "unused")


def refused(read, folder, message):
    with pytest.raises(DataError, match=message) as caught:
        read(folder)
    assert re.search(r"Expected|Export|Download|export|Resample", str(caught.value))


def test_echoes_at_one_position_are_told_apart(folder, read):
    write_series(folder, image(), change=lambda header, index: setattr(header, "EchoTime", 3))

    def second_echo(header, index):
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.1.8.{index}"
        header.EchoTime = 30

    write_series(folder, image(), change=second_echo, names="second{0}.dcm")
    refused(read, folder, r"at one position, \[-31\.5, 12\.25, 40\.0\] mm \(EchoTime .*30.*\); 12 images share")


def test_gap_is_named(folder, read):
    files = write_series(folder, image())
    files[3].unlink()
    refused(read, folder, rf"{files[2].name} and {files[4].name} are 5 mm apart where others are 2.5: 1 slice is miss")


def test_gantry_tilt_is_refused(folder, read):
    def tilt(header, index):
        header.ImagePositionPatient = [-31.5, 12.25 + 0.5 * index, 40 + 2.5 * index]

    write_series(folder, image(), modality="CT", change=tilt)
    refused(read, folder, r"moves 2\.50 mm sideways, as with a tilted gantry\. Resample it")


def test_gap_in_a_multi_frame_image(folder, read):
    write_enhanced(folder / "enhanced", image(), order=[0, 1, 3, 4, 5])
    refused(read, folder, r"enhanced#1 and enhanced#2 are 5 mm apart where others are 2\.5: 1 slice is missing")


def test_multi_frame_image_at_one_position_and_without_positions(folder, read):
    file = write_enhanced(folder / "enhanced", image(), order=[0, 0, 1, 1, 2, 2])
    refused(read, folder, r"frames 1 and 2 are at one position, \[-31\.5, 12\.25, 40\.0\] mm; 6 images share")

    def without_places(header):
        for frame in header.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence

    write_enhanced(file, image(), change=without_places)
    refused(read, folder, r"enhanced does not say where its frames are .*PlanePosition.*Expected an enhanced CT")


def test_other_faults_of_files(folder, read, tmp_path):
    files = write_series(folder, image(), frame="")
    refused(read, folder, r"\.dcm has no FrameOfReferenceUID, so a result cannot be placed on series 1 'T1 MPRAGE'")
    write_series(folder, image())
    files[2].write_bytes(files[2].read_bytes()[:300])
    refused(read, folder, rf"{files[2].name} cannot be read, and may be an image of series 1")


def test_slices_of_other_orientation(folder, read):
    def turn(header, index):
        if index == 4:
            header.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    files = write_series(folder, image(), change=turn)
    refused(read, folder, rf"{files[4].name} has 12 x 10 pixels along .*Expected slices of one volume")


def test_pixels_of_another_size(folder, read):
    def widen(header, index):
        if index == 4:
            header.PixelSpacing = [0.9, 1.2]

    files = write_series(folder, image(), change=widen)
    refused(
        read, folder, rf"{files[4].name} has pixels of 1\.2 x 0\.9 mm \(PixelSpacing\), but .* of the same series has"
    )


def test_frames_with_pixels_of_another_size(folder, read):
    def widen(header):
        shared = header.SharedFunctionalGroupsSequence[0]
        for index, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
            frame.PixelMeasuresSequence = copy.deepcopy(shared.PixelMeasuresSequence)
            if index == 2:
                frame.PixelMeasuresSequence[0].PixelSpacing = [0.9, 1.2]
        del shared.PixelMeasuresSequence

    write_enhanced(folder / "enhanced", image(), change=widen)
    refused(
        read, folder, r"enhanced#2 has pixels of 1\.2 x 0\.9 mm \(PixelSpacing\), but .*enhanced#0 of the same series"
    )


def test_several_multi_frame_files(folder, read):
    write_enhanced(folder / "one", image())
    write_enhanced(folder / "two", image(), change=lambda header: setattr(header, "SOPInstanceUID", f"{ROOT}.7.2"))
    refused(read, folder, r"consists of 2 multi-frame files, such as .*one\. Expected one")
