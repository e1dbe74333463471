# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip

import numpy as np

from segan_monai.check.contents import read_contents
from segan_monai.check.leakage import check_duplicates, check_subjects
from segan_monai.check.report import Report
from segan_monai.transforms import LoadCased


def duplicates(cases, tmp_path, training, validation):
    report = Report()
    contents = read_contents(cases, LoadCased(["image", "label"]), "", tmp_path / "r" / "cases.jsonl", 1)
    check_duplicates({"training": training, "validation": validation}, contents, report)
    return [(finding.level, finding.message) for finding in report.findings]


def test_the_same_voxels_under_two_names(cases, tmp_path, rewrite):
    rewrite(cases[0]["image"], np.array)  # written again: the same voxels in another file
    with gzip.open(cases[0]["image"]) as file:
        content = file.read()
    with gzip.GzipFile(cases[1]["image"], "wb", mtime=1, compresslevel=1) as file:
        file.write(content)
    assert duplicates(cases, tmp_path, cases, []) == [
        ("warning", "images of cases c0 (training), c1 (training) hold the same voxels. Keep one of them.")
    ]
    assert duplicates(cases, tmp_path, cases[1:], cases[:1]) == [
        (
            "error",
            "images of cases c0 (validation), c1 (training) hold the same voxels. Keep one of them: the validation set "
            "was seen in training.",
        )
    ]


def test_a_label_map_copied_to_another_case_and_a_modality_given_twice(cases, tmp_path):
    cases[0]["label"] = cases[1]["label"]
    cases[2]["image"] = [cases[2]["image"], cases[2]["image"]]
    found = duplicates(cases, tmp_path, cases[:1], cases[1:])
    assert (
        "warning",
        "labels of cases c0 (training), c1 (validation) hold the same voxels. Keep one of them.",
    ) in found
    assert any("case c2 has the same voxels in 2 of its images" in message for _, message in found)
    assert len(found) == 2


def test_blank_images_and_empty_label_maps_are_no_duplicates(cases, tmp_path, rewrite):
    for case in cases[:2]:
        rewrite(case["image"], np.zeros_like)
        rewrite(case["label"], np.zeros_like)
    assert duplicates(cases, tmp_path, cases[:1], cases[1:]) == []


def subjects(parts, seen=()):
    report = Report()
    check_subjects(parts, seen, report)
    return [(finding.level, finding.message) for finding in report.findings]


def test_patients_on_both_sides(cases):
    assert subjects({"training": cases[:3], "validation": cases[3:]}) == []
    cases[0]["subject"] = cases[5]["subject"] = "Anna"
    message = "subject Anna is trained on (c0) and judged on (c5). Put all cases of a subject on one side"
    for found in (
        subjects({"training": cases[:3], "validation": cases[3:]}),
        subjects({"evaluated": cases[3:]}, seen=cases[:3]),
    ):
        assert [level for level, _ in found] == ["error"]
        assert found[0][1].startswith(message)


def test_all_cases_on_both_sides_are_said_once(cases):
    ((level, message),) = subjects({"training": cases, "validation": cases})
    assert level == "warning"
    assert message.startswith("all 6 cases that are judged are also trained on (held_out 0 or split_by patch)")


def test_judged_cases_that_the_initial_weights_have_seen(cases):
    report = Report()
    parts = {"training": cases[:4], "validation": cases[4:]}
    check_subjects(parts, (), report, begun_on=cases[3:5])
    (finding,) = report.warnings
    assert finding.message.startswith(
        "1 of 2 cases that are judged, such as c4, are of subjects that initial_weights was trained on"
    )
    assert not report.errors


def test_an_unlabelled_image_of_a_judged_patient():
    report = Report()
    parts = {
        "training": [{"case": "a", "subject": "a"}],
        "unlabeled": [{"case": "b-2", "subject": "b"}],
        "validation": [{"case": "b-1", "subject": "b"}],
    }
    check_subjects(parts, (), report)
    (finding,) = report.errors
    assert "subject b is trained on (b-2) and judged on (b-1)" in finding.message
