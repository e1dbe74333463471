# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Which series of a study a bundle takes, and several on one grid."""

from __future__ import annotations

import pytest

pytest.importorskip("highdicom", reason="pip install segan-monai[dicom]")

import numpy as np

from segan_monai.dicom.selection import choose_series, parse_selectors
from segan_monai.dicom.study import read_study
from segan_monai.dicom.volumes import SeriesVolume, on_grid_of, read_series, stacked
from segan_monai.errors import ConfigError, DataError
from segan_monai.volume_files import Volume
from tests.dicom.studies import AXIAL, PATIENT, ROOT, affine_of, image, write_series

BRATS = ("t1c", "t2", "flair")


@pytest.fixture
def study(tmp_path):
    """A head with a localizer, three sequences of which one is on another grid, and a CT."""
    folder = tmp_path / "study"
    write_series(
        folder, image(), number=1, description="SCOUT", change=lambda h, i: setattr(h, "ImageType", ["X", "LOCALIZER"])
    )
    write_series(folder, image(seed=2), number=2, description="T1 post Gd")
    write_series(folder, image(seed=3), number=3, description="T2 TSE")
    coarse = AXIAL @ np.diag([2, 2, 1, 1])
    write_series(folder, image((6, 5, 6), seed=4), coarse, number=4, description="T2 TSE FLAIR")
    write_series(folder, image(seed=5), number=5, description="Head", modality="CT", frame=f"{ROOT}.77")
    return read_study(folder, tmp_path / "unused")


def chosen(study, modalities, kind, *texts):
    selected = choose_series(study, modalities, kind, parse_selectors(texts, modalities))
    return {modality: int(series.number) for modality, series in selected.items()}


def test_the_only_series_of_the_modality_needs_no_name(study):
    assert chosen(study, ["CT"], "CT") == {"CT": 5}


def test_by_number_uid_and_description(study):
    assert chosen(study, ["T1"], "MR", "2") == {"T1": 2}
    assert chosen(study, ["T1"], "MR", f"{ROOT}.2.3") == {"T1": 2}
    assert chosen(study, ["T1"], "MR", "gd") == {"T1": 2}
    assert chosen(study, ["T1"], "MR", "t2 tse") == {"T1": 3}  # whole, before "T2 TSE FLAIR" that contains it
    found = chosen(study, BRATS, "MR", "t1c=post", "T2=T2 TSE", "flair=FLAIR")
    assert found == {"t1c": 2, "t2": 3, "flair": 4}


def test_a_series_named_as_the_modality(tmp_path):
    for number, name in enumerate(["FLAIR", "T1C", "T2"], 1):
        write_series(tmp_path / "study", image(), number=number, description=name)
    study = read_study(tmp_path / "study", tmp_path / "unused")
    assert chosen(study, BRATS, "MR") == {"t1c": 2, "t2": 3, "flair": 1}


@pytest.mark.parametrize(
    ("modalities", "kind", "texts", "message"),
    [
        (
            ["T1"],
            "MR",
            [],
            r"without --series, T1 fits 3 series: series 2 'T1 post Gd' \(MR, .*Expected one",
        ),
        (["T1"], "MR", ["tse"], r"--series tse fits 2 series: series 3 .*; series 4 .*such as --series 3\."),
        (
            ["T1"],
            "MR",
            ["absent"],
            r"--series absent fits no series\. Series of the bundle's modality: series 1",
        ),
        (
            ["PT"],
            "PT",
            [],
            r"no series of modality PT, which the bundle needs\. Found series 1 .*another study",
        ),
        (BRATS, "MR", ["t1c=2", "t2=3"], r"without --series, flair fits no series.*such as --series flair=1\."),
        (BRATS, "MR", ["t1c=2", "t2=2", "flair=4"], r"t1c and t2 are both series 2 .*Expected two series"),
    ],
)
def test_refusals_list_the_series(study, modalities, kind, texts, message):
    with pytest.raises(DataError, match=message):
        chosen(study, modalities, kind, *texts)


def test_selectors_that_name_no_modality():
    with pytest.raises(ConfigError, match=r"--series 3 names none of .*each of t1c, t2, flair.*--series t1c=3"):
        parse_selectors(["3"], BRATS)
    with pytest.raises(ConfigError, match=r"--series is given twice for t2: 3 and 4\. Give one"):
        parse_selectors(["t2=3", "T2=4"], BRATS)
    assert parse_selectors(["b=1000"], ["T1"]) == {"T1": "b=1000"}


def test_other_frame_of_reference_study_or_patient(tmp_path):
    for number, (frame, study) in enumerate([("1.2.3", "1.2"), ("1.2.4", "1.2"), ("1.2.3", "1.9")], 1):
        write_series(tmp_path / "study", image(), number=number, frame=frame, study=study)
    study = read_study(tmp_path / "study", tmp_path / "unused")
    with pytest.raises(DataError, match=r"a is series 1 .*FrameOfReferenceUID differs.*Register them.*ANTs"):
        chosen(study, ["a", "b"], "MR", "a=1", "b=2")
    with pytest.raises(DataError, match=r"they are of different studies or patients\. Expected one study"):
        chosen(study, ["a", "b"], "MR", "a=1", "b=3")


def test_several_series_on_the_grid_of_the_first(study):
    selected = choose_series(study, BRATS, "MR", {"t1c": "2", "t2": "3", "flair": "4"})
    volumes = [read_series(study, series) for series in selected.values()]
    post, turbo, flair = stacked(volumes)
    np.testing.assert_array_equal(post, image(seed=2))
    np.testing.assert_array_equal(turbo, image(seed=3))
    stored = image((6, 5, 6), seed=4).astype(float)
    np.testing.assert_allclose(flair[::2, ::2], stored, atol=1e-3)
    np.testing.assert_allclose(flair[1:-1:2, ::2], (stored[:-1] + stored[1:]) / 2, atol=1e-3)
    assert volumes[1].notes == []
    (note,) = volumes[2].notes
    assert note.startswith("resampled onto the grid of series 2 'T1 post Gd'")


@pytest.mark.parametrize("moving", [8, 24])
def test_no_slice_is_lost_to_rounding_or_at_the_edge(moving):
    """Series of one slab with another matrix: the same slice positions, planes of the same field of view."""

    def series(matrix, slices=20, mm=3.3):
        pixel = 240 / matrix
        affine = np.diag([pixel, pixel, mm, 1.0])
        affine[:3, 3] = pixel / 2 - 120, pixel / 2 - 120, -12.7
        return SeriesVolume("series", Volume(np.full((matrix, matrix, slices), 100, np.int16), affine), [], None, [])

    found = on_grid_of(series(16), series(moving))
    np.testing.assert_allclose(found, 100, rtol=1e-6)


def test_a_series_of_another_region(tmp_path):
    write_series(tmp_path / "study", image(), number=1)
    below = affine_of([1, 0, 0], [0, 1, 0])
    below[2, 3] -= 10
    write_series(tmp_path / "study", image(), below, number=2)
    study = read_study(tmp_path / "study", tmp_path / "unused")
    volumes = [read_series(study, series) for series in study.series]
    with pytest.raises(DataError, match=r"series 2 .* covers 33% of the field of view of series 1 .*at least 50%"):
        stacked(volumes)


def test_descriptions_are_shown_without_the_patient(tmp_path):
    name = str(PATIENT["PatientName"]).split("^")[0]
    write_series(tmp_path / "study", image(), description=f"T1 {name.upper()} {PATIENT['PatientID']}")
    study = read_study(tmp_path / "study", tmp_path / "unused")
    assert "'T1 ... ...'" in str(study.series[0])
    assert chosen(study, ["T1"], "MR", f"t1 {name}") == {"T1": 1}
