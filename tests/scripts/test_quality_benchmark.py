# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the quality estimate: its corruptions, and its summary of a table made by hand."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
import typer
from PIL import Image

from segan_monai.data import find_cases
from segan_monai.transforms import LoadCased

TOP = Path(__file__).parents[2]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(TOP / "scripts"))
    yield lambda name: importlib.import_module(f"benchmarks.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.fixture
def corruptions(benchmarks):
    return benchmarks("corruptions")


@pytest.fixture
def image():
    """A volume (2, 6, 5, 4) of 1 to 100 whose first rows are background."""
    image = 1 + 99 * torch.rand(2, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    image[:, :2] = 0
    return image


def test_background_stays_and_the_seed_decides(corruptions, image):
    for corrupt in (*corruptions.INTENSITIES, *corruptions.GEOMETRY):
        before, found = image.clone(), corrupt(image, 3)
        assert torch.equal(image, before), corrupt
        assert found.shape == image.shape, corrupt
        assert not torch.equal(found, image), corrupt
        assert torch.equal(found, corrupt(image, 3)), corrupt
        if corrupt in corruptions.INTENSITIES:
            assert not found[:, :2].any(), corrupt
    for corrupt in (corruptions.noise, corruptions.bias_field):
        assert not torch.equal(corrupt(image, 3), corrupt(image, 4)), corrupt


def test_strengths(corruptions):
    image = torch.full((1, 40, 40, 40), 100.0)
    noisy = corruptions.noise(image, 0)
    assert float(noisy.std()) == pytest.approx(15, rel=0.02)
    assert float(noisy.mean()) == pytest.approx(100, rel=0.01)
    values = torch.tensor([0.0, 10, 15, 30]).reshape(1, 4, 1, 1)
    # 10 to 30 become 0 to 1, so 15 is .25, whose cube is 1 / 64
    assert corruptions.contrast(values, 0).flatten().tolist() == pytest.approx([0, 10, 10 + 20 / 64, 30], abs=1e-3)
    assert corruptions.inverted(values, 0).flatten().tolist() == pytest.approx([0, 30, 25, 10])
    point = torch.ones(1, 15, 15, 15)
    point[0, 7, 7, 7] += 1000
    # the peak of a Gaussian of 2 voxels, integrated over a voxel: .197 along each axis
    assert float(corruptions.blur(point, 0)[0, 7, 7, 7]) == pytest.approx(1 + 1000 * 0.197413**3, rel=0.01)


def test_what_is_empty(corruptions, image):
    half, slices = corruptions.half_empty(image, 0), corruptions.missing_slices(image, 0)
    assert not half[:, 3:].any()
    assert torch.equal(half[:, :3], image[:, :3])
    assert not slices[..., [1, 3]].any()
    assert torch.equal(slices[..., [0, 2]], image[..., [0, 2]])


def test_a_second_flip_undoes_the_first(corruptions, image):
    for flip, axis in ((corruptions.flip_axis_1, 2), (corruptions.flip_axis_2, 3)):
        assert torch.equal(flip(image, 0), image.flip(axis))
        assert torch.equal(flip(flip(image, 0), 0), image)


def test_another_organ_has_the_grid_of_the_case(corruptions, image):
    other = torch.arange(1.0, 1 + 3 * 9 * 9).reshape(1, 3, 9, 9)  # shorter along the first axis than the case
    found = corruptions.cut_to_grid(other, image, 0)
    assert found.shape == image.shape
    assert torch.equal(found[0], found[1])
    part = found[0, found[0].flatten(1).any(1)]
    assert part.shape == (3, 5, 4)
    assert torch.equal(part[:, 1:] - part[:, :-1], torch.full((3, 4, 4), 9.0)), "neighbours of the other image"


def test_files(benchmarks, tmp_path):
    affine = np.diag([1.0, 2, 3, 1])
    voxels = np.random.default_rng(0).uniform(1, 9, (4, 5, 6)).astype(np.float32)
    for name, values in (("image", voxels), ("label", (voxels > 5).astype(np.uint8)), ("other", voxels[:3] + 100)):
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
    case = {"case": "a__b", "subject": "s", "section": "training"}
    case |= {key: str(tmp_path / f"{key}.nii.gz") for key in ("image", "label")}
    out = tmp_path / "out"
    out.mkdir()
    load, others = LoadCased(("image", "label"), modalities=["T1"]), find_cases(tmp_path / "other.nii.gz")
    datalist = benchmarks("quality").write_corrupted([case], load, others, out)
    found = {case["case"].removeprefix("a__b__"): case for case in find_cases(out, datalist, ["T1"], True)}
    modules = benchmarks("corruptions")
    kinds = [*modules.INTENSITIES, *modules.GEOMETRY]
    assert sorted(found) == sorted([*(kind.__name__ for kind in kinds), "another_organ"])
    for name, entry in found.items():
        image, label = (nibabel.load(entry[key]) for key in ("image", "label"))
        assert np.array_equal(image.affine, affine), name
        expected = voxels > 5
        if name.startswith("flip"):
            expected = np.flip(expected, int(name[-1]))
        assert np.array_equal(label.get_fdata(), expected if name != "another_organ" else 0 * expected), name
        assert entry["subject"] == "s"
    assert np.array_equal(nibabel.load(found["flip_axis_1"]["image"]).get_fdata(), np.flip(voxels, 1))
    assert nibabel.load(found["another_organ"]["image"]).get_fdata().max() > 100


def test_summary(benchmarks):
    """Two clean cases, of which one is corrupted in three ways; a clean region without a label does not count."""
    module = benchmarks("quality")
    rows = [
        # case, corruption, Dice, expected, bound, flag, signal
        ("a", "clean", 0.9, 0.8, 0.7, "", 0.1),
        ("b", "clean", 0.6, 0.7, 0.65, "low expected Dice", 0.2),
        ("c", "clean", np.nan, 0.7, 0.1, "", 0.3),
        ("a", "noise", 0.85, 0.85, 0.75, "", 0.1),  # .05 worse
        ("a", "blur", 0.8, 0.6, 0.45, "", 0.2),  # .1 worse, bound below .5
        ("a", "another_organ", 0.0, 0.7, 0.6, "unlike the training images (step)", 0.3),  # .9 worse, flagged
        ("a", "half_empty", 0.1, 0.7, 0.6, "", 0.3),  # .8 worse, not told
    ]
    table = pd.DataFrame(
        [
            {"case": case, "fold": 0, "corruption": kind, "region": "x", "dice": dice, "expected_dice": expected}
            | {"lower_bound": bound, "flag": flag, "soft_dice": signal}
            for case, kind, dice, expected, bound, flag, signal in rows
        ]
    )
    lines = module.summary(table).splitlines()
    assert "| clean | 2 | .750 | .750 | .675 | .500 | .500 |" in lines
    assert "| clean, those corrupted below | 1 | .900 | .800 | .700 | 1.000 | .000 |" in lines
    assert "| blur | 1 | .800 | .600 | .450 | 1.000 | .000 |" in lines
    assert "| another organ | 1 | .000 | .700 | .600 | .000 | 1.000 |" in lines
    # by expected Dice, case a comes first: (.1 + .25) / 2; by the signal alone, case b: (.4 + .25) / 2
    assert "| clean | 2 | .500 | .175 | 1.000 | .100 | .500 |" in lines
    assert "| clean, soft_dice alone |  |  | .325 | -1.000 |  |  |" in lines
    # 3 of 4 are worse: 2 of them told, 1 flagged; of the clean cases 1 of 2 is flagged, and no bound is below .5
    assert "| x | 4 | 3 | .667 | .333 | .500 | .500 |" in lines


def test_which_folds(benchmarks, tmp_path):
    module = benchmarks("quality")
    for name in ("2-D/seed_0_fold_1", "2-D/seed_0_fold_0", "2-D/seed_1_fold_0", "3-D/seed_0_fold_0"):
        (tmp_path / name / "out_of_fold").mkdir(parents=True)
        (tmp_path / name / "out_of_fold" / "signals.json").touch()
    found = module.find_folds(tmp_path, "2-D", 0)
    assert [fold.number for fold in found] == [0, 1]
    assert found[1].training == (tmp_path / "2-D/seed_0_fold_1/training").resolve()
    with pytest.raises(typer.BadParameter, match=r"of 2-D, 3-D; expected those of one, or --row NAME"):
        module.find_folds(tmp_path, None, 0)
    with pytest.raises(typer.BadParameter, match=r"one fold; expected two or more"):
        module.find_folds(tmp_path, "3-D", 0)


def test_cases_are_found_as_the_bundle_finds_them(benchmarks, tmp_path):
    """The hippocampus bundle takes the only channel, whatever the data set calls it."""
    entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    for folder, file in (("imagesTr", entry["image"]), ("labelsTr", entry["label"])):
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / file)
    content = {"modality": {"0": "MRI"}, "training": [entry]}
    (tmp_path / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    file = TOP / "bundles" / "hippocampus_mri_segan_segmentation" / "configs" / "evaluate.json"
    config = {key: value for key, value in json.loads(file.read_text(encoding="utf-8")).items() if key[0] != "_"}
    assert config["modalities"] == ["T1"]
    cases, load = benchmarks("quality").cases_of(config, tmp_path)
    assert [case["case"] for case in cases] == ["a"]
    assert load(cases[0])["image"].shape == (1, 4, 4, 4)


def test_pictures_are_loaded_as_the_bundle_loads_them(benchmarks, tmp_path):
    """What changes nothing is omitted: a single slice has no neighbour to lose, and nothing above to exchange."""
    pixels = np.random.default_rng(0).integers(1, 255, (8, 6), dtype=np.uint8)  # rows, columns
    for folder, values in (("images", pixels), ("masks", np.where(pixels > 128, 255, 0).astype(np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(values).save(tmp_path / folder / "P_1-1.png")
    config = {}
    for file in ("bundles/pancreas_ct_lsnet_segmentation/configs/evaluate.json", "configs/ct_pictures.json"):
        config |= json.loads((TOP / file).read_text(encoding="utf-8"))
    cases, load = benchmarks("quality").cases_of(config, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    datalist = benchmarks("quality").write_corrupted(cases, load, [], out)
    found = {case["case"].removeprefix("P_1-1__"): case for case in find_cases(out, datalist, None, True)}
    assert set(found) == {"noise", "bias_field", "contrast", "blur", "half_empty", "inverted", "flip_axis_1"}
    image, label = (nibabel.load(found["flip_axis_1"][key]) for key in ("image", "label"))
    assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S"), "upside down, as picture_axes of the overlay says"
    assert np.array_equal(image.get_fdata()[..., 0], pixels[::-1].T)
    assert np.array_equal(label.get_fdata()[..., 0], pixels[::-1].T > 128)
