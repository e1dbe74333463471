# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic DICOM studies: CT and MR series as single images and as enhanced (multi-frame) images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

PATIENT = {"PatientName": "Lighthouse^Ottoline", "PatientID": "KX-77310-Q", "PatientBirthDate": "19501231"}
SECRETS = ("Lighthouse", "Ottoline", "KX-77310-Q", "77310", "19501231")
ROOT = "1.2.826.0.1.3680043.8.498.1"
STUDY, FRAME = f"{ROOT}.1", f"{ROOT}.2"
CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
SPACING = (1.5, 0.75, 2.5)
ORIGIN = (-31.5, 12.25, 40.0)


def affine_of(columns: Sequence[float], rows: Sequence[float], sign: int = 1) -> np.ndarray:
    """Affine in LPS of image axes along ``columns`` and ``rows``; ``sign`` is the side to which slices are numbered."""
    affine = np.eye(4)
    normal = sign * np.cross(columns, rows)
    affine[:3, :3] = np.stack([columns, rows, normal], axis=1) * SPACING
    affine[:3, 3] = ORIGIN
    return affine


AXIAL = affine_of([1, 0, 0], [0, 1, 0])
AXES = [np.array(axis) for axis in itertools.chain.from_iterable((unit, -unit) for unit in np.eye(3))]
ORIENTATIONS = [
    affine_of(columns, rows, sign)
    for columns, rows in itertools.permutations(AXES, 2)
    if not columns @ rows
    for sign in (1, -1)
]
"""All 48 affines with axes along those of the patient."""


def image(shape: Sequence[int] = (12, 10, 6), seed: int = 0) -> np.ndarray:
    """Noise with a bright block off the centre (columns, rows, slices)."""
    values = np.random.default_rng(seed).integers(0, 200, tuple(shape)).astype(np.int16)
    values[2:5, 4:8, 1:3] += 800
    return values


def write_series(
    folder: Path,
    values: np.ndarray,
    affine: np.ndarray = AXIAL,
    modality: str = "MR",
    number: int = 1,
    description: str = "T1 MPRAGE",
    frame: str = FRAME,
    study: str = STUDY,
    change: Callable[[Dataset, int], object] | None = None,
    names: str = "{1}_{0:04d}.dcm",
) -> list[Path]:
    """Write one file per slice in an order of names that is not that of the slices; returns them in order of slices.

    ``change`` receives the header of each slice and its index before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(values.shape[2]):
        uid = f"{ROOT}.{number}.9.{index + 1}"
        header = _header(CLASSES[modality], uid, modality, number, description, frame, study)
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.InstanceNumber = index + 1
        header.ImagePositionPatient = _numbers(affine[:3, 3] + index * affine[:3, 2])
        header.ImageOrientationPatient = _orientation(affine)
        header.PixelSpacing = _numbers(_lengths(affine)[[1, 0]])
        header.SliceThickness = f"{_lengths(affine)[2]:g}"
        header.RescaleIntercept, header.RescaleSlope = ("-1024", "1") if modality == "CT" else ("0", "1")
        if modality == "CT":
            header.KVP, header.AcquisitionNumber, header.RescaleType = "120", 1, "HU"
        else:
            header.ScanningSequence, header.SequenceVariant, header.ScanOptions = "GR", "MP", ""
            header.MRAcquisitionType, header.EchoTime, header.EchoTrainLength, header.RepetitionTime = "3D", 3, 1, 9
            del header.RescaleIntercept, header.RescaleSlope
        _set_pixels(header, values[:, :, index].T)
        if change:
            change(header, index)
        files.append(folder / names.format(index * 7919 % 101, number))
        _save(header, files[-1])
    return files


def write_enhanced(
    file: Path,
    values: np.ndarray,
    affine: np.ndarray = AXIAL,
    modality: str = "MR",
    order: Sequence[int] | None = None,
    change: Callable[[Dataset], object] | None = None,
) -> Path:
    """Write one multi-frame image whose frames are the slices in the given order."""
    order = list(range(values.shape[2]) if order is None else order)
    file.parent.mkdir(parents=True, exist_ok=True)
    header = _header(ENHANCED[modality], f"{ROOT}.7.1", modality, 7, "ENHANCED", FRAME, STUDY)
    header.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    header.InstanceNumber, header.NumberOfFrames = 1, len(order)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = _numbers(_lengths(affine)[[1, 0]])
    measures.SliceThickness = f"{_lengths(affine)[2]:g}"
    orientation.ImageOrientationPatient = _orientation(affine)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], []
    for index in order:
        frame, position, rescale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = _numbers(affine[:3, 3] + index * affine[:3, 2])
        rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = str(index), "2", "US"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [rescale]
        header.PerFrameFunctionalGroupsSequence.append(frame)
    _set_pixels(header, values[:, :, order].transpose(2, 1, 0))
    if change:
        change(header)
    _save(header, file)
    return file


def _header(kind: str, uid: str, modality: str, number: int, description: str, frame: str, study: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta, is_implicit_VR=False)
    header.SOPClassUID, header.SOPInstanceUID = kind, uid
    header.update(PATIENT)
    header.PatientSex, header.StudyDate, header.StudyTime, header.AccessionNumber = "F", "20260102", "101112", "A9"
    header.StudyID, header.ReferringPhysicianName, header.StudyInstanceUID = "S1", "Physician^Refers", study
    header.StudyDescription = f"Head of {PATIENT['PatientName']}"
    header.SeriesInstanceUID, header.SeriesNumber, header.SeriesDescription = f"{ROOT}.{number}.3", number, description
    header.Modality, header.Manufacturer, header.FrameOfReferenceUID = modality, "Maker", frame
    header.PositionReferenceIndicator, header.PatientPosition = "", "HFS"
    return header


def _save(header: FileDataset, file: Path) -> None:
    """Write a file with pydicom 3, or with pydicom 2, which MONAI Label has."""
    if pydicom.__version__.startswith("2"):
        header.save_as(file, write_like_original=False)
    else:
        header.save_as(file, enforce_file_format=True)


def _set_pixels(header: Dataset, pixels: np.ndarray) -> None:
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape[-2:]
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.PixelData = np.ascontiguousarray(pixels, "<i2").tobytes()


def _lengths(affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)


def _orientation(affine: np.ndarray) -> list[str]:
    return _numbers((affine[:3, :2] / _lengths(affine)[:2]).T.ravel())


def _numbers(values: Sequence[float]) -> list[str]:
    return [f"{value:.6f}".rstrip("0").rstrip(".") for value in values]
