# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Results lie where the label map's affine says, in every orientation and order of images."""

from __future__ import annotations

import pytest

pytest.importorskip("highdicom", reason="pip install segan-monai[dicom]")

import subprocess

import highdicom as hd
import numpy as np
import pydicom

from segan_monai.dicom.rtstruct import contours_of, structure_set
from segan_monai.dicom.segments import segments_of
from tests.dicom.conftest import ALGORITHM, REGIONS, label_map
from tests.dicom.reading import points_of_frames, points_of_labels, sources_of_frames
from tests.dicom.studies import AXIAL, ORIENTATIONS, ROOT, affine_of, image, write_enhanced, write_series

OBLIQUE = affine_of([0.8, 0.6, 0], [-0.36, 0.48, -0.8])
COLUMN_TO_FRONT = affine_of([1, 0, 0], [0, -1, 0])
SAGITTAL = affine_of([0, 1, 0], [0, 0, -1])


def sorted_points(points):
    return points[np.lexsort(np.round(points, 2).T)]


def assert_in_place(file, labels, affine):
    found = points_of_frames(file)
    assert sorted(found) == [1, 2]
    for number in (1, 2):
        expected = points_of_labels(labels, affine, [number])
        np.testing.assert_allclose(found[number].mean(0), expected.mean(0), atol=1e-3)
        np.testing.assert_allclose(sorted_points(found[number]), sorted_points(expected), atol=1e-3)


@pytest.mark.parametrize("affine", ORIENTATIONS, ids=range(len(ORIENTATIONS)))
def test_in_48_orientations(affine, tmp_path, read, write_seg):
    values = image((8, 9, 5))
    write_series(tmp_path / "study", values, affine)
    source = read(tmp_path / "study")
    # Voxels of the volume lie where the headers put them, whatever the order of slices
    back = np.linalg.inv(source.volume.affine) @ np.diag([-1, -1, 1, 1]) @ affine
    index = np.rint(back @ [2, 3, 4, 1]).astype(int)[:3]
    assert source.volume.values[tuple(index)] == values[2, 3, 4]
    labels = label_map(values.shape)
    file = write_seg(source, labels)
    assert_in_place(file, labels, source.volume.affine)
    positions = {str(header.SOPInstanceUID): header.ImagePositionPatient for header in source.headers}
    header = pydicom.dcmread(file, stop_before_pixels=True)
    for frame, (uid, _) in zip(header.PerFrameFunctionalGroupsSequence, sources_of_frames(file), strict=True):
        assert frame.PlanePositionSequence[0].ImagePositionPatient == pytest.approx(positions[uid])


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE, COLUMN_TO_FRONT, SAGITTAL], ids=range(4))
def test_highdicom_and_dcmqi_agree(affine, tmp_path, read, write_seg):
    write_series(tmp_path / "study", image((8, 9, 5)), affine)
    source = read(tmp_path / "study")
    labels = label_map((8, 9, 5))
    file = write_seg(source, labels)
    volume = hd.seg.segread(file).get_volume(combine_segments=True)
    for number in (1, 2):
        expected = points_of_labels(labels, source.volume.affine, [number])
        found = volume.map_indices_to_reference(np.argwhere(volume.array == number))
        np.testing.assert_allclose(sorted_points(found), sorted_points(expected), atol=1e-3)
    dcmqi = pytest.importorskip("dcmqi", reason="dcmqi is not installed: pip install dcmqi")
    assert dcmqi
    import SimpleITK

    (tmp_path / "itk").mkdir()
    command = ["segimage2itkimage", "--inputDICOM", file, "--outputDirectory", tmp_path / "itk", "-t", "nii"]
    subprocess.run(command, check=True, capture_output=True)
    for number in (1, 2):
        read_back = SimpleITK.ReadImage(str(tmp_path / "itk" / f"{number}.nii.gz"))
        voxels = np.argwhere(SimpleITK.GetArrayFromImage(read_back).T)
        found = np.array([read_back.TransformIndexToPhysicalPoint(voxel.tolist()) for voxel in voxels])
        expected = points_of_labels(labels, source.volume.affine, [number])
        np.testing.assert_allclose(sorted_points(found), sorted_points(expected), atol=1e-3)


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_multi_frame_with_frames_in_any_order(modality, tmp_path, read, write_seg):
    values, order = image((8, 9, 5)), [3, 0, 4, 1, 2]
    write_enhanced(tmp_path / "study" / "enhanced", values, OBLIQUE, modality, order)
    source = read(tmp_path / "study")
    np.testing.assert_array_equal(source.volume.values, 2.0 * values + np.arange(5))  # slope 2, the index as intercept
    np.testing.assert_allclose(source.volume.affine, np.diag([-1, -1, 1, 1]) @ OBLIQUE, atol=1e-4)
    labels = label_map(values.shape)
    file = write_seg(source, labels)
    assert_in_place(file, labels, source.volume.affine)
    # segment 1 is on slices 1 and 2, segment 2 on 2 and 3; they are frames 4, 5 and 1 of the file
    assert {number for _, number in sources_of_frames(file)} == {4, 5, 1}
    assert {uid for uid, _ in sources_of_frames(file)} == {f"{ROOT}.7.1"}


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE, COLUMN_TO_FRONT, SAGITTAL], ids=range(4))
def test_structure_set(affine, tmp_path, read):
    import datetime

    write_series(tmp_path / "study", image((8, 9, 5)), affine)
    source = read(tmp_path / "study")
    labels = label_map((8, 9, 5))
    result = structure_set(source, labels, segments_of({}, REGIONS, False), ALGORITHM, datetime.datetime(2026, 1, 2))
    result.save_as(tmp_path / "rt.dcm", enforce_file_format=True)
    result = pydicom.dcmread(tmp_path / "rt.dcm")
    to_ras = np.diag([-1, -1, 1, 1])
    for number, contours in enumerate(result.ROIContourSequence, 1):
        covered = np.zeros_like(labels)
        for contour in contours.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            indices = np.linalg.inv(to_ras @ source.volume.affine) @ np.c_[points, np.ones(len(points))].T
            (plane,) = np.unique(np.rint(indices[2]))
            np.testing.assert_allclose(indices[2], plane, atol=1e-3)
            image_uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            assert image_uid == source.headers[int(plane)].SOPInstanceUID
            covered[:, :, int(plane)] |= inside(indices[:2].T, labels.shape[:2])
        np.testing.assert_array_equal(covered, labels == number)


def inside(outline, shape):
    """Voxels whose centre is in a polygon."""
    from matplotlib.path import Path

    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 2)
    return Path([*outline, outline[0]], closed=True).contains_points(grid).reshape(shape)


def test_outlines_keep_holes_and_areas():
    mask = np.zeros((12, 14), bool)
    mask[1:11, 1:12] = True
    mask[3:5, 3:5] = mask[7:9, 6:9] = False
    mask[0, 13] = True
    outlines = contours_of(mask)
    assert len(outlines) == 2
    covered = sum(inside(outline[:, ::-1], mask.shape) for outline in outlines)
    np.testing.assert_array_equal(covered, mask)
    areas = sorted(
        abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2 for x, y in (outline.T for outline in outlines)
    )
    # corners are cut half way: 1/8 each outside; a hole grows by as much
    assert areas == pytest.approx([0.5, 110 - 4 * 0.125 - (4 - 0.5) - (6 - 0.5)])
