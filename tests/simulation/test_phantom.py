# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from segan_monai.data.conventions import LABEL_CONVENTIONS
from segan_monai.errors import ConfigError, DataError
from segan_monai.simulation.phantom import (
    ENHANCING,
    NECROSIS,
    NON_ENHANCING,
    OEDEMA,
    make_phantom,
    smooth_noise,
)
from segan_monai.simulation.phantom_files import LAYOUTS, write_phantoms

SPACING = 4.0
CORE = (NECROSIS, NON_ENHANCING, ENHANCING)
CONVENTIONS = {"brats2018": "brats2021", "msd": "msd_brain_tumour"}


@pytest.fixture(scope="module")
def high_grade():
    return [make_phantom((0, index), SPACING, grade="HGG") for index in range(6)]


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_grid_is_brats_at_1_mm_and_covers_the_same_field_at_others():
    fine, coarse = make_phantom(0), make_phantom(0, 2.0)
    np.testing.assert_array_equal(fine.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert fine.label.shape == fine.images["t1"].shape == (240, 240, 155)
    assert coarse.label.shape == (120, 120, 78)
    edge = (-0.5, -0.5, -0.5, 1)  # the outer corner of the first voxel
    np.testing.assert_allclose(fine.affine @ edge, coarse.affine @ edge)
    # the same seed is the same subject: the tumours lie at the same place and are as large
    fine_mm, coarse_mm = (
        np.mean(np.argwhere(p.label > 0) @ p.affine[:3, :3] + p.affine[:3, 3], 0) for p in (fine, coarse)
    )
    np.testing.assert_allclose(fine_mm, coarse_mm, atol=1.5)
    assert (coarse.label > 0).sum() * 8 == pytest.approx((fine.label > 0).sum(), rel=0.1)


def test_images_are_int16_and_zero_exactly_outside_one_brain(high_grade):
    for phantom in high_grade:
        masks = [image > 0 for image in phantom.images.values()]
        assert list(phantom.images) == ["t1", "t1c", "t2", "flair"]
        assert all(image.dtype == np.int16 and image.min() == 0 for image in phantom.images.values())
        assert all(np.array_equal(mask, masks[0]) for mask in masks)
        assert 1.0e6 < masks[0].sum() * SPACING**3 < 2.4e6  # mm^3
        assert not phantom.label[~masks[0]].any()


def test_regions_are_nested(high_grade):
    for phantom in high_grade:
        whole, core = phantom.label > 0, np.isin(phantom.label, CORE)
        assert set(np.unique(phantom.label)) <= {0, NECROSIS, OEDEMA, NON_ENHANCING, ENHANCING}
        assert (phantom.label == ENHANCING).any()
        assert 0 < core.sum() < whole.sum()
        depth = ndimage.distance_transform_edt(whole)
        assert depth[core].mean() > depth[phantom.label == OEDEMA].mean()
    phantom = max(high_grade, key=lambda phantom: (phantom.label == NECROSIS).sum())
    depth = ndimage.distance_transform_edt(np.isin(phantom.label, CORE))
    assert depth[phantom.label == NECROSIS].mean() > depth[phantom.label == ENHANCING].mean()  # the rim is outside


def test_contrast_is_that_of_a_glioma(high_grade):
    def mean(phantom, name, *labels):
        return phantom.images[name][np.isin(phantom.label, labels)].mean()

    for phantom in high_grade:
        healthy = {name: image[(image > 0) & (phantom.label == 0)] for name, image in phantom.images.items()}
        white = {name: np.percentile(values, 25 if name in ("t2", "flair") else 75) for name, values in healthy.items()}
        assert mean(phantom, "flair", OEDEMA) > 1.1 * white["flair"]
        assert mean(phantom, "t2", OEDEMA) > 1.1 * white["t2"]
        gain = mean(phantom, "t1c", ENHANCING) / white["t1c"]
        assert gain > 1.1 * mean(phantom, "t1", ENHANCING) / white["t1"]


def test_low_grade_has_no_necrosis_and_may_lack_enhancement():
    low_grade = [make_phantom((1, index), SPACING, grade="LGG") for index in range(6)]
    assert all((phantom.label == NON_ENHANCING).any() for phantom in low_grade)
    assert not any((phantom.label == NECROSIS).any() for phantom in low_grade)
    assert any(not (phantom.label == ENHANCING).any() for phantom in low_grade)


def test_no_threshold_finds_the_tumour(high_grade):
    best = []
    for phantom in high_grade:
        flair, label = phantom.images["flair"], phantom.label > 0
        masks = [flair > threshold for threshold in np.percentile(flair[flair > 0], np.arange(50, 100))]
        best.append(max(2 * (mask & label).sum() / (mask.sum() + label.sum()) for mask in masks))
    assert 0.2 < np.mean(best) < 0.75


def test_subjects_differ(high_grade):
    masks = [phantom.images["t1"] > 0 for phantom in high_grade]
    centres = [np.argwhere(phantom.label > 0).mean(0) for phantom in high_grade]
    assert not np.array_equal(masks[0], masks[1])
    assert np.ptp([centre[0] for centre in centres]) * SPACING > 30  # mm: both hemispheres
    assert np.ptp([np.median(phantom.images["t2"][mask]) for phantom, mask in zip(high_grade, masks, strict=True)]) > 50


def test_mass_effect_moves_tissue_but_not_the_place_of_the_tumour():
    pushed, left = (make_phantom((0, 0), SPACING, grade="HGG", mass_effect=flag) for flag in (True, False))
    brain = left.images["t1"] > 0
    np.testing.assert_array_equal(pushed.images["t1"] > 0, brain)  # the skull does not give way
    both, either = (pushed.label > 0) & (left.label > 0), (pushed.label > 0) | (left.label > 0)
    assert both.sum() > 0.7 * either.sum()
    # the same noise in both, so far from the tumour the images agree, and beside it they do not
    index = np.argwhere(pushed.label > 0)
    distance = np.linalg.norm((np.argwhere(brain) - index.mean(0)) * SPACING, axis=1)
    change = np.abs(pushed.images["t2"][brain].astype(float) - left.images["t2"][brain])
    assert change[distance < 40].mean() > 10 * change[distance > 100].mean()


def test_smooth_noise_has_unit_variance_and_does_not_depend_on_the_part_seen():
    axes = [np.arange(-80.0, 80.0, 4)] * 3
    whole = smooth_noise(np.random.default_rng(0), axes, 10)
    part = smooth_noise(np.random.default_rng(0), [axis[5:9] for axis in axes], 10)
    assert whole.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(part, whole[5:9, 5:9, 5:9], atol=1e-5)


def test_files_depend_neither_on_workers_nor_on_the_number_of_cases(tmp_path):
    one = write_phantoms(tmp_path / "one", cases=2, seed=3, spacing_mm=SPACING, workers=1)
    two = write_phantoms(tmp_path / "two", cases=3, seed=3, spacing_mm=SPACING, workers=2)
    other = write_phantoms(tmp_path / "other", cases=1, seed=4, spacing_mm=SPACING, workers=1)
    assert [path.name for path in two] == [f"Phantom2021_{number:05d}_seg.nii.gz" for number in (1, 2, 3)]
    for first, second in zip(one, two, strict=False):
        for name in ("seg", "t1", "t1ce", "t2", "flair"):
            pair = [nib.load(str(path).replace("_seg", f"_{name}")) for path in (first, second)]
            np.testing.assert_array_equal(*(np.asarray(image.dataobj) for image in pair))
    assert not np.array_equal(nib.load(one[0]).dataobj, nib.load(other[0]).dataobj)
    np.testing.assert_array_equal(nib.load(one[1]).dataobj, merged(make_phantom((3, 1), SPACING).label, (1, 2, 1, 4)))


def merged(label, values):
    return np.array((0, *values))[label]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (
            "brats2018",
            {f"G/Phantom18_0001_1/Phantom18_0001_1_{m}.nii.gz" for m in ("t1", "t1ce", "t2", "flair", "seg")},
        ),
        (
            "brats2021",
            {f"Phantom2021_00001/Phantom2021_00001_{m}.nii.gz" for m in ("t1", "t1ce", "t2", "flair", "seg")},
        ),
        (
            "brats2023",
            {f"Phantom-GLI-00001-000/Phantom-GLI-00001-000-{m}.nii.gz" for m in ("t1n", "t1c", "t2w", "t2f", "seg")},
        ),
    ],
)
def test_nifti_layouts(tmp_path, layout, expected):
    phantom = make_phantom((0, 0), SPACING)
    (label,) = write_phantoms(tmp_path, cases=1, spacing_mm=SPACING, layout=layout)
    expected = {name.replace("G/", f"{phantom.grade}/") if name.startswith("G/") else name for name in expected}
    assert files(tmp_path) == expected | {"README.txt"}
    for path in tmp_path.rglob("*.nii.gz"):
        image = nib.load(path)
        np.testing.assert_allclose(image.affine, phantom.affine)
        assert image.header.get_data_dtype() == (np.uint8 if path == label else np.int16)
        assert image.header.get_zooms() == (SPACING,) * 3
        assert b"SIMULATED" in image.header["descrip"].item()
    values = np.unique(nib.load(label).dataobj)
    convention = LABEL_CONVENTIONS[CONVENTIONS.get(layout, layout)]
    assert set(values[1:]) <= set(convention.labels)


def test_brats2015_layout(tmp_path):
    phantom = make_phantom((0, 0), SPACING)
    (label,) = write_phantoms(tmp_path, cases=1, spacing_mm=SPACING, layout="brats2015")
    case = f"{phantom.grade}/phantom_pat0001_1"
    names = ["XX.O.MR_T1", "XX.O.MR_T1c", "XX.O.MR_T2", "XX.O.MR_Flair"]
    stems = [f"VSD.Brain.{name}.{10 + number}" for number, name in enumerate(names)] + ["VSD.Brain_3more.XX.O.OT.14"]
    assert files(tmp_path) == {f"{case}/{stem}/{stem}.mha" for stem in stems} | {"README.txt"}
    image = sitk.ReadImage(label)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, phantom.label)
    assert image.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    # LPS: the first two axes of the RAS affine change sign
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    np.testing.assert_allclose(image.GetOrigin(), phantom.affine[:3, 3] * (-1, -1, 1))
    assert "SIMULATED" in image.GetMetaData("descrip")


def test_msd_layout(tmp_path):
    phantom = make_phantom((0, 1), SPACING)
    labels = write_phantoms(tmp_path, cases=2, spacing_mm=SPACING, layout="msd")
    pairs = [{"image": f"./imagesTr/BRATS_00{n}.nii.gz", "label": f"./labelsTr/BRATS_00{n}.nii.gz"} for n in (1, 2)]
    assert files(tmp_path) == {path[2:] for pair in pairs for path in pair.values()} | {"README.txt", "dataset.json"}
    image = nib.load(tmp_path / pairs[1]["image"])
    stacked = np.stack([phantom.images[name] for name in ("flair", "t1", "t1c", "t2")], -1)
    np.testing.assert_array_equal(image.dataobj, stacked)
    np.testing.assert_array_equal(nib.load(labels[1]).dataobj, merged(phantom.label, (2, 1, 2, 3)))
    description = json.loads((tmp_path / "dataset.json").read_text(encoding="utf-8"))
    assert description["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert description["labels"] == {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    }
    assert description["training"] == pairs
    assert (description["numTraining"], description["numTest"], description["test"]) == (2, 0, [])
    assert description["tensorImageSize"] == "4D"
    assert "SIMULATED" in description["description"]


def test_label_values_tell_the_tissues_of_each_convention():
    tissues = ("necrosis", "oedema", "non-enhancing", "enhancing")
    for name, layout in LAYOUTS.items():
        meanings = LABEL_CONVENTIONS[CONVENTIONS.get(name, name)].labels
        for tissue, value in zip(tissues, layout.label_values, strict=True):
            expected = "non-enhancing" if (name, tissue) == ("msd", "necrosis") else tissue
            assert expected in meanings[value].split(" and ")[0] or expected in meanings[value]
            if tissue == "enhancing":
                assert "non-" not in meanings[value]


def test_readme_says_what_it_is_and_how_to_make_it_again(tmp_path):
    write_phantoms(tmp_path, cases=1, seed=5, spacing_mm=SPACING, layout="brats2023", mass_effect=False)
    text = (tmp_path / "README.txt").read_text(encoding="utf-8")
    assert text.startswith("SIMULATED DATA")
    assert "--cases 1 --seed 5 --spacing 4.0 --layout brats2023 --no-mass-effect" in text
    assert "1 necrosis, 1 non-enhancing, 2 oedema, 3 enhancing" in text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layout": "brats2099"}, r"unknown layout 'brats2099', expected one of brats2015, brats2018"),
        ({"spacing_mm": 0.5}, r"spacing is 0.5 mm, expected 1 to 8"),
        ({"spacing_mm": float("nan")}, r"spacing is nan mm"),
        ({"cases": 0}, r"cases=0.*expected cases >= 1"),
        ({"workers": 0}, r"workers=0.*workers >= 1"),
        ({"seed": -1}, r"seed=-1.*seed >= 0"),
    ],
)
def test_wrong_settings_are_named_and_write_nothing(tmp_path, wrong, message):
    with pytest.raises(ConfigError, match=message):
        write_phantoms(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_wrong_grade():
    with pytest.raises(ConfigError, match=r"grade is 'GBM', expected 'HGG', 'LGG' or None"):
        make_phantom(0, SPACING, grade="GBM")


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "patient.nii").touch()
    with pytest.raises(DataError, match=r"is not empty: it holds patient.nii.*choose a new folder"):
        write_phantoms(tmp_path, cases=1, spacing_mm=SPACING)
    with pytest.raises(DataError, match=r"patient.nii is a file, expected a folder"):
        write_phantoms(tmp_path / "patient.nii", cases=1, spacing_mm=SPACING)
    with pytest.raises(DataError, match=r"cannot write phantoms to .*Choose a folder with free space and write access"):
        write_phantoms(tmp_path / "patient.nii" / "below", cases=1, spacing_mm=SPACING)
