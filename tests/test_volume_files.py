# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Volumes from files, among them files that nobody should trust: an error with the file's name, or what is in it."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from segan_monai.check.headers import read_header
from segan_monai.errors import DataError
from segan_monai.metrics import read_label_map
from segan_monai.transforms import LoadCased
from segan_monai.volume_files import affine_of_simpleitk, read_volume
from tests.bundles.volumes import Storage, make_grid, storages, write

GRID = make_grid((5, 6, 7), "PIR", (0.7, 1.1, 3.0), (0.1, 0.2, 0.3), (-90, 12, 40))
VALUES = 2 * np.random.default_rng(0).integers(0, 20, GRID.shape)
FUZZ = settings(max_examples=120, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
AT_MOST_BYTES = 2**24  # the files hold a few hundred; a header can ask for 10^18
HEADER = {  # field of a NIfTI-1 header to offset and type
    **{f"dim{index}": (40 + 2 * index, "h") for index in range(8)},
    "sizeof_hdr": (0, "i"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    **{f"pixdim{index}": (76 + 4 * index, "f") for index in range(8)},
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    **{f"quaternion_or_offset{index}": (256 + 4 * index, "f") for index in range(6)},
    **{f"srow{index}": (280 + 4 * index, "f") for index in range(12)},
    "magic": (344, "i"),
}


def read(file):
    """What the package makes of the file, with a bound on memory; None if it says what is wrong with it."""
    tracemalloc.start()
    try:
        volume = read_volume(file)
        image = LoadCased("image")({"image": str(file)})["image"]
        np.testing.assert_array_equal(image.numpy()[0], volume.values.astype(np.float32).reshape(image.shape[1:]))
        assert np.isfinite(volume.affine).all()
        return volume
    except DataError as error:
        assert str(file) in str(error)
        return None
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < AT_MOST_BYTES


def independently(file):
    image = nibabel.load(file)
    return image.get_fdata(), image.affine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@FUZZ
@given(storages())
def test_whatever_the_way_of_writing(folder, storage):
    if storage.forms in ("standard_space", "neither"):
        storage = replace(storage, forms="both")
    volume = read_volume(write(folder / "whole", VALUES, GRID, storage))
    np.testing.assert_array_equal(volume.values, VALUES)
    np.testing.assert_allclose(volume.affine, GRID.affine, atol=1e-4)


@FUZZ
@given(storages(), st.floats(0, 1, exclude_max=True))
def test_truncated(folder, storage, part):
    file = write(folder / "truncated", VALUES, GRID, storage)
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    assert read(file) is None


@FUZZ
@given(st.booleans(), st.lists(st.integers(0, 2**31), min_size=1, max_size=3))
def test_flipped_bits_of_a_gzip(folder, nifti2, bits):
    """The checksum tells; the time and name in gzip's own header may change without harm."""
    file = write(folder / "flipped", VALUES, GRID, Storage(nifti2=nifti2))
    content = bytearray(file.read_bytes())
    for bit in bits:
        content[bit // 8 % len(content)] ^= 1 << bit % 8
    file.write_bytes(content)
    if (volume := read(file)) is not None:
        np.testing.assert_array_equal(volume.values, VALUES)
        np.testing.assert_allclose(volume.affine, GRID.affine, atol=1e-4)


@FUZZ
@given(
    st.sampled_from([".nii", ".nii.gz"]), st.booleans(), st.lists(st.integers(0, 8 * 352 - 1), min_size=1, max_size=4)
)
def test_flipped_bits_of_a_header(folder, suffix, big_endian, bits):
    """Nothing tells what the header was; what is read is what it says now, as nibabel reads it too."""
    content = bytearray(write(folder / "plain", VALUES, GRID, Storage(".nii", big_endian=big_endian)).read_bytes())
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
    check_against_nibabel(folder / f"header{suffix}", bytes(content))


NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 5, 6, 7, 32767, 1e30, 1e-30, float("nan"), float("inf"), -float("inf")]),
    st.integers(-40000, 40000),
    st.floats(width=32),
)


@FUZZ
@given(
    st.sampled_from([".nii", ".nii.gz"]),
    st.dictionaries(st.sampled_from(list(HEADER)), NUMBERS, min_size=1, max_size=3),
)
def test_nonsense_in_a_header(folder, suffix, fields):
    """Wrong and huge dimensions, affines that are NaN, voxel sizes of 0, unknown types, offsets beyond the file."""
    content = bytearray(write(folder / "plain", VALUES, GRID, Storage(".nii")).read_bytes())
    for name, value in fields.items():
        offset, kind = HEADER[name]
        if kind != "f":
            whole = int(value) if np.isfinite(value) else 0
            value = (whole + 2**15) % 2**16 - 2**15 if kind == "h" else (whole + 2**31) % 2**32 - 2**31
        struct.pack_into(f"<{kind}", content, offset, value)
    check_against_nibabel(folder / f"nonsense{suffix}", bytes(content))


def check_against_nibabel(file, content):
    file.write_bytes(gzip.compress(content, 1) if file.suffix == ".gz" else content)
    volume = read(file)
    if volume is not None:
        values, affine = independently(file)
        np.testing.assert_allclose(volume.values.reshape(values.shape), values, rtol=1e-6)
        header = nibabel.load(file).header
        both = header["sform_code"] > 0 and header["qform_code"] > 0
        assert np.allclose(volume.affine, affine) or (both and np.allclose(volume.affine, header.get_qform()))


@FUZZ
@given(st.sampled_from([".nii", ".nii.gz", ".mha", ".nrrd", ".hdr"]), st.binary(max_size=600))
def test_noise(folder, suffix, content):
    file = folder / f"noise{suffix}"
    file.write_bytes(content)
    assert read(file) is None


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd", ".hdr"])
def test_empty_file(tmp_path, suffix):
    file = tmp_path / f"empty{suffix}"
    file.touch()
    with pytest.raises(DataError, match=rf"empty\{suffix} cannot be read .*truncated or damaged; copy or download"):
        read_volume(file)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((32767, 32767, 32767), "declares the shape .*32767.*; the file has "),
        ((5, 6, 3), r"declares the shape \(5, 6, 3\) .*bytes follow, so the shape is wrong"),
        ((5, 6, 8), r"declares the shape \(5, 6, 8\) .*; the file has "),
        ((5, -6, 7), r"declares the shape \(5, -6, 7\)"),
        ((5, 0, 7), r"declares the shape \(5, 0, 7\)"),
    ],
)
def test_shapes_that_the_file_does_not_have(tmp_path, suffix, shape, found):
    content = bytearray(write(tmp_path / "plain", VALUES, GRID, Storage(".nii")).read_bytes())
    struct.pack_into("<3h", content, 42, *shape)
    file = tmp_path / f"a{suffix}"
    file.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    with pytest.raises(DataError, match=rf"a\{suffix} cannot be read .*{found}"):
        read_volume(file)


def test_a_bomb_is_left_alone(tmp_path):
    """A gigabyte of zeros in a megabyte, behind a header that declares a small volume."""
    content = write(tmp_path / "plain", VALUES, GRID, Storage(".nii")).read_bytes()
    file = tmp_path / "bomb.nii.gz"
    with gzip.open(file, "wb", compresslevel=1) as stream:
        stream.write(content)
        for _ in range(64):
            stream.write(bytes(2**20))
    assert read(file) is None
    with pytest.raises(DataError, match=r"bomb\.nii\.gz cannot be read .*bytes follow, so the shape is wrong"):
        read_volume(file)


def test_a_shape_that_is_too_small_of_a_tiny_volume(tmp_path):
    content = bytearray(write(tmp_path / "plain", VALUES[:2, :2, :4], GRID, Storage(".nii", "uint8")).read_bytes())
    struct.pack_into("<h", content, 46, 1)
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        with pytest.raises(DataError, match=rf"{name} cannot be read .*shape \(2, 2, 1\) .*at least 12 bytes follow"):
            read_volume(tmp_path / name)


def test_a_few_bytes_after_the_last_voxel_are_no_harm(tmp_path):
    file = write(tmp_path / "a", VALUES, GRID, Storage(".nii"))
    file.write_bytes(file.read_bytes() + bytes(16))
    np.testing.assert_array_equal(read_volume(file).values, VALUES)


@pytest.mark.parametrize("name", ["huge.mha", "huge.nrrd"])
def test_a_huge_shape_in_other_formats(tmp_path, name):
    (tmp_path / "huge.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 30000 30000 30000\nElementType = MET_SHORT\n"
        b"ElementDataFile = LOCAL\n" + bytes(100)
    )
    (tmp_path / "huge.nrrd").write_bytes(
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 30000 30000 30000\nencoding: raw\nendian: little\n\n" + bytes(100)
    )
    with pytest.raises(DataError, match=rf"{name} cannot be read .*declares the shape \(30000, 30000, 30000\)"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 1e-7, 1e5])
def test_affines_that_place_nothing(tmp_path, bad):
    content = bytearray(write(tmp_path / "plain", VALUES, GRID, Storage(".nii", forms="sform")).read_bytes())
    for row in range(3):
        struct.pack_into("<f", content, 280 + 16 * row, bad)
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.nii: the affine .*expected three finite axes .*Correct the header"):
        read_volume(tmp_path / "a.nii")


def test_axes_in_one_plane(tmp_path):
    flat = GRID.affine.copy()
    flat[:, 2] = flat[:, 0] + flat[:, 1]
    nibabel.save(nibabel.Nifti1Image(VALUES.astype(np.int16), flat), tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a\.nii: the affine"):
        read_volume(tmp_path / "a.nii")


def test_colours_and_complex_numbers(tmp_path):
    rgb = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 4), 1 + 2j, np.complex64), np.eye(4)), tmp_path / "complex.nii")
    for name in ("rgb.nii.gz", "complex.nii"):
        with pytest.raises(
            DataError, match=f"{name} contains .*Expected one real number per voxel .*convert colours or complex"
        ):
            read_volume(tmp_path / name)


def test_arrays_of_python_objects_are_never_unpickled(tmp_path):
    class Malicious:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'executed')!r}, 'w')",)

    np.save(tmp_path / "a.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([Malicious()], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            LoadCased("image")({"image": str(tmp_path / name)})
    assert not (tmp_path / "executed").exists()


def test_the_qform_where_the_sform_leads_to_an_atlas(tmp_path):
    file = write(tmp_path / "a", VALUES, GRID, Storage(forms="standard_space", codes=(4, 1)))
    assert not np.allclose(nibabel.load(file).affine, GRID.affine)
    np.testing.assert_allclose(read_volume(file).affine, GRID.affine, atol=1e-4)
    file = write(tmp_path / "aligned", VALUES, GRID, Storage(forms="standard_space", codes=(2, 1)))
    np.testing.assert_allclose(read_volume(file).affine, nibabel.load(file).affine)


@pytest.mark.parametrize("size", [0.0, np.nan])
def test_a_voxel_size_that_is_none_leaves_the_sform(tmp_path, size):
    content = bytearray(write(tmp_path / "a", VALUES, GRID, Storage(".nii")).read_bytes())
    struct.pack_into("<f", content, 80, size)
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").affine, GRID.affine, atol=1e-4)


def test_a_forgotten_voxel_size_changes_nothing(tmp_path):
    file = write(tmp_path / "a", VALUES, GRID, Storage(forms="stale_size"))
    assert nibabel.load(file).header.get_zooms() == (1, 1, 1)
    np.testing.assert_allclose(read_volume(file).affine, GRID.affine, atol=1e-4)


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint64"])
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_types_of_other_formats(tmp_path, dtype, suffix):
    file = write(tmp_path / "a", VALUES, GRID, Storage(suffix, dtype))
    np.testing.assert_array_equal(read_volume(file).values, VALUES)
    np.testing.assert_array_equal(LoadCased("image")({"image": str(file)})["image"].numpy()[0], VALUES)
    np.testing.assert_array_equal(read_label_map(file).values, VALUES)


def test_nifti_2_and_scaled_label_maps_are_evaluated(tmp_path):
    labels = VALUES % 5
    image = nibabel.Nifti2Image(labels.astype(np.float32), GRID.affine)
    image.header.set_data_dtype(np.uint8)  # nibabel scales: 1 is stored as 64, which reads as 1.004
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert 1 not in nibabel.load(tmp_path / "a.nii.gz").get_fdata()
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.nii.gz").values, labels)


def test_detached_voxels(tmp_path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((60, 60, 60), np.uint8)), str(tmp_path / "a.mhd"))
    assert read_volume(tmp_path / "a.mhd").values.shape == (60, 60, 60)


@pytest.mark.parametrize("name", ["a.Nii", "a.NII", "a.Nii.gz", "a.NII.GZ", "a.MHA", "a.Mha", "a.NRRD", "a.Nrrd"])
def test_endings_in_any_case(name, tmp_path):
    written = tmp_path / name.lower()
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(4, 3, 2)), str(written))
    written.rename(tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert volume.values[1, 2, 3] == 23
    assert read_header(tmp_path / name).grid.shape == volume.values.shape == (2, 3, 4)


@pytest.mark.parametrize(("written", "called"), [("a.nii", "b.nii.gz"), ("a.nii.gz", "b.nii"), ("a.nii", "b.Nii.Gz")])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_the_content_says_whether_a_nifti_is_compressed(written, called, kind, tmp_path):
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nibabel.save(kind(values, np.diag([2, 2, 3, 1])), tmp_path / written)
    (tmp_path / written).rename(tmp_path / called)
    volume = read_volume(tmp_path / called)
    assert np.array_equal(volume.values, values)
    header = read_header(tmp_path / called)
    assert (header.grid.shape, header.dtype) == ((3, 4, 5), "int16")
    assert np.array_equal(header.grid.affine, volume.affine)


def test_truncated_content_under_the_wrong_name_is_named(tmp_path):
    file = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 9, 9)), np.eye(4)), tmp_path / "a.nii")
    file.write_bytes((tmp_path / "a.nii").read_bytes()[:-100])
    for read in (read_volume, read_header):
        with pytest.raises(DataError, match=r"a\.nii\.gz cannot be read"):
            read(file)


@pytest.mark.parametrize(("unit", "mm"), [("micron", 0.001), ("meter", 1000), ("mm", 1), ("unknown", 1)])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1)])
def test_units_of_length_become_mm_as_itk_has_them(unit, mm, codes, tmp_path):
    affine = np.array([[0, -0.75, 0, 30], [0.5, 0, 0, -40], [0, 0, 1.25, 50], [0, 0, 0, 1]])
    file = tmp_path / "a.nii.gz"
    stored = np.diag([1 / mm] * 3 + [1]) @ affine
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), None)
    image.set_qform(stored if codes[0] else None, codes[0])
    image.set_sform(stored if codes[1] else None, codes[1])
    image.header.set_zooms(np.linalg.norm(stored[:3, :3], axis=0))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, file)
    expected = affine_of_simpleitk(SimpleITK.ReadImage(str(file)))
    assert np.allclose(expected, affine, atol=1e-4)
    assert np.allclose(read_volume(file).affine, expected, atol=1e-4)
    assert np.allclose(read_header(file).grid.affine, expected, atol=1e-4)


def test_colour_dicom_and_folders_are_named(tmp_path):
    colour = SimpleITK.GetImageFromArray(np.zeros((1, 6, 8, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(colour, str(tmp_path / "capture.dcm"))
    for read in (read_volume, read_header):
        with pytest.raises(DataError, match=r"capture\.dcm is a colour DICOM: .* use the original series"):
            read(tmp_path / "capture.dcm")
        with pytest.raises(DataError, match=r"is a folder\. Expected a file; convert a folder of DICOM"):
            read(tmp_path)
