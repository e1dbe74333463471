# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK
import torch

from segan_monai.data import brats_cases
from segan_monai.errors import ConfigError, DataError
from segan_monai.metrics import (
    EMPTY_MASK_RULE,
    case_metrics,
    evaluate_folders,
    find_label_maps,
    format_table,
    read_label_map,
    summarize,
    write_evaluation,
)
from segan_monai.metrics.summary import read_metrics

REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
MEASURES = "case,region,dice,iou,precision,sensitivity,hd95_mm,assd_mm,reference_ml,prediction_ml"
SHAPES = [f"{m}_{s}" for s in ("voxels", "components", "surface_to_volume_per_mm") for m in ("reference", "prediction")]
COLUMNS = ",".join([MEASURES, *SHAPES])
# 0.5 x 1 x 2 mm, turned by 30 degrees about the third axis, first axis flipped
OBLIQUE = np.array(
    [
        [-0.5 * math.cos(math.pi / 6), -math.sin(math.pi / 6), 0, 11],
        [-0.5 * math.sin(math.pi / 6), math.cos(math.pi / 6), 0, -7],
        [0, 0, 2, 5],
        [0, 0, 0, 1],
    ]
)


def tumour(shift=0, shape=(12, 12, 12)):
    """A box of 2 (6 x 6 x 6), in it 1 (4 x 4 x 4), in it 4 (2 x 2 x 2)."""
    values = np.zeros(shape, np.uint8)
    for margin, value in ((0, 2), (1, 1), (2, 4)):
        values[2 + margin + shift : 8 - margin + shift, 2 + margin : 8 - margin, 2 + margin : 8 - margin] = value
    return values


def save(path, values, affine=OBLIQUE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Case a is shifted by two voxels, case b is perfect."""
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for case, shift in (("a", 2), ("b", 0)):
        save(predictions / f"{case}_seg.nii.gz", tumour(shift))
        save(references / f"{case}.nii.gz", tumour())
    return predictions, references


def table_of(*rows):
    """Rows of (case, dice, hd95, reference ml, prediction ml) of one region."""
    return pd.DataFrame(
        [dict(zip(MEASURES.split(","), (c, "WT", d, d, d, d, h, h, r, p), strict=True)) for c, d, h, r, p in rows]
    )


def strict_json(text):
    def fail(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=fail)


def test_case_metrics_hand_computed():
    rows = case_metrics(tumour(2), tumour(), (0.5, 1, 2), REGIONS)
    assert [list(row) for row in rows] == [COLUMNS.split(",")[1:]] * 3
    assert [row["region"] for row in rows] == ["WT", "TC", "ET"]
    # shifted by 2 of 6, of 4 and of 2 voxels: two thirds, half and nothing is common
    assert [row["dice"] for row in rows] == pytest.approx([2 / 3, 1 / 2, 0])
    assert [row["iou"] for row in rows] == pytest.approx([1 / 2, 1 / 3, 0])
    assert [row["hd95_mm"] for row in rows] == pytest.approx([1, 1, 1])
    assert rows[2]["assd_mm"] == pytest.approx(0.75)  # each box of 2 x 2 x 2: 4 voxels at 0.5 mm, 4 at 1 mm
    assert [row["reference_ml"] for row in rows] == pytest.approx([0.216, 0.064, 0.008])  # a voxel is 1 mm^3
    assert [row["prediction_ml"] for row in rows] == pytest.approx([0.216, 0.064, 0.008])


def test_case_metrics_of_tensors_and_another_convention():
    other = torch.from_numpy(tumour(1)) % 4 + (torch.from_numpy(tumour(1)) == 4) * 3  # 4 is called 3
    expected = case_metrics(tumour(1), tumour(), (1, 1, 1), REGIONS)
    with_threes = {"ET": [3], "TC": (1, 3), "WT": (1, 2, 3)}
    assert case_metrics(other, torch.from_numpy(tumour()), (1, 1, 1), REGIONS, with_threes) == expected


def test_case_metrics_of_a_flat_structure_keep_its_volume_and_faces():
    # one slice thick in a volume: both faces are surface, so all voxels are
    prediction, reference = np.zeros((7, 7, 3), int), np.zeros((7, 7, 3), int)
    prediction[2:5, 2:5, 1] = 1
    reference[1:6, 1:6, 1] = 1
    row = case_metrics(prediction, reference, (1, 1, 1), {"a": [1]})[0]
    assert row["assd_mm"] == pytest.approx((9 * 0 + 12 * 1 + 4 * math.sqrt(2)) / (9 + 25))


@pytest.mark.parametrize(
    ("predicted", "true", "dice", "distance"), [(0, 0, 1, 0), (1, 0, 0, math.inf), (0, 1, 0, math.inf)]
)
def test_case_metrics_of_empty_masks(predicted, true, dice, distance):
    row = case_metrics(np.full((3, 3, 3), predicted), np.full((3, 3, 3), true), (1, 1, 1), {"a": [1]})[0]
    assert (row["dice"], row["iou"], row["precision"], row["sensitivity"]) == (dice,) * 4
    assert (row["hd95_mm"], row["assd_mm"]) == (distance,) * 2
    assert (row["reference_ml"], row["prediction_ml"]) == (true * 0.027, predicted * 0.027)


@pytest.mark.parametrize(
    ("regions", "prediction_regions", "message"),
    [
        ({}, None, "there are no regions"),
        ({"a": []}, None, r"region a has the label values \[\]"),
        ({"a": [0, 1]}, None, r"region a has the label values \[0, 1\]; expected one or more, not 0"),
        ({"a": [1]}, {"b": [1]}, "regions of the references are a, of the predictions b; expected the same names"),
    ],
)
def test_wrong_regions(regions, prediction_regions, message):
    with pytest.raises(ConfigError, match=message):
        case_metrics(np.ones((3, 3, 3)), np.ones((3, 3, 3)), (1, 1, 1), regions, prediction_regions)


@pytest.mark.parametrize("workers", [1, 2])
def test_folders(folders, tmp_path, workers):
    table = evaluate_folders(*folders, tmp_path / "out", REGIONS, workers=workers)
    text = (tmp_path / "out" / "metrics.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == COLUMNS
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "metrics.csv"), table)
    assert list(zip(table["case"], table["region"], strict=True)) == [(c, r) for c in "ab" for r in ("WT", "TC", "ET")]
    expected = case_metrics(tumour(2), tumour(), (0.5, 1, 2), REGIONS)
    for row, of_case in zip(table.to_dict("records"), expected, strict=False):
        assert row == pytest.approx({"case": "a", **of_case})
    summary = strict_json((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["regions"]["TC"]["dice"] == pytest.approx(
        {"mean": 0.75, "standard_deviation": math.sqrt(0.125), "median": 0.75}
    )
    assert summary["regions"]["ET"]["failed_cases"] == ["a"]
    assert (summary["regions"]["TC"]["reference_values"], summary["regions"]["TC"]["prediction_values"]) == (
        [1, 4],
        [1, 4],
    )
    assert summary["empty_mask_rule"] == EMPTY_MASK_RULE


def test_every_value_is_a_region_by_default(folders, tmp_path):
    table = evaluate_folders(*folders, tmp_path / "out")
    assert table["region"].unique().tolist() == ["label_1", "label_2", "label_4"]
    for path in folders[1].iterdir():
        save(path, np.zeros((12, 12, 12), np.uint8))
    with pytest.raises(DataError, match="every reference is empty"):
        evaluate_folders(*folders, tmp_path / "out")


def test_other_formats_share_the_frame_of_nifti(folders, tmp_path):
    predictions, references = folders
    for case, suffix in (("a", ".mha"), ("b", ".nrrd")):
        image = SimpleITK.ReadImage(str(predictions / f"{case}_seg.nii.gz"))
        (predictions / f"{case}_seg.nii.gz").unlink()
        SimpleITK.WriteImage(image, str(predictions / f"{case}_seg{suffix}"))
    np.testing.assert_allclose(read_label_map(predictions / "a_seg.mha").affine, OBLIQUE, atol=1e-5)
    table = evaluate_folders(predictions, references, tmp_path / "out", REGIONS)
    assert table["dice"].tolist() == pytest.approx([2 / 3, 1 / 2, 0, 1, 1, 1])


def test_flat_images_are_one_slice(tmp_path):
    image = SimpleITK.GetImageFromArray(tumour()[:, :8, 4])
    image.SetSpacing((0.5, 2))
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    found = read_label_map(tmp_path / "a.mha")
    assert found.values.shape == (8, 12, 1)
    np.testing.assert_array_equal(found.affine, np.diag([-0.5, -2, 1, 1]))
    save(tmp_path / "b.nii.gz", tumour()[..., None])
    assert read_label_map(tmp_path / "b.nii.gz").values.shape == (12, 12, 12)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        (["x/x_seg.nii.gz", "x/x_t1.nii.gz", "y/y_seg.nii", "y/y_t1.nii"], ["x", "y"]),
        (["B-1-000/B-1-000-seg.nii.gz", "B-1-000/B-1-000-t1c.nii.gz"], ["B-1-000"]),
        (["z/z_seg.nii", "BraTS20_Training_355/W39_1998.09.19_Segm.nii"], ["BraTS20_Training_355", "z"]),
        (["labelsTr/B_1.nii.gz", "labelsTr/._B_1.nii.gz", "imagesTr/B_1.nii.gz"], ["B_1"]),
        (["a.nii.gz", "sub/b.mha", "c.v2.nrrd", "notes.txt", "preview.png"], ["a", "b", "c.v2"]),
    ],
)
def test_find_label_maps(tmp_path, names, cases):
    touch(tmp_path, *names)
    assert list(find_label_maps(tmp_path)) == cases


def test_brats_2015_cases_have_the_names_of_the_data_set(tmp_path):
    for grade in ("HGG", "lgg"):  # the data set is found in any case
        for kind in ("OT", "MR_T1", "MR_T1c", "MR_T2", "MR_Flair"):
            name = f"VSD.Brain.XX.O.{kind}.123"
            touch(tmp_path, f"{grade}/brats_2013_pat0001_1/{name}/{name}.mha")
    for folder in (tmp_path, tmp_path / "lgg"):
        expected = {case["case"]: case["label"] for case in brats_cases(folder)}
        assert {case: str(path) for case, path in find_label_maps(folder).items()} == expected


def test_find_label_maps_follows_links(tmp_path):
    touch(tmp_path, "elsewhere/a_seg.nii.gz")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    assert list(find_label_maps(tmp_path / "here")) == ["a"]


def test_find_label_maps_errors(tmp_path):
    with pytest.raises(DataError, match="missing: no such folder"):
        find_label_maps(tmp_path / "missing")
    with pytest.raises(DataError, match=r"no label map found; expected files <case>_seg or <case> with .nii.gz"):
        find_label_maps(tmp_path)
    touch(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")
    with pytest.raises(DataError, match=r"case a has two label maps, .*images/a.nii.gz and .*labels/a.nii.gz.*Give a"):
        find_label_maps(tmp_path)


def test_cases_on_one_side_only(folders, tmp_path):
    predictions, references = folders
    save(references / "c.nii.gz", tumour())
    with pytest.raises(DataError, match=r"predictions lacks a prediction for 1 of 3 cases: c; it holds a, b. Predict"):
        evaluate_folders(predictions, references, tmp_path / "out")
    (references / "b.nii.gz").unlink()
    (references / "c.nii.gz").unlink()
    with pytest.raises(DataError, match=r"references lacks a reference for 1 of 2 cases: b; it holds a. Add"):
        evaluate_folders(predictions, references, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("side", "values", "affine", "message"),
    [
        (
            0,
            tumour(shape=(12, 12, 10)),
            OBLIQUE,
            r"a_seg.nii.gz has shape \(12, 12, 10\), .*a.nii.gz has \(12, 12, 12\).*ResampleToMatch",
        ),
        (
            0,
            tumour(),
            np.eye(4),
            r"a_seg.nii.gz has affine \[\[1.0, .*a.nii.gz has \[\[-0.433, "
            r".* lie up to .* mm apart, .* voxels \(tolerance 0.25 voxels\).*ResampleToMatch",
        ),
        (0, tumour() * np.float32(0.5), OBLIQUE, r"a_seg.nii.gz: value 0.5 is not an integer \(56 such voxels\)"),
        (1, np.where(tumour() == 4, np.nan, tumour()), OBLIQUE, "a.nii.gz: value nan is not an integer"),
        (1, np.stack([tumour()] * 3, -1), OBLIQUE, r"a.nii.gz: shape \(12, 12, 12, 3\); expected one label map"),
        (1, tumour() * 3, OBLIQUE, "a.nii.gz holds the label values 3, 6, 12; expected 0, 1, 2, 4"),
        (
            0,
            np.where(tumour() == 4, 3, tumour()).astype(np.uint8),
            OBLIQUE,
            "a_seg.nii.gz holds the label values 3; expected 0, 1, 2, 4 .*Name the label convention",
        ),
    ],
)
def test_wrong_files(folders, tmp_path, workers, side, values, affine, message):
    save(folders[side] / ("a_seg.nii.gz", "a.nii.gz")[side], values, affine)
    with pytest.raises(DataError, match=message):
        evaluate_folders(*folders, tmp_path / "out", REGIONS, workers=workers)


@pytest.mark.parametrize("name", ["a_seg.nii.gz", "a_seg.nii", "a_seg.mha"])
def test_unreadable_file(folders, tmp_path, name):
    whole = (folders[0] / "a_seg.nii.gz").read_bytes()
    (folders[0] / "a_seg.nii.gz").unlink()
    (folders[0] / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        evaluate_folders(*folders, tmp_path / "out", REGIONS, workers=1)


@pytest.mark.parametrize(("voxels", "agrees"), [(0.24, True), (0.26, False)])
def test_tolerance_of_the_grid(folders, tmp_path, voxels, agrees):
    moved = OBLIQUE.copy()
    moved[:3, 3] += voxels * OBLIQUE[:3, 1]
    save(folders[0] / "a_seg.nii.gz", tumour(), moved)
    if agrees:
        evaluate_folders(*folders, tmp_path / "out", REGIONS, workers=1)
    else:
        with pytest.raises(DataError, match=r"mm apart, 0.26 voxels"):
            evaluate_folders(*folders, tmp_path / "out", REGIONS, workers=1)


def test_summary_counts_empties_and_failures(tmp_path):
    table = table_of(
        ("both_empty", 1, 0, 0, 0),
        ("missed", 0, math.inf, 2, 0),
        ("false_alarm", 0, math.inf, 0, 2),
        ("apart", 0, 30, 2, 2),
        ("good", 0.8, 3, 2, 2),
    )
    write_evaluation(table, tmp_path, {"WT": (1, 2)}, {"WT": [3]})
    lines = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert lines[2] == "missed,WT,0,0,0,0,inf,inf,2,0"
    summary = strict_json((tmp_path / "summary.json").read_text(encoding="utf-8"))
    region = summary["regions"]["WT"]
    assert region == {
        "reference_values": [1, 2],
        "prediction_values": [3],
        "cases": 5,
        "reference_empty": 2,
        "prediction_empty": 2,
        "both_empty": 1,
        "failures": 3,
        "only_reference_empty": 1,
        "only_prediction_empty": 1,
        "no_overlap": 1,
        "failed_cases": ["missed", "false_alarm", "apart"],
        **{
            name: {
                "mean": pytest.approx(0.36),
                "standard_deviation": pytest.approx(np.std([1, 0, 0, 0, 0.8], ddof=1)),
                "median": 0,
            }
            for name in ("dice", "iou", "precision", "sensitivity")
        },
        **{
            name: {"mean": None, "standard_deviation": None, "median": 30, "infinite": 2, "mean_of_finite": 11}
            for name in ("hd95_mm", "assd_mm")
        },
    }


def test_metrics_come_back_with_names_as_text(tmp_path):
    write_evaluation(table_of(("NA", 1, 0, 0, 0), ("01", 0, math.inf, 2, 0), ("c", 0.5, math.nan, 2, 2)), tmp_path)
    table = read_metrics(tmp_path)
    assert table["case"].tolist() == ["NA", "01", "c"]
    assert table["dice"].tolist() == [1, 0, 0.5]
    assert table["hd95_mm"].tolist() == [0, math.inf, pytest.approx(math.nan, nan_ok=True)]


def test_summary_of_one_case_and_of_infinite_distances_only():
    region = summarize(table_of(("missed", 0, math.inf, 2, 0)))["regions"]["WT"]
    assert region["dice"] == {"mean": 0, "standard_deviation": None, "median": 0}
    assert region["hd95_mm"] == {
        "mean": None,
        "standard_deviation": None,
        "median": None,
        "infinite": 1,
        "mean_of_finite": None,
    }


def test_format_table_is_plain_and_narrow():
    text = format_table(table_of(("missed", 0, math.inf, 2, 0), ("good", 0.8, 3, 2, 2)))
    assert text.splitlines()[0].split() == (
        ["region", "cases", "Dice", "median", "IoU", "precision", "sensitivity", "HD95", "ASSD", "failures", "empty"]
    )
    assert " ".join(text.splitlines()[1].split()) == "WT 2 0.400 ± 0.566 0.400 0.400 0.400 0.400 inf inf 1 0/1/0"
    assert text.splitlines()[-1] == "failures in WT: missed"
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 100


def test_without_a_spacing_only_what_holds_in_any_unit_is_told(tmp_path):
    full, empty = np.ones((1, 20, 10), np.uint8), np.zeros((1, 20, 10), np.uint8)
    half = full.copy()
    half[:, :, 5:] = 0
    rows = []
    for case, prediction, reference in (("a", half, full), ("b", empty, full), ("c", empty, empty)):
        rows += [{"case": case, **row} for row in case_metrics(prediction, reference, None, {"lesion": [1]})]
    table = pd.DataFrame(rows)
    assert table["dice"].tolist() == pytest.approx([2 / 3, 0, 1])
    write_evaluation(table, tmp_path, {"lesion": [1]})
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:] == [
        "a,lesion,0.666666667,0.5,1,0.5,,,,,200,100,1,1,,",
        "b,lesion,0,0,0,0,inf,inf,,0,200,0,1,0,,",
        "c,lesion,1,1,1,1,0,0,0,0,0,0,0,0,,",
    ]
    summary = strict_json((tmp_path / "summary.json").read_text(encoding="utf-8"))["regions"]["lesion"]
    counts = ("reference_empty", "prediction_empty", "both_empty", "failures")
    assert [summary[name] for name in counts] == [1, 2, 1, 1]
    nothing = {"mean": None, "standard_deviation": None, "median": None, "infinite": 1, "mean_of_finite": None}
    assert summary["hd95_mm"] == summary["assd_mm"] == nothing
    text = format_table(table)
    assert "HD95" not in text
    assert "mm" not in text
    assert "0.556 ± 0.509" in text


def test_endings_in_upper_case_and_content_under_the_wrong_name(tmp_path):
    label = np.zeros((6, 5, 4), np.uint8)
    label[1:3, 1:3, 1:3] = 1
    for side, names in (("p", ("a_SEG.NII.GZ", "b_seg.NII")), ("r", ("a.Nii", "b.nii.gz"))):
        (tmp_path / side).mkdir()
        for name in names:
            nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / "x.nii")  # not compressed, whatever its name
            (tmp_path / "x.nii").rename(tmp_path / side / name)
    table = evaluate_folders(tmp_path / "p", tmp_path / "r", tmp_path / "out", workers=1)
    assert table["case"].tolist() == ["a", "b"]
    assert table["dice"].tolist() == [1, 1]


def test_references_without_a_region_are_said(tmp_path):
    label = np.zeros((6, 5, 4), np.uint8)
    for side in "pr":
        (tmp_path / side).mkdir()
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / side / "a.nii.gz")
    regions = {"WT": [1, 4], "ET": [4]}
    table = evaluate_folders(tmp_path / "p", tmp_path / "r", tmp_path / "out", regions, workers=1)
    assert "warning: all references are empty." in format_table(table)
    label[2, 2, 2] = 1
    nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / "r" / "a.nii.gz")
    table = evaluate_folders(tmp_path / "p", tmp_path / "r", tmp_path / "out", regions, workers=1)
    assert "warning: no reference holds ET. Do the label values of the regions fit?" in format_table(table)
    label[2, 2, 3] = 4
    nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / "r" / "a.nii.gz")
    table = evaluate_folders(tmp_path / "p", tmp_path / "r", tmp_path / "out", regions, workers=1)
    assert "warning" not in format_table(table)


def test_volumes_and_distances_of_a_sheared_affine(folders, tmp_path):
    sheared = np.array([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
    for folder, place in zip(folders, ((4, 6, 4), (4, 10, 2)), strict=True):
        for file in folder.iterdir():
            file.unlink()
        values = np.zeros((9, 20, 9), np.uint8)
        values[place] = 1
        save(folder / "x.nii.gz", values, sheared)
    row = evaluate_folders(*folders, tmp_path / "out", {"tumour": [1]}, workers=1).iloc[0]
    assert row["hd95_mm"] == pytest.approx(10)
    assert row["reference_ml"] == row["prediction_ml"] == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("predictions", "references"), [("a", "a"), ("a/out", "a"), ("a", "a/labelsTr"), ("a", "link")]
)
def test_folders_in_one_another_would_be_compared_with_themselves(tmp_path, write_volume, predictions, references):
    for folder in ("a/out", "a/labelsTr"):
        write_volume(tmp_path / folder / "case_seg.nii.gz", np.ones((4, 4, 4), np.uint8))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(DataError, match=r"predictions .* and references .* lie in one another, .* with themselves"):
        evaluate_folders(tmp_path / predictions, tmp_path / references, tmp_path / "out")
