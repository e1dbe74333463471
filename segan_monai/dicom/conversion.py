# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A study before and after inference: series to NIfTI images, and results to DICOM."""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from segan_monai.data.conventions import resolve_regions
from segan_monai.dicom.capture import secondary_capture
from segan_monai.dicom.identity import prepare_headers
from segan_monai.dicom.rtstruct import structure_set
from segan_monai.dicom.seg import Algorithm, segmentation
from segan_monai.dicom.segments import segments_of
from segan_monai.dicom.selection import choose_series, parse_selectors
from segan_monai.dicom.study import Study
from segan_monai.dicom.volumes import SeriesVolume, read_series, stacked
from segan_monai.errors import ConfigError, DataError, OutputError
from segan_monai.files import whole_file
from segan_monai.json_files import read_json_object
from segan_monai.prepare.volumes import in_smallest_type, write_nifti
from segan_monai.transforms.regions import merged_regions
from segan_monai.volume_files import read_volume

_KINDS_OF_FILES = ("seg", "rtstruct", "overlay")


@dataclass(frozen=True)
class BundleOfStudy:
    """What a bundle needs of a study, and what it says of its results.

    Attributes:
        modalities: in channel order.
        dicom_modality: ``CT`` or ``MR``.
        regions: values of each region in its label maps.
        metadata: ``metadata.json``.
        algorithm: name and version.
    """

    modalities: tuple[str, ...]
    dicom_modality: str
    regions: Mapping[str, Sequence[int]]
    metadata: Mapping[str, Any]
    algorithm: Algorithm

    @classmethod
    def of(cls, parser: ConfigParser) -> BundleOfStudy:
        """Return what an inference config with its metadata says.

        Raises:
            ConfigError: The bundle segments photographs.
        """
        metadata = parser.get("_meta_", {})
        kind = str(metadata.get("network_data_format", {}).get("inputs", {}).get("image", {}).get("modality", ""))
        if "modalities" not in parser or kind.upper() not in ("CT", "MR"):
            raise ConfigError(
                f"the bundle takes images of modality {kind or 'unknown'}. Expected CT or MR in "
                "network_data_format of its metadata.json, and the key modalities: DICOM studies of photographs "
                "are not supported."
            )
        regions: Mapping[str, Sequence[int]] = resolve_regions(parser.get_parsed_content("regions"))
        if "output_labels" in parser:
            regions = merged_regions(regions, parser.get_parsed_content("output_labels"))
        name, version = str(metadata.get("name", "segan-monai")), str(metadata.get("version", "unknown"))
        return cls(
            tuple(parser.get_parsed_content("modalities")), kind.upper(), regions, metadata, Algorithm(name, version)
        )


@dataclass
class ConvertedStudy:
    """Study as NIfTI images.

    Attributes:
        case: name of the case: a digest of the first series' UID, which identifies nobody.
        folder: folder of the images.
        volumes: series in the order of the modalities.
    """

    case: str
    folder: Path
    volumes: list[SeriesVolume]


def convert_study(study: Study, bundle: BundleOfStudy, selectors: Sequence[str], output: Path) -> ConvertedStudy:
    """Choose the series of a bundle and write them as NIfTI, one file per modality on the grid of the first.

    Args:
        study: the study.
        bundle: the bundle.
        selectors: see ``segan_monai.dicom.selection.parse_selectors``.
        output: folder of the results; images are written to ``images/<case>`` in it. DICOM results of the case from an
            earlier call are removed.

    Raises:
        DataError: No series fits, or a series cannot be read or resampled.
        ConfigError: A selector is wrong, or a path contains the patient's name or ID.
        OutputError: A file cannot be written.
    """
    chosen = choose_series(
        study, bundle.modalities, bundle.dicom_modality, parse_selectors(selectors, bundle.modalities)
    )
    for series in chosen.values():
        series.identity.refuse_in(output.absolute(), "the output folder")
        series.identity.refuse_in(Path.cwd(), "the working folder")
    volumes = [read_series(study, series) for series in chosen.values()]
    values = stacked(volumes)
    case = "case_" + hashlib.sha256(volumes[0].series.uid.encode()).hexdigest()[:12]
    _remove_results(output, case)
    folder = output / "images" / case
    for index, channel in enumerate(values):
        name = f"{case}_{index:04d}.nii.gz" if len(values) > 1 else f"{case}.nii.gz"
        write_nifti(folder / name, in_smallest_type(channel), volumes[0].volume.affine)
    return ConvertedStudy(case, folder, volumes)


@dataclass(frozen=True)
class DicomOptions:
    """Which DICOM results are written.

    Attributes:
        kind: of the segmentation, see ``segan_monai.dicom.seg.KINDS``.
        rtstruct: whether to write a structure set.
        picture: whether to write the overlay picture as a secondary capture.
        anonymous: whether to omit the patient's identity, see ``segan_monai.dicom.identity.prepare_headers``.
    """

    kind: str = "binary"
    rtstruct: bool = False
    picture: bool = False
    anonymous: bool = False


def write_results(
    converted: ConvertedStudy, bundle: BundleOfStudy, output: Path, options: DicomOptions
) -> dict[str, Path]:
    """Write the results of an inference as DICOM, in place of those of an earlier call.

    Args:
        converted: the study.
        bundle: the bundle.
        output: folder of the results, with ``<case>_seg.nii.gz`` and what the options need.
        options: which results are written.

    Returns:
        Files by kind.

    Raises:
        DataError: The inference of the case did not finish.
        OutputError: A file cannot be written.
    """
    case, source = converted.case, converted.volumes[0]
    _remove_results(output, case)
    _check_finished(output, case)
    for volume in converted.volumes:
        prepare_headers(volume.headers, options.anonymous)
    labels = _on_grid(output / f"{case}_seg.nii.gz", source)
    fractional = options.kind == "fractional"
    array = _on_grid(output / f"{case}_probabilities.nii.gz", source) if fractional else labels
    segments = segments_of(bundle.metadata, bundle.regions, options.kind == "labelmap")
    logging.getLogger("highdicom").setLevel(logging.ERROR)  # lists copied attributes, and omits nothing silently
    results = {
        "seg": segmentation(options.kind, source, converted.volumes[1:], array, segments, bundle.algorithm, case)
    }
    if options.rtstruct:
        overlapping = segments_of(bundle.metadata, bundle.regions, exclusive=False)
        now = datetime.datetime.now()
        results["rtstruct"] = structure_set(source, labels, overlapping, bundle.algorithm, now)
    if options.picture:
        results["overlay"] = secondary_capture(source, output / f"{case}_overlay.png", bundle.algorithm)
    files = {}
    for kind, result in results.items():
        files[kind] = output / f"{case}_{kind}.dcm"
        with whole_file(files[kind]) as temporary:
            result.save_as(temporary, enforce_file_format=True)
    return files


def _remove_results(output: Path, case: str) -> None:
    """Remove the DICOM results of a case, which may name the patient or belong to another result.

    Raises:
        OutputError: A file cannot be removed.
    """
    for kind in _KINDS_OF_FILES:
        file = output / f"{case}_{kind}.dcm"
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{file}, a result of an earlier call, cannot be removed ({error.strerror}). Remove it, or choose "
                "another output folder."
            ) from error


def _check_finished(output: Path, case: str) -> None:
    record = read_json_object(output / "inference.json").get("cases", {}).get(case, {})
    if record.get("status") != "finished":
        raise DataError(
            f"case {case} has no result ({record.get('error') or record.get('status') or 'not in inference.json'}), so "
            f"no DICOM is written. See {output / 'log.txt'}."
        )


def _on_grid(file: Path, source: SeriesVolume) -> np.ndarray:
    values, affine = read_volume(file)
    if values.shape[:3] != source.volume.values.shape or not np.allclose(affine, source.volume.affine, atol=1e-3):
        raise DataError(
            f"{file} has the shape {values.shape[:3]}; {source.series} has {source.volume.values.shape}. Expected the "
            "grid of the series; remove the file and run the command again."
        )
    return values
