# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from segan_monai.check.cases import check_contents, check_headers
from segan_monai.check.contents import read_contents
from segan_monai.check.report import Report
from segan_monai.errors import DataError
from segan_monai.transforms import CaseLoader, LoadCased, LoadCTd, LoadPhotographd

SHAPE = (8, 9, 7)
REGIONS = {"anterior": [1], "posterior": [2]}
UPRIGHT = np.diag([1.0, 1, 2, 1])


def of_headers(cases, loader=None, labels=("label",)):
    report = Report()
    check_headers(cases, loader or LoadCased(["image", "label"]), labels, report)
    return {(f.rule, f.level, f.where): f.message for f in report.findings}


def of_contents(cases, tmp_path, regions=REGIONS, relabelled=False, loader=None):
    report = Report()
    contents = read_contents(cases, loader or LoadCased(["image", "label"]), "", tmp_path / "r" / "cases.jsonl", 1)
    check_contents(cases, contents, regions, relabelled, report)
    return {(f.rule, f.level, f.where): f.message for f in report.findings}


def test_good_cases_have_no_findings(cases, tmp_path):
    assert of_headers(cases) == {}
    assert of_contents(cases, tmp_path) == {}


def test_a_missing_file(cases):
    cases[1]["image"] = cases[1]["image"].replace("image_1", "image_9")
    found = of_headers(cases)
    assert list(found) == [("headers", "error", "c1")]
    assert found["headers", "error", "c1"].endswith(
        "there is no such file. Correct the path in the datalist or copy the file there."
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1f\x8b\x08 no gzip", gzip.compress(b"no NIfTI" * 100, mtime=0)],
    ids=["empty", "no gzip", "no NIfTI"],
)
def test_a_header_that_cannot_be_read(cases, content):
    Path(cases[2]["image"]).write_bytes(content)
    found = of_headers(cases)
    assert list(found) == [("headers", "error", "c2")]
    assert "image_2.nii.gz cannot be read (" in found["headers", "error", "c2"]


def test_a_file_shorter_than_its_header_says(cases, tmp_path, write_volume):
    file = write_volume(tmp_path / "short.nii", np.zeros(SHAPE, np.float32), UPRIGHT)
    file.write_bytes(file.read_bytes()[:1000])
    cases[0]["image"] = str(file)
    message = of_headers(cases)["headers", "error", "c0"]
    assert f"short.nii cannot be read (it has 1000 bytes, its header declares {352 + 8 * 9 * 7 * 4})" in message


@pytest.mark.parametrize(
    ("shape", "message"),
    [((8, 9), "is a 2-D image of shape (8, 9)"), ((4, 4, 4, 2, 3), "has shape (4, 4, 4, 2, 3). Expected (H, W, D)")],
)
def test_axes(cases, tmp_path, write_volume, shape, message):
    cases[0]["image"] = str(write_volume(tmp_path / "axes.nii.gz", np.zeros(shape, np.float32), UPRIGHT))
    assert message in of_headers(cases)["headers", "error", "c0"]


@pytest.mark.parametrize("second_row", [[0, 0, 0, 0], [0, np.nan, 0, 0], [2, 0, 0, 0], [0, 1e-7, 0, 0], [0, 1e5, 0, 0]])
def test_an_affine_that_places_voxels_nowhere(cases, second_row):
    image = nibabel.load(cases[0]["image"])
    damaged = nibabel.Nifti1Image(np.asarray(image.dataobj), None)
    damaged.header["sform_code"] = 1
    damaged.header["srow_x"], damaged.header["srow_y"], damaged.header["srow_z"] = (
        [1, 0, 0, 0],
        second_row,
        [0, 0, 1, 0],
    )
    nibabel.save(damaged, cases[0]["image"])
    assert "which is singular, not finite, or of a size" in of_headers(cases)["headers", "error", "c0"]


def test_a_case_without_label(cases):
    del cases[3]["label"]
    assert of_headers(cases) == {("headers", "error", "c3"): "case c3 has no 'label'. Add it to the datalist."}


def test_modalities(cases, tmp_path, write_volume):
    two = str(write_volume(tmp_path / "two.nii.gz", np.zeros((*SHAPE, 2), np.float32), UPRIGHT))
    loader = LoadCased(["image", "label"], modalities=["t1c", "t2"])
    cases = [
        cases[0],
        {**cases[1], "image": [cases[1]["image"], two]},
        {**cases[2], "image": two, "channels": [0, 2]},
        {**cases[3], "image": two},
    ]
    found = of_headers(cases, loader)
    assert "expected 2 channels (t1c, t2), found 1 in an image of shape (1, 8, 9, 7)" in found["headers", "error", "c0"]
    assert "two.nii.gz is one of 2 images of a case and has 2 channels" in found["headers", "error", "c1"]
    assert "has 2 channels, but the datalist selects [0, 2]" in found["headers", "error", "c2"]
    assert ("headers", "error", "c3") not in found


def test_grids_within_a_case(cases, rewrite):
    rewrite(cases[0]["label"], lambda voxels: voxels[:-1])
    shifted = UPRIGHT.copy()
    shifted[0, 3] = 0.5
    rewrite(cases[1]["label"], affine=shifted)
    shifted[0, 3] = 0.01
    rewrite(cases[2]["label"], affine=shifted)
    found = of_headers(cases)
    assert set(found) == {("grids", "error", "c0"), ("grids", "error", "c1")}
    assert "has shape (8, 9, 7), but " in found["grids", "error", "c0"]
    assert "lie up to 0.5 mm apart, 0.5 voxels (tolerance 0.25 voxels)" in found["grids", "error", "c1"]


def test_headers_of_metaimage_agree_with_nifti(tmp_path, write_volume, oblique):
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = write_volume(tmp_path / "image.mha", voxels, oblique)
    label = write_volume(tmp_path / "label.nii.gz", (voxels % 3).astype(np.uint8), oblique)
    case = {"case": "c", "subject": "c", "image": str(image), "label": str(label)}
    assert of_headers([case]) == {}
    assert of_contents([case], tmp_path) == {}


def test_a_spacing_outlier_however_the_axes_are_stored(cases, rewrite):
    turned = np.array([[0, 0, -1.0, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])  # 1 x 1 x 2 mm again, axes permuted
    for key in ("image", "label"):
        rewrite(cases[0][key], affine=np.diag([1.0, 1, 5, 1]))
        rewrite(cases[1][key], affine=turned)
    found = of_headers(cases)
    assert set(found) == {("spacing", "warning", "c0"), ("orientation", "warning", "c1")}
    message = found["spacing", "warning", "c0"]
    assert (
        "has voxels of 1 x 1 x 5 mm; the median is 1 x 1 x 2 mm (left, forward, up; more than a factor of 2" in message
    )
    assert "is stored ASL, most cases RAS" in found["orientation", "warning", "c1"]


def test_domains_have_medians_of_their_own(cases, rewrite):
    for case in cases[:3]:
        case["domain"] = "thick"
        for key in ("image", "label"):
            rewrite(case[key], affine=np.diag([1.0, 1, 6, 1]))
    for case in cases[3:]:
        case["domain"] = "thin"
    assert of_headers(cases) == {}


def test_an_orientation_that_the_header_does_not_give(cases):
    for key in ("image", "label"):
        image = nibabel.Nifti1Image(np.asarray(nibabel.load(cases[4][key]).dataobj), None)
        image.header.set_zooms((1, 1, 2))
        image.set_qform(None, 0)
        image.set_sform(None, 0)
        nibabel.save(image, cases[4][key])
    message = of_headers([cases[4]])["orientation", "warning", "c4"]
    assert "says nowhere how it lies (qform_code and sform_code are 0)" in message


def test_a_data_type_outlier(cases, rewrite):
    rewrite(cases[5]["image"], lambda voxels: voxels.astype(np.uint8))
    message = of_headers(cases)["data types", "warning", "c5"]
    assert "image_5.nii.gz is stored as uint8, most cases as float32" in message


def test_a_mask_of_another_size_than_its_photograph(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png")
    Image.new("L", (20, 30)).save(tmp_path / "m.png")
    case = {"case": "p", "subject": "p", "image": str(tmp_path / "p.png"), "label": str(tmp_path / "m.png")}
    message = of_headers([case], LoadPhotographd(size=(8, 8)))["grids", "error", "p"]
    assert "m.png has 20x30 pixels, but " in message
    assert "rotate the mask alike" in message


def test_ct_pictures_and_their_masks(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 8), np.uint8)).save(tmp_path / "i.png")
    Image.fromarray(np.full((9, 8), 100, np.uint8)).save(tmp_path / "m.png")
    case = {"case": "p", "subject": "p", "image": str(tmp_path / "i.png"), "label": str(tmp_path / "m.png")}
    assert of_headers([case], LoadCTd()) == {}
    message = of_contents([case], tmp_path, loader=LoadCTd())["contents", "error", "p"]
    assert "a mask whose brightest pixel is 100. Expected 0 and 255" in message


def test_a_picture_for_a_loader_of_volumes(tmp_path):
    Image.new("L", (9, 8)).save(tmp_path / "i.png")
    case = {"case": "p", "subject": "p", "image": str(tmp_path / "i.png"), "label": str(tmp_path / "i.png")}
    message = of_headers([case])["headers", "error", "p"]
    assert message.endswith(
        "i.png is a 2-D image of shape (9, 8). Expected a 3-D volume; stack the slices into one file first."
    )
    with pytest.raises(DataError, match=r"is a 2-D image of shape \(9, 8\)\. Expected a 3-D volume"):
        LoadCased()(case)


class LoadThin(CaseLoader):
    """A loader with rules of its own, in a config of a user."""

    def __call__(self, data):
        return dict(data)

    def check_image_headers(self, case, images):
        if images[0].grid.shape[2] > case["most"]:
            raise DataError(f"{images[0].grid.name} has {images[0].grid.shape[2]} slices.")

    def check_grids(self, images, labels):
        if labels[0].dtype != "uint8":
            raise DataError(f"{labels[0].grid.name} is {labels[0].dtype}.")


def test_a_new_loader_brings_its_own_rules(cases, rewrite):
    cases = [{**case, "most": most} for case, most in zip(cases, (7, 6, 7), strict=False)]
    rewrite(cases[2]["label"], lambda voxels: voxels.astype(np.int16))
    found = of_headers(cases, LoadThin(["image", "label"]))
    assert found == {
        ("headers", "error", "c1"): f"{cases[1]['image']} has 7 slices.",
        ("grids", "error", "c2"): f"{cases[2]['label']} is int16.",
    }


def test_voxels_that_cannot_be_used(cases, rewrite, tmp_path):
    with Path(cases[0]["image"]).open("r+b") as file:
        file.truncate(600)

    def with_nan(voxels):
        voxels = voxels.copy()
        voxels[1, 2, 3] = np.nan
        return voxels

    rewrite(cases[1]["image"], with_nan)
    rewrite(cases[2]["label"], lambda voxels: voxels.astype(np.float32) * 0.7)
    found = of_contents(cases, tmp_path)
    assert set(found) == {("contents", "error", f"c{index}") for index in range(3)}
    assert "image_0.nii.gz cannot be read (" in found["contents", "error", "c0"]
    assert "1 of 504 voxels are NaN or infinite, the first at index (1, 2, 3)" in found["contents", "error", "c1"]
    assert "voxels of the label map are not whole numbers, such as 0.7" in found["contents", "error", "c2"]


def test_labels(cases, rewrite, tmp_path):
    rewrite(cases[0]["label"], np.zeros_like)
    rewrite(cases[1]["label"], lambda voxels: np.where(voxels == 2, 4, voxels).astype(np.uint8))
    cases[2]["tissue_values"] = {1: 1, 3: 2}
    found = of_contents(cases, tmp_path, relabelled=True)
    assert set(found) == {("labels", "warning", "c0"), ("labels", "error", "c1"), ("labels", "error", "c2")}
    assert "label_0.nii.gz is empty: no voxel is labelled" in found["labels", "warning", "c0"]
    assert (
        "found label values 4 (18 voxels) that are in no region. Allowed are 0, 1, 2" in found["labels", "error", "c1"]
    )
    assert "label_2.nii.gz holds label values 2 (18 voxels); expected 0, 1, 3" in found["labels", "error", "c2"]


def test_intensities(cases, rewrite, tmp_path):
    rewrite(cases[0]["image"], lambda voxels: np.full_like(voxels, 7))
    rewrite(cases[1]["image"], lambda voxels: voxels * 100)
    found = of_contents(cases, tmp_path)
    assert set(found) == {("intensities", "warning", "c0"), ("intensities", "warning", "c1")}
    assert "channel 0 of case c0 has one value, 7, in all voxels" in found["intensities", "warning", "c0"]
    assert "more than a factor of 10 apart" in found["intensities", "warning", "c1"]
