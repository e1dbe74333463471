# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""From evaluations of hippocampi to the estimated quality of label maps made by anything."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from typer.testing import CliRunner

from segan_monai.bundles_by_name import BUNDLES
from segan_monai.cli.main import app
from segan_monai.cli.quality_critic import _parsed, _values
from segan_monai.errors import ConfigError
from segan_monai.quality import image_features
from segan_monai.quality_critic.cases import is_plain, require_volumes

BUNDLE = "hippocampus_mri_segan_segmentation"
AFFINE = np.diag([-1.0, -1, 1, 1])
REGIONS = ("anterior", "posterior")
CASES = 20


def save(file, values, affine=AFFINE):
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), file)


def label_of(number):
    label = np.zeros((20, 24, 8), np.uint8)
    label[6 : 12 + number % 3, 4:11, 2:7], label[6 : 12 + number % 3, 11:18, 2:7] = 1, 2
    return label


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Data set, and a fold's training and evaluation, whose predictions lack one to five rows."""
    import torch

    top = tmp_path_factory.mktemp("critic")
    data, fold = top / "Task04_Hippocampus", top / "FOLDS" / "bundle" / "seed_0_fold_0"
    signals, lines = {}, ["case,region,dice"]
    for number in range(CASES):
        random = np.random.RandomState(number)
        name, label = f"hippocampus_{number:03}", label_of(number)
        image = (100 * (label > 0) + random.uniform(40, 60, label.shape)).astype(np.float32)
        save(data / "imagesTr" / f"{name}.nii.gz", image)
        save(data / "labelsTr" / f"{name}.nii.gz", label)
        prediction = label.copy()
        prediction[6 : 7 + number % 5] = 0
        save(fold / "out_of_fold" / f"{name}_seg.nii.gz", prediction)
        for value, region in enumerate(REGIONS, 1):
            mine, true = prediction == value, label == value
            lines.append(f"{name},{region},{2 * (mine & true).sum() / (mine.sum() + true.sum())}")
        features = image_features(torch.from_numpy(image[None]), ["T1"])
        signals[name] = {"patient": name, "image": features, "regions": {r: {"log_ml": 1.0} for r in REGIONS}}
    settings = {"regions": list(REGIONS), "modalities": ["T1"], "spacing_mm": None, "intensity_window": None}
    settings |= {"skull_stripped": True, "test_crop_size": None, "members": 1, "slice_axis": 2}
    content = {"version": 1, "settings": settings, "trained_on": [], "cases": signals}
    (fold / "out_of_fold" / "signals.json").write_text(json.dumps(content), encoding="utf-8")
    (fold / "out_of_fold" / "metrics.csv").write_text("\n".join(lines), encoding="utf-8")
    config = {"bundle_root": str(BUNDLES / BUNDLE), "dataset_dir": str(data), "modalities": ["T1"], "slice_axis": 2}
    config |= {"spacing_known": "$__import__('os').system('touch executed')"}
    (fold / "training").mkdir()
    for folder in ("training", "out_of_fold"):
        record = json.dumps({"bundle": BUNDLE, "config": config})
        (fold / folder / "run.json").write_text(record, encoding="utf-8")
    (fold / "training" / "model.pt").write_bytes(b"weights")
    return data, fold


@pytest.fixture(scope="module")
def fitted(folders):
    _, fold = folders
    command = ["fit-quality-critic", str(fold / "out_of_fold"), "-o", str(fold / "training")]
    done = CliRunner().invoke(app, [*command, "--steps", "8", "--size", "16"])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output, fold / "training"


def run_quality(folders, fitted, maps, tmp_path, *more):
    command = ["quality", "--bundle", str(fitted[1]), "--images", str(folders[0] / "imagesTr")]
    return CliRunner().invoke(app, [*command, "--label-maps", str(maps), "-o", str(tmp_path / "out"), *more])


def test_the_fit_prints_its_measures_and_writes_beside_the_weights(folders, fitted):
    output, training = fitted
    assert "anterior             predictions     20" in output
    assert "posterior            corrupted       60" in output
    assert f"written: {training / 'quality_critic'}" in output
    assert {file.name for file in (training / "quality_critic").iterdir()} == {"critic.pt", "critic.json"}
    content = json.loads((training / "quality_critic" / "critic.json").read_text(encoding="utf-8"))
    assert content["settings"]["skull_stripped"] is True
    assert "slice_axis" not in content["settings"]


def test_label_maps_of_anything_get_an_estimate(folders, fitted, tmp_path):
    for number in (0, 1):
        save(tmp_path / "maps" / f"hippocampus_{number:03}.nii.gz", label_of(number))
    save(tmp_path / "maps" / "another.nii.gz", label_of(0))
    done = run_quality(folders, fitted, tmp_path / "maps", tmp_path)
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "18 images have no label map: hippocampus_002, " in done.output
    assert "1 label maps have no image: another" in done.output
    assert "(2 of 2 label maps)" in done.output
    with (tmp_path / "out" / "quality.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["case", "region", "expected_dice", "lower_bound", "flag"]
    assert [(row["case"], row["region"]) for row in rows] == [
        (f"hippocampus_{number:03}", region) for number in (0, 1) for region in REGIONS
    ]
    assert all(0 <= float(row["lower_bound"]) <= float(row["expected_dice"]) <= 1 for row in rows)


def test_a_wrong_grid_or_value_is_named_and_the_others_go_on(folders, fitted, tmp_path):
    moved = AFFINE.copy()
    moved[0, 3] = 30
    save(tmp_path / "maps" / "hippocampus_000.nii.gz", label_of(0), moved)
    save(tmp_path / "maps" / "hippocampus_001.nii.gz", label_of(1) * 3)
    save(tmp_path / "maps" / "hippocampus_002.nii.gz", label_of(2)[:-1])
    save(tmp_path / "maps" / "hippocampus_003.nii.gz", label_of(3))
    save(tmp_path / "images" / "hippocampus_004.nii.gz", label_of(4) * np.float32("nan"))
    for number in range(4):
        file = folders[0] / "imagesTr" / f"hippocampus_{number:03}.nii.gz"
        (tmp_path / "images" / file.name).write_bytes(file.read_bytes())
    save(tmp_path / "maps" / "hippocampus_004.nii.gz", label_of(4))
    command = ["quality", "--bundle", str(fitted[1]), "--images", str(tmp_path / "images")]
    command += ["--label-maps", str(tmp_path / "maps"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, repr(done.exception)
    assert "error: hippocampus_004: " in done.output
    assert "corners of the volumes lie up to 30 mm apart" in done.output
    assert "found label values 3 (" in done.output
    assert "has shape (19, 24, 8)" in done.output
    assert "(1 of 5 label maps)" in done.output


def test_other_values_need_regions(folders, fitted, tmp_path):
    save(tmp_path / "maps" / "hippocampus_001.nii.gz", label_of(1) * 3)
    done = run_quality(folders, fitted, tmp_path / "maps", tmp_path, "--regions", "posterior=6;anterior=3")
    assert done.exit_code == 0, done.output + repr(done.exception)
    done = run_quality(folders, fitted, tmp_path / "maps", tmp_path, "--regions", "left=3")
    assert "--regions names left; expected the critic's regions anterior, posterior" in str(done.exception)


def test_values_of_other_structures_are_background(folders, fitted, tmp_path):
    label = label_of(1)
    label[0, 0, 0] = 7
    save(tmp_path / "maps" / "hippocampus_001.nii.gz", label)
    done = run_quality(folders, fitted, tmp_path / "maps", tmp_path)
    assert "--background_labels '[VALUE, ...]'" in done.output
    done = run_quality(folders, fitted, tmp_path / "maps", tmp_path, "--background_labels", "[7]")
    assert done.exit_code == 0, done.output + repr(done.exception)


def test_the_results_of_an_inference_are_not_replaced(folders, fitted, tmp_path):
    save(tmp_path / "maps" / "hippocampus_001.nii.gz", label_of(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"config": {"inference": []}}', encoding="utf-8")
    (tmp_path / "out" / "inference.jsonl").touch()
    done = run_quality(folders, fitted, tmp_path / "maps", tmp_path)
    assert "has the results of an inference, which an estimate of label maps would overwrite" in str(done.exception)


def test_no_common_name_is_an_error(folders, fitted, tmp_path):
    save(tmp_path / "maps" / "scan.nii.gz", label_of(0))
    done = run_quality(folders, fitted, tmp_path / "maps", tmp_path)
    assert "has the name of an image: label maps scan; images hippocampus_000," in str(done.exception)


def test_wrong_folders_and_sizes_are_refused(folders, tmp_path):
    evaluation = folders[1] / "out_of_fold"
    (tmp_path / "empty").mkdir()

    def error(*command):
        return str(CliRunner().invoke(app, ["fit-quality-critic", str(evaluation), *command]).exception)

    assert "empty has no model.pt; expected the folder of the weights" in error("-o", str(tmp_path / "empty"))
    assert "--size 50; expected a multiple of 16" in error("-o", str(folders[1] / "training"), "--size", "50")
    record = evaluation / "run.json"
    kept = record.read_text(encoding="utf-8")
    try:
        record.write_text(kept.replace("Task04_Hippocampus", "Task05"), encoding="utf-8")
        assert "Task05" in error("-o", str(folders[1] / "training"))
        record.unlink()
        assert "has no run.json; expected the output folder of an evaluation" in error(
            "-o", str(folders[1] / "training")
        )
    finally:
        record.write_text(kept, encoding="utf-8")


def test_photographs_are_refused():
    parser = ConfigParser({"cases": []})
    with pytest.raises(ConfigError, match="run is of photographs; expected volumes"):
        require_volumes(parser, [], "run")


def test_slices_saved_as_pictures_are_refused():
    parser = ConfigParser({"modalities": ["CT"]})
    require_volumes(parser, [{"case": "a", "image": "a.nii.gz"}], "run")
    with pytest.raises(ConfigError, match=r"run: case b is a picture, b\.jpg; expected volumes"):
        require_volumes(parser, [{"case": "b", "image": "b.jpg"}], "run")


def test_expressions_of_a_run_are_not_plain():
    assert is_plain({"a": [1, None, "b"]})
    assert not is_plain(["a", {"b": "$c"}])
    assert not is_plain({"a": "@d"})
    assert not is_plain({"_target_": "os.system", "command": "touch executed"})


def test_a_bundle_without_output_labels_has_consecutive_values():
    parser = ConfigParser()
    parser.read_config(BUNDLES / "brain_mri_adversarial_normalization_segmentation" / "configs" / "inference.json")
    assert _values(parser, ["CSF", "GM", "WM"], None) == {"CSF": [1], "GM": [2], "WM": [3]}


def test_no_image_is_too_small_for_the_critic(tmp_path):
    (tmp_path / "images").mkdir()
    bundle = "brain_mri_adversarial_normalization_segmentation"
    parser, _, _ = _parsed(bundle, tmp_path / "images", tmp_path / "out")
    assert parser.get_parsed_content("fits") == []  # the step that refuses images smaller than a patch
