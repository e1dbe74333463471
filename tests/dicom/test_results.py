# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What the DICOM results say: types of segmentation, codes and colours, the patient, and dciodvfy's verdict."""

from __future__ import annotations

import pytest

pytest.importorskip("highdicom", reason="pip install segan-monai[dicom]")

import datetime
import json
import shutil
import subprocess

import highdicom as hd
import numpy as np
import pydicom
from highdicom._standard_utils import get_module_attribute_map
from PIL import Image
from pydicom.datadict import dictionary_VR, tag_for_keyword

from segan_monai.bundles_by_name import BUNDLES, bundle_names
from segan_monai.data.conventions import resolve_regions
from segan_monai.dicom.capture import secondary_capture
from segan_monai.dicom.identity import prepare_headers
from segan_monai.dicom.rtstruct import structure_set
from segan_monai.dicom.seg import segmentation
from segan_monai.dicom.segments import TISSUE, segments_of
from segan_monai.errors import ConfigError
from segan_monai.transforms.regions import merged_regions
from tests.dicom.conftest import ALGORITHM, REGIONS, label_map
from tests.dicom.reading import points_of_frames, points_of_labels
from tests.dicom.studies import FRAME, PATIENT, SECRETS, STUDY, image, write_enhanced, write_series

SHAPE = (8, 9, 5)
BRATS = BUNDLES / "brats_mri_segan_segmentation"
LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
NESTED = {"whole_tumour": [1, 2, 3], "tumour_core": [2, 3], "enhancing_tumour": [3]}


def metadata_of(bundle):
    return json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))


@pytest.fixture
def source(tmp_path, read):
    write_series(tmp_path / "study", image(SHAPE))
    return read(tmp_path / "study")


def nested_labels():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:7, 1:7, 1:4] = 1
    labels[2:6, 2:6, 1:3] = 2
    labels[3:5, 3:5, 1] = 3
    return labels


def test_nested_regions_overlap_in_a_binary_segmentation(source, write_seg):
    metadata = metadata_of(BRATS)
    labels = nested_labels()
    file = write_seg(source, labels, metadata=metadata, regions=NESTED)
    found = points_of_frames(file)
    assert {number: len(points) for number, points in found.items()} == {1: 6 * 6 * 3, 2: 4 * 4 * 2, 3: 2 * 2}
    header = pydicom.dcmread(file)
    whole, core, enhancing = header.SegmentSequence
    assert [one.SegmentLabel for one in header.SegmentSequence] == ["Whole tumour", "Tumour core", "Enhancing tumour"]
    code = whole.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("108369006", "SCT", "Neoplasm")
    assert whole.AnatomicRegionSequence[0].CodeMeaning == "Brain"
    assert enhancing.SegmentedPropertyTypeCodeSequence[0].CodeValue == "C113842"
    assert core.TrackingID == "case tumour_core"
    assert len({one.TrackingUID for one in header.SegmentSequence}) == 3
    algorithm = core.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Test bundle", "1.2.3")
    colour = hd.color.CIELabColor.from_rgb(188, 189, 34).value
    assert tuple(whole.RecommendedDisplayCIELabValue) == colour
    assert (header.FrameOfReferenceUID, header.StudyInstanceUID) == (FRAME, STUDY)
    assert (str(header.PatientName), header.PatientID) == (PATIENT["PatientName"], PATIENT["PatientID"])


def test_label_map_segmentation_names_what_is_left_of_nested_regions(source, write_seg):
    labels = nested_labels()
    file = write_seg(source, labels, "labelmap", metadata=metadata_of(BRATS), regions=NESTED)
    header = pydicom.dcmread(file)
    assert header.SOPClassUID == LABEL_MAP_STORAGE
    names = {int(one.SegmentNumber): one.SegmentLabel for one in header.SegmentSequence}
    expected = {1: "Oedema", 2: "Necrosis and non-enhancing tumour", 3: "Enhancing tumour"}
    assert {number: names[number] for number in expected} == expected
    for number, points in points_of_frames(file).items():
        mean = points_of_labels(labels, source.volume.affine, [number]).mean(0)
        np.testing.assert_allclose(points.mean(0), mean, atol=1e-3)


def test_fractional_segmentation_keeps_probabilities(source, write_seg):
    probabilities = np.zeros((*SHAPE, 2), np.float32)
    probabilities[2, 3, 1] = [0.2, 0.8]
    header = pydicom.dcmread(write_seg(source, probabilities, "fractional"))
    assert (header.SegmentationType, header.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert sorted(header.pixel_array.max((1, 2)) / header.MaximumFractionalValue) == pytest.approx([0.2, 0.8], abs=0.01)


@pytest.mark.parametrize("kind", ["binary", "labelmap", "fractional"])
def test_an_empty_result_is_valid(kind, source, write_seg, verdict):
    array = np.zeros((*SHAPE, 2) if kind == "fractional" else SHAPE, np.uint8)
    file = write_seg(source, array, kind)
    header = pydicom.dcmread(file)
    assert header.NumberOfFrames == SHAPE[2] * (1 if kind == "labelmap" else 2)
    assert not header.pixel_array.any()
    verdict(file)


def test_empty_frames_are_omitted(source, write_seg):
    assert pydicom.dcmread(write_seg(source, label_map(SHAPE))).NumberOfFrames == 4  # 2 slices of each segment


@pytest.fixture
def verdict():
    """Check a file with dciodvfy, where it is installed; that of Debian 12 does not know label map segmentations."""

    def check(file):
        if shutil.which("dciodvfy") and pydicom.dcmread(file).SOPClassUID != LABEL_MAP_STORAGE:
            done = subprocess.run(["dciodvfy", file], capture_output=True, text=True, check=False)
            assert not [line for line in done.stderr.splitlines() if line.startswith(("Error", "Abort"))], done.stderr

    return check


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy: apt-get install dicom3tools")
@pytest.mark.parametrize("kind", ["binary", "fractional"])
@pytest.mark.parametrize("enhanced", [False, True], ids=["single", "multi-frame"])
@pytest.mark.parametrize("anonymous", [False, True], ids=["named", "anonymous"])
def test_dciodvfy_finds_no_error(kind, enhanced, anonymous, tmp_path, read, write_seg, verdict):
    if enhanced:
        write_enhanced(tmp_path / "study" / "enhanced", image(SHAPE))
    else:
        write_series(tmp_path / "study", image(SHAPE), modality="CT")
    labels = label_map(SHAPE)
    array = np.stack([labels == 1, labels == 2], -1).astype(np.float32) / 2 if kind == "fractional" else labels
    verdict(write_seg(read(tmp_path / "study"), array, kind, anonymous=anonymous))


@pytest.mark.parametrize("anonymous", [False, True], ids=["named", "anonymous"])
def test_structure_set_and_secondary_capture(anonymous, source, tmp_path, verdict):
    prepare_headers(source.headers, anonymous)
    Image.fromarray(np.full((20, 30, 3), [255, 128, 0], np.uint8)).save(tmp_path / "picture.png")
    now = datetime.datetime(2026, 1, 2)
    made = {
        "rt": structure_set(source, label_map(SHAPE), segments_of({}, REGIONS, False), ALGORITHM, now),
        "sc": secondary_capture(source, tmp_path / "picture.png", ALGORITHM),
        "empty": structure_set(source, np.zeros(SHAPE), segments_of({}, REGIONS, False), ALGORITHM, now),
    }
    for name, result in made.items():
        file = tmp_path / f"{name}.dcm"
        result.save_as(file, enforce_file_format=True)
        verdict(file)
        assert any(word.encode() in file.read_bytes() for word in SECRETS) != anonymous
    assert (made["sc"].pixel_array[3, 4] == [255, 128, 0]).all()
    assert [one.ROIName for one in made["rt"].StructureSetROISequence] == ["first", "second"]
    assert "ContourSequence" not in made["empty"].ROIContourSequence[0]


def test_anonymous_segmentation_keeps_only_uids(source, write_seg):
    content = write_seg(source, label_map(SHAPE), anonymous=True).read_bytes()
    assert not [word for word in (*SECRETS, "Physician", "20260102", "Head of") if word.encode() in content]
    assert STUDY.encode() in content


MODULES = ("patient", "clinical-trial-subject", "general-study", "patient-study", "clinical-trial-study")
EQUIPMENT = (
    "InstitutionName",
    "InstitutionalDepartmentName",
    "InstitutionAddress",
    "StationName",
    "DeviceSerialNumber",
)
DATES = {"DA": "19870605", "TM": "070809", "DT": "19870605070809", "AS": "098Y", "DS": "198.7", "FD": 198.7}
MARKS = ("SECRET", *(value for value in DATES.values() if isinstance(value, str)))


def fill_patient_and_study(header, index=None):
    """Give each attribute of the patient, the study and the institution a value, also those within sequences."""
    attributes = get_module_attribute_map()
    rows = [(row["path"], row["keyword"]) for module in MODULES for row in attributes[module]]
    rows += [([], name) for name in (*EQUIPMENT, "AcquisitionDateTime", "OperatorsName", "RequestingPhysician")]
    for path, keyword in rows:
        if keyword in ("StudyInstanceUID", "SpecificCharacterSet"):
            continue
        place = header
        for name in path:
            if name not in place:
                setattr(place, name, [pydicom.Dataset()])
            place = place[name].value[0]
        vr = dictionary_VR(tag_for_keyword(keyword))
        if vr == "SQ":
            if keyword not in place:
                setattr(place, keyword, [pydicom.Dataset()])
        elif vr == "UI":
            setattr(place, keyword, "1.2.3.98.7")
        else:
            setattr(place, keyword, DATES.get(vr, 9 if vr in ("US", "IS", "UL") else "SECRET"))
    for frame in header.get("PerFrameFunctionalGroupsSequence", ()):
        frame.FrameContentSequence = [pydicom.Dataset()]
        frame.FrameContentSequence[0].FrameAcquisitionDateTime = DATES["DT"]


def write_all_results(source, folder):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "picture.png")
    segments = segments_of({}, REGIONS, False)
    results = {
        "seg": segmentation("binary", source, (), label_map(SHAPE), segments, ALGORITHM, "case"),
        "rtstruct": structure_set(source, label_map(SHAPE), segments, ALGORITHM, datetime.datetime(2026, 1, 2)),
        "overlay": secondary_capture(source, folder / "picture.png", ALGORITHM),
    }
    for kind, result in results.items():
        result.save_as(folder / f"{kind}.dcm", enforce_file_format=True)
    return {kind: pydicom.dcmread(folder / f"{kind}.dcm") for kind in results}


@pytest.mark.parametrize("enhanced", [False, True], ids=["single", "multi-frame"])
def test_anonymous_results_take_over_nothing_of_patient_and_study(enhanced, tmp_path, read):
    if enhanced:
        write_enhanced(tmp_path / "study" / "enhanced", image(SHAPE), change=fill_patient_and_study)
    else:
        write_series(tmp_path / "study", image(SHAPE), change=fill_patient_and_study)
    source = read(tmp_path / "study")
    attributes = get_module_attribute_map()
    of_modules = {row["keyword"] for module in MODULES for row in attributes[module] if not row["path"]}
    assert len(of_modules & set(source.headers[0].dir())) == len(of_modules) > 90
    prepare_headers(source.headers, True)
    for kind, result in write_all_results(source, tmp_path).items():
        found = {name: str(result[name].value) for name in result.dir() if name in of_modules}
        assert {name: text for name, text in found.items() if text} == {
            "PatientName": "ANONYMOUS^",
            "PatientID": "ANONYMOUS",
            "StudyInstanceUID": STUDY,
        }
        content = (tmp_path / f"{kind}.dcm").read_bytes()
        assert not [mark for mark in MARKS if mark.encode() in content], kind


JAPANESE, KOREAN = "Yamada^Tarou=山田^太郎=やまだ^たろう", "Hong^Gildong=洪^吉洞=홍^길동"


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (["", "ISO 2022 IR 87"], JAPANESE),
        (["", "ISO 2022 IR 149"], KOREAN),
        ("", "Miller^Anna"),
        ("ISO_IR 6", "Miller^Anna"),
        (["ISO 2022 IR 100"], "Müller^Änne"),
        (["ISO_IR 100", "ISO_IR 144"], "Müller^Änne"),
        ("ISO_IR 192", JAPANESE),
        (None, "Miller^Anna"),
    ],
)
def test_names_in_any_character_set(character_set, name, tmp_path, read):
    def rename(header, index):
        if character_set is not None:
            header.SpecificCharacterSet = character_set
        header.PatientName = name
        header.IssuerOfPatientIDQualifiersSequence = [pydicom.Dataset()]
        header.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID = name.split("=")[-1]

    write_series(tmp_path / "study", image(SHAPE), change=rename)
    source = read(tmp_path / "study")
    prepare_headers(source.headers, False)
    for result in write_all_results(source, tmp_path).values():
        assert (result.SpecificCharacterSet, str(result.PatientName)) == ("ISO_IR 192", name)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == name.split("=")[-1]


def test_a_chinese_name_with_escape_sequences(tmp_path, read):
    name = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"  # example of DICOM PS3.5, section K.2

    def rename(header, index):
        header.SpecificCharacterSet, header.PatientName = ["", "ISO 2022 IR 58"], name

    write_series(tmp_path / "study", image(SHAPE), change=rename)
    source = read(tmp_path / "study")
    prepare_headers(source.headers, False)
    for result in write_all_results(source, tmp_path).values():
        assert str(result.PatientName) == "Zhang^XiaoDong=张^小东"


def test_an_attribute_that_cannot_be_read_is_omitted(tmp_path, read):
    def after_an_event(header, index):
        header.LongitudinalTemporalOffsetFromEvent = 1.0  # 8 bytes

    for file in write_series(tmp_path / "study", image(SHAPE), change=after_an_event):
        whole, short = b"FD\x08\x00" + np.float64(1).tobytes(), b"FD\x04\x00" + bytes(4)
        assert file.read_bytes().count(whole) == 1
        file.write_bytes(file.read_bytes().replace(whole, short))
    source = read(tmp_path / "study")
    prepare_headers(source.headers, False)
    seg = write_all_results(source, tmp_path)["seg"]
    assert "LongitudinalTemporalOffsetFromEvent" not in seg
    assert seg.PatientID == PATIENT["PatientID"]


@pytest.mark.parametrize("name", bundle_names())
def test_every_region_of_our_bundles_has_codes(name):
    config = json.loads((BUNDLES / name / "configs" / "inference.json").read_text(encoding="utf-8"))
    regions = merged_regions(resolve_regions(config["regions"]), "consecutive")
    metadata = metadata_of(BUNDLES / name)
    assert set(metadata["segments"]) == set(regions)
    for exclusive in (False, True):
        for segment in segments_of(metadata, regions, exclusive):
            assert segment.type != TISSUE
            assert pydicom.sr.codedict.Code(*segment.type) in known_types()


def known_types():
    """Codes of pydicom's table of segmented property types (CID 7151 includes the others)."""
    cid = pydicom.sr.codedict.codes.cid7151
    return [getattr(cid, name) for name in dir(cid)]


def test_a_region_that_the_metadata_does_not_name():
    first, second = segments_of({}, REGIONS, exclusive=True)
    assert (first.label, first.category, first.type, first.values) == ("first", TISSUE, TISSUE, (1,))
    assert first.colour != second.colour
    assert [one.label for one in segments_of({}, NESTED, True)][1] == "tumour_core outside inner regions"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"first": {"kind": "x"}}, r"segments in metadata\.json: first has kind\. Expected anatomy, category, colour"),
        ({"first": {"type": ["1", "SCT"]}}, r"first has the type \['1', 'SCT'\]\. Expected code, coding scheme and"),
        ({"first": {"colour": [1, 2, 300]}}, r"first has the colour \[1, 2, 300\]\. Expected red, green and blue"),
        (["first"], r"segments in metadata\.json is \['first'\]\. Expected a region's name and its entry"),
    ],
)
def test_wrong_entries(table, message):
    with pytest.raises(ConfigError, match=message):
        segments_of({"segments": table}, REGIONS, False)
