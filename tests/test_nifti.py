# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Results lie on their image in nibabel and in ITK, whatever the image's header says."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from segan_monai.grids import Grid, check_same_grid
from segan_monai.nifti import place_like, raw_header
from segan_monai.transforms import InputGridWriter
from segan_monai.volume_files import read_volume

SHAPE = (6, 5, 4)
AXCODES = [
    "".join(signs)
    for order in permutations(("LR", "PA", "IS"))
    for signs in product(*order)
]  # fmt: skip
TURN = nibabel.quaternions.quat2mat([0.9, 0.2, -0.3, 0.24])
SHEAR = np.array([[1, 0, 0], [0, 1, 0.4], [0, 0, 1]])
CODES = [(1, 1), (1, 0), (0, 1), (0, 0), (2, 1), (1, 2), (0, 2), (2, 0), (1, 4)]


def affine_of(axcodes, kind):
    axes = np.zeros((3, 3))
    for column, code in enumerate(axcodes):
        row = next(index for index, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        axes[row, column] = 1 if code in "RAS" else -1
    matrix = {"straight": np.eye(3), "oblique": TURN, "sheared": SHEAR}[kind] @ axes @ np.diag([0.8, 1.1, 2.5])
    return nibabel.affines.from_matvec(matrix, [-20.5, 31.25, 7])


def write_bytes(file, image):
    """Write an image as its header is, without nibabel's corrections."""
    image.header["vox_offset"] = 352
    file.write_bytes(image.header.binaryblock + bytes(4) + np.asarray(image.dataobj).tobytes(order="F"))
    return file


def write_image(file, affine, codes, *, other_qform=None, pixdim_signs=(1, 1, 1)):
    """Write an image whose header has these codes and signs."""
    image = nibabel.Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), None)
    qform, sform = codes
    image.header.set_sform(affine, sform)
    image.header.set_qform(affine if other_qform is None else other_qform, qform, strip_shears=True)
    image.header["pixdim"][1:4] *= pixdim_signs
    return write_bytes(file, image)


def by_package(source, file):
    writer = InputGridWriter(output_dtype=np.uint8)
    writer.set_data_array(np.ones((1, *SHAPE), np.uint8), channel_dim=0)
    affine = read_volume(source).affine
    meta = {"source_files": str(source), "affine": affine, "original_affine": affine, "spatial_shape": SHAPE}
    writer.set_metadata(meta, resample=True)
    writer.write(file)


def seen_by_nibabel(file):
    try:
        return nibabel.load(file).affine
    except ValueError as error:  # an image that nibabel refuses; the label map is refused alike
        return str(error)


def seen_by_itk(file):
    try:
        image = sitk.ReadImage(str(file))
    except RuntimeError:  # a sheared image
        return "refused"
    return np.hstack([np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing(), np.array([image.GetOrigin()]).T])


def check_places(image, label):
    for see in (seen_by_nibabel, seen_by_itk):
        expected, found = see(image), see(label)
        assert type(expected) is type(found)
        if isinstance(expected, str):
            assert expected == found
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["straight", "oblique", "sheared"])
@pytest.mark.parametrize("axcodes", AXCODES)
def test_label_maps_lie_on_images_of_every_orientation_and_code(tmp_path, axcodes, kind):
    affine = affine_of(axcodes, kind)
    for number, codes in enumerate(CODES):
        image = write_image(tmp_path / f"{number}.nii", affine, codes)
        by_package(image, tmp_path / f"{number}_seg.nii.gz")
        check_places(image, tmp_path / f"{number}_seg.nii.gz")


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
@pytest.mark.parametrize("other", [False, True])
def test_label_maps_lie_on_images_with_odd_headers(tmp_path, codes, signs, other):
    other_qform = affine_of("LPS", "oblique") if other else None
    image = write_image(
        tmp_path / "a.nii", affine_of("LAS", "straight"), codes, other_qform=other_qform, pixdim_signs=signs
    )
    by_package(image, tmp_path / "a_seg.nii.gz")
    check_places(image, tmp_path / "a_seg.nii.gz")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Image])
def test_sources_in_two_files_and_of_the_second_version(tmp_path, kind):
    image = kind(np.zeros(SHAPE, np.int16), None)
    image.header.set_qform(affine_of("PIL", "oblique"), 1)
    source = tmp_path / ("a.img" if kind is nibabel.Nifti1Pair else "a.nii.gz")
    nibabel.save(image, source)
    by_package(source, tmp_path / "a_seg.nii.gz")
    header = nibabel.load(tmp_path / "a_seg.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 0)
    np.testing.assert_allclose(seen_by_nibabel(tmp_path / "a_seg.nii.gz"), seen_by_nibabel(source), atol=1e-5)
    if kind is nibabel.Nifti1Pair:  # SimpleITK does not read NIfTI-2
        check_places(source, tmp_path / "a_seg.nii.gz")


def test_a_source_of_another_shape_or_format_is_not_copied(tmp_path):
    affine = affine_of("RAS", "oblique")
    source = write_image(tmp_path / "a.nii", affine_of("LPI", "straight"), (1, 0))
    placed = place_like(source, nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), affine))
    assert (int(placed.header["qform_code"]), int(placed.header["sform_code"])) == (1, 1)
    np.testing.assert_allclose(placed.get_qform(), affine, atol=1e-5)
    nibabel.save(nibabel.AnalyzeImage(np.zeros(SHAPE, np.int16), None), tmp_path / "b.hdr")
    assert raw_header(tmp_path / "b.hdr") is None
    (tmp_path / "short.nii").write_bytes(b"\0" * 100)
    assert raw_header(tmp_path / "short.nii") is None


def quaternion_image(file: Path, quaternion) -> Path:
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    image.header["qform_code"] = 1
    image.header["pixdim"][:4] = 1, 0.5, 0.5, 3
    for name, value in zip("bcd", quaternion, strict=True):
        image.header[f"quatern_{name}"] = value
    return write_bytes(file, image)


@pytest.mark.parametrize(
    "quaternion",
    [
        (0.7071070075035095, 0.7071070075035095, 0),  # longer than 1 by rounding, which nibabel refuses
        (1.0000002, 0, 0),
        (0.9999997615814209, -9.17319703148678e-05, 0.00045468343887478113),  # near a half turn, which nibabel rounds
        (0, 0, 0),
        (0.1, -0.2, 0.3),
    ],
)
def test_quaternions_are_read_as_itk_reads_them(tmp_path, quaternion):
    image = quaternion_image(tmp_path / "a.nii", quaternion)
    affine = read_volume(image).affine
    np.testing.assert_allclose(np.diag([-1, -1, 1]) @ affine[:3], seen_by_itk(image), atol=1e-6)
    by_package(image, tmp_path / "a_seg.nii.gz")
    if not isinstance(seen_by_nibabel(image), str):
        check_places(image, tmp_path / "a_seg.nii.gz")
        return
    for see in (seen_by_nibabel, seen_by_itk):  # nibabel refuses the image, but not its label map
        frame = np.eye(3) if see is seen_by_nibabel else np.diag([-1, -1, 1])
        np.testing.assert_allclose(frame @ see(tmp_path / "a_seg.nii.gz")[:3], affine[:3], atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_label_maps_of_quaternions_that_are_too_long_are_read_by_nibabel_and_itk_alike(tmp_path, seed):
    random = np.random.default_rng(seed)
    quaternion = random.normal(size=3)
    quaternion *= (1 + 10 ** random.uniform(-6.5, -0.5)) / np.linalg.norm(quaternion)
    image = quaternion_image(tmp_path / "a.nii", quaternion)
    assert "w2 should be positive" in seen_by_nibabel(image)
    by_package(image, tmp_path / "a_seg.nii.gz")
    expected = seen_by_itk(image)
    np.testing.assert_allclose(seen_by_itk(tmp_path / "a_seg.nii.gz"), expected, atol=1e-6)
    np.testing.assert_allclose(
        np.diag([-1, -1, 1]) @ seen_by_nibabel(tmp_path / "a_seg.nii.gz")[:3], expected, atol=1e-6
    )


def test_an_image_and_its_label_map_as_itk_saved_it_are_on_one_grid(tmp_path):
    image = quaternion_image(tmp_path / "a.nii", (0.9999997615814209, -9.17319703148678e-05, 0.00045468343887478113))
    sitk.WriteImage(sitk.ReadImage(str(image)) > 0, str(tmp_path / "label.nii.gz"))
    grids = [Grid(name, (400, 400, 200), read_volume(tmp_path / name).affine) for name in ("a.nii", "label.nii.gz")]
    check_same_grid(*grids)  # also with the extent of a real image
