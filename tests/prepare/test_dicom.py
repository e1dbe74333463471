# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from segan_monai.errors import DataError
from segan_monai.prepare.dicom import find_series, numbering_note, read_pixels, read_slices
from tests.prepare.series import LPS, write_series


def read_series(files):
    """Read a series as `prepare` does."""
    return read_pixels(read_slices(files))


@pytest.fixture
def stored():
    return np.random.default_rng(0).integers(0, 3000, (8, 6, 5)).astype(np.int16)


def test_slices_are_sorted_by_place_and_scaled_to_hounsfield_units(stored, tmp_path):
    units = stored - 1024
    files = write_series(tmp_path, units, LPS, intercept=-1024)
    assert sorted(files) != files
    pixels = np.frombuffer(files[0].read_bytes()[-2 * 8 * 6 :], np.int16)
    assert np.array_equal(pixels, stored[:, :, 0].T.ravel()), "the files hold other values than Hounsfield units"
    volume = read_series([str(file) for file in sorted(files)])
    assert np.array_equal(volume.values, units)
    assert np.allclose(volume.affine, LPS, atol=1e-5)


def test_fractional_slope_of_one_slice_is_not_cut_off(stored, tmp_path):
    files = write_series(tmp_path, stored - 1024, LPS, intercept=-1024)
    slope = bytes.fromhex("28005310 02000000")  # the tag, and the length of its text
    content = files[3].read_bytes()
    assert content.count(slope + b"1 ") == 1
    files[3].write_bytes(content.replace(slope + b"1 ", slope + b".5"))
    volume = read_series([str(file) for file in files])
    expected = stored - np.float32(1024)
    expected[:, :, 3] = stored[:, :, 3] / 2 - 1024
    assert np.array_equal(volume.values, expected)


def test_oblique_series_keeps_its_place(stored, tmp_path, oblique):
    volume = read_series([str(file) for file in write_series(tmp_path, stored, oblique)])
    assert np.allclose(volume.affine, oblique, atol=1e-4)
    assert np.array_equal(volume.values, stored)


def test_two_series_in_one_folder_are_told_apart_and_others_passed_over(stored, tmp_path):
    first = write_series(tmp_path / "x" / "y", stored, LPS, names="a{number}")
    second = write_series(
        tmp_path / "x" / "y", stored[:, :, :3], LPS, uid="1.2.826.0.1.3680043.2.1125.2", names="b{number}"
    )
    write_series(tmp_path / "mr", stored, LPS, uid="1.2.826.0.1.3680043.2.1125.3", modality="MR")
    (tmp_path / "x" / "y" / "notes.txt").write_text("no DICOM", encoding="utf-8")
    found = find_series(tmp_path)
    assert [(series.patient, sorted(series.files)) for series in found] == [
        ("PANCREAS_0001", sorted(map(str, first))),
        ("PANCREAS_0001", sorted(map(str, second))),
    ]


def test_missing_slice_is_named(stored, tmp_path):
    files = write_series(tmp_path, stored, LPS)
    rest = [str(file) for file in files if file != files[2]]
    message = rf"{files[1].name} and {files[3].name} are 5 mm apart where others are 2\.5: 1 slice is missing"
    with pytest.raises(DataError, match=message):
        read_series(rest)


def test_uneven_distance_two_at_one_place_and_tilt(stored, tmp_path):
    files = [str(file) for file in write_series(tmp_path / "a", stored, LPS)]
    moved = LPS.copy()
    moved[2, 3] += 0.5
    uneven = [str(file) for file in write_series(tmp_path / "b", stored, moved, names="x{number}")]
    with pytest.raises(DataError, match=r"3 mm apart where others are 2\.5: the distances are uneven"):
        read_series([*files[:3], *uneven[3:]])
    with pytest.raises(DataError, match="two slices are at one position"):
        read_series([*files, uneven[0], files[0]])
    sheared = LPS.copy()
    sheared[1, 2] = 0.6
    with pytest.raises(DataError, match=r"moves 2\.40 mm sideways, as with a tilted gantry"):
        read_series([str(file) for file in write_series(tmp_path / "c", stored, sheared)])


def test_slices_of_other_sizes_or_orientations(stored, tmp_path):
    files = [str(file) for file in write_series(tmp_path / "a", stored, LPS)]
    small = [str(file) for file in write_series(tmp_path / "b", stored[:4], LPS, names="x{number}")]
    with pytest.raises(DataError, match=r"4 x 6 pixels .* 8 x 6 .*move localizers"):
        read_series([*files, small[0]])
    with pytest.raises(DataError, match="the only slice"):
        read_series(files[:1])


def test_pixels_of_another_size(stored, tmp_path):
    files = [str(file) for file in write_series(tmp_path / "a", stored, LPS)]
    other, rounded = LPS.copy(), LPS.copy()
    other[0, 0], rounded[0, 0] = -0.75, -0.7003
    changed, close = (
        str(write_series(tmp_path / name, stored, affine)[3]) for name, affine in (("b", other), ("c", rounded))
    )
    with pytest.raises(DataError, match=r"\d\.dcm has pixels of 0\.75 x 0\.7 mm .*, but .* has 0\.7 x 0\.7 mm"):
        read_series([*files[:3], changed, files[4]])
    assert read_series([*files[:3], close, files[4]]).values.shape == stored.shape


def test_damaged_slice_is_named(stored, tmp_path):
    files = write_series(tmp_path, stored, LPS)
    files[2].write_bytes(files[2].read_bytes()[:200])
    with pytest.raises(DataError, match=rf"{files[2].name} cannot be read as an image slice"):
        read_series([str(file) for file in files])


def test_pixels_that_end_early_are_an_error(stored, tmp_path):
    files = write_series(tmp_path, stored, LPS)
    files[2].write_bytes(files[2].read_bytes()[:-40])
    with pytest.raises(DataError, match="cannot be read"):
        read_series([str(file) for file in files])


def test_without_a_place(stored, tmp_path):
    plane = SimpleITK.GetImageFromArray(stored[:, :, 0].T)
    plane.SetMetaData("0008|0060", "OT")
    SimpleITK.WriteImage(plane, str(tmp_path / "a.dcm"))
    with pytest.raises(DataError, match=r"a\.dcm are 0 mm apart .*two slices are at one position"):
        read_series([str(tmp_path / "a.dcm")] * 2)


@pytest.mark.parametrize("kept_bytes", [0, 100, 132, 300, 700])
@pytest.mark.parametrize("index", [0, 2, 4])
def test_a_file_cut_off_in_its_header_belongs_to_the_series_of_its_folder(stored, index, kept_bytes, tmp_path):
    files = write_series(tmp_path, stored, LPS)
    files[index].write_bytes(files[index].read_bytes()[:kept_bytes])
    (series,) = find_series(tmp_path)
    assert sorted(series.files) == sorted(str(file) for file in files if file != files[index])
    assert series.damaged == (str(files[index]),)
    with pytest.raises(DataError, match=rf"{files[index].name} cannot be read as an image slice: it is truncated"):
        read_series([*series.files, *series.damaged])


def test_garbage_after_the_mark_is_a_damaged_slice_whatever_its_name(stored, tmp_path):
    write_series(tmp_path, stored, LPS)
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 200)
    assert find_series(tmp_path)[0].damaged == (str(tmp_path / "IM0001"),)


def test_a_folder_with_damaged_files_only_is_not_dropped(tmp_path):
    file = tmp_path / "PANCREAS_0007" / "a.dcm"
    file.parent.mkdir()
    file.write_bytes(b"\0" * 128 + b"DICM")
    (series,) = find_series(tmp_path)
    assert (series.files, series.damaged, series.folder) == ((), (str(file),), file.parent)


def test_what_is_no_slice_is_ignored(stored, tmp_path):
    write_series(tmp_path, stored, LPS)
    (tmp_path / "README.txt").write_text("no DICOM", encoding="utf-8")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "._000.dcm").write_bytes(b"of macOS")
    (tmp_path / "folder.dcm").mkdir()
    directory = b"\x02\0\x02\0UI\x14\x001.2.840.10008.1.3.10\0"
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + directory)
    (series,) = find_series(tmp_path)
    assert (len(series.files), series.damaged) == (5, ())


def test_a_damaged_file_beside_another_modality_is_none_of_ours(stored, tmp_path):
    files = write_series(tmp_path, stored, LPS, modality="MR")
    files[0].write_bytes(files[0].read_bytes()[:200])
    assert find_series(tmp_path) == []


def test_colour_is_named(stored, tmp_path):
    files = [str(file) for file in write_series(tmp_path, stored, LPS)]
    capture = SimpleITK.GetImageFromArray(np.zeros((1, 6, 8, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(capture, str(tmp_path / "capture.dcm"))
    with pytest.raises(DataError, match=r"capture\.dcm is a colour DICOM: a screen capture"):
        read_series([*files, str(tmp_path / "capture.dcm")])


def test_numbers_tell_of_a_slice_that_is_missing_at_an_end(stored, tmp_path):
    files = [str(file) for file in write_series(tmp_path, stored, LPS)]  # numbered 5 to 1 from below
    assert numbering_note(read_slices(files)) is None
    note = numbering_note(read_slices(files[:-1]))
    assert note == "the series may be incomplete: found 4 slices, without InstanceNumber 1 of 5"
    last = [one._replace(announced=5) for one in read_slices(files[1:])]
    assert numbering_note(last) == (
        "the series may be incomplete: found 4 slices, without 1 of the 5 slices that its files announce"
    )
    unnumbered = [one._replace(number=None) for one in read_slices(files[1:])]
    assert numbering_note(unnumbered) is None
