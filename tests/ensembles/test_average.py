# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The mean of saved probability maps."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.ensembles import average_predictions, read_predictions, refuse_trained_cases
from segan_monai.errors import ConfigError, DataError
from segan_monai.transforms import SaveProbabilitiesd

REGIONS = {"anterior": [1], "posterior": [2]}
SHAPE = (6, 5, 4)
AFFINE = np.diag([1.0, 2, 3, 1])


def write_predictions(folder, maps, form, regions=REGIONS, affine=AFFINE, weights=None):
    """An output folder of an inference, with probabilities (K, ...) by case."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"config": {"regions": regions}}), encoding="utf-8")
    if weights:
        (folder / "inference.json").write_text(json.dumps({"weights": str(weights)}), encoding="utf-8")
    for case, values in maps.items():
        meta = {"filename_or_obj": f"{case}.nii.gz", "original_affine": affine, "spatial_shape": values.shape[1:]}
        map_of_case = MetaTensor(torch.tensor(values).float(), affine=torch.from_numpy(affine), meta=meta)
        SaveProbabilitiesd("p", folder, list(regions), form)({"p": map_of_case})
    return folder


def constant(*values):
    return np.stack([np.full(SHAPE, value) for value in values])


@pytest.fixture
def folders(tmp_path):
    """At one voxel, the first network is sure of the anterior part, and the second prefers the posterior one."""
    first, second = constant(0.2, 0.1), constant(0.1, 0.3)
    first[:, 1, 2, 3], second[:, 1, 2, 3] = (0.9, 0.2), (0.4, 0.6)  # mean .65 and .4
    first[:, 0, 0, 0], second[:, 0, 0, 0] = (0.6, 0.2), (0.3, 0.2)  # mean .45: background
    return [
        write_predictions(tmp_path / "a", {"c1": first, "c2": constant(0.1, 0.9)}, "regions"),
        write_predictions(tmp_path / "b", {"c1": second, "c2": constant(0.2, 0.5)}, True),
    ]


def test_label_maps_are_those_of_the_mean(folders, tmp_path):
    assert average_predictions(folders, tmp_path / "out", save_probabilities="regions") == ["c1", "c2"]
    image = nibabel.load(tmp_path / "out" / "c1_seg.nii.gz")
    expected = np.zeros(SHAPE, np.uint8)
    expected[1, 2, 3] = 1
    assert np.array_equal(np.asanyarray(image.dataobj), expected)
    assert image.get_data_dtype() == np.uint8
    assert np.allclose(image.affine, AFFINE)
    assert np.unique(nibabel.load(tmp_path / "out" / "c2_seg.nii.gz").dataobj).tolist() == [2]
    anterior = nibabel.load(tmp_path / "out" / "c1_probability_anterior.nii.gz").get_fdata()
    assert anterior[1, 2, 3] == pytest.approx(0.65, abs=1e-4)
    again = read_predictions(folders[0])
    assert again.maps("c1")[0][:, 1, 2, 3].tolist() == pytest.approx([0.9, 0.2], abs=1e-4)
    record = json.loads((tmp_path / "out" / "ensemble.json").read_text(encoding="utf-8"))
    assert record["members"] == [str(folder) for folder in folders]


def test_the_mean_of_a_softmax_is_compared_with_the_background(folders, tmp_path):
    """Means of .45 and .2 leave .35 for the background, so the anterior part wins below 0.5; .15 and .2 leave .65."""
    for folder in folders:
        config = {"regions": REGIONS, "postprocessing": {"transforms": [{"_target_": "Activationsd", "softmax": True}]}}
        (folder / "run.json").write_text(json.dumps({"config": config}), encoding="utf-8")
    average_predictions(folders, tmp_path / "out")
    found = np.asanyarray(nibabel.load(tmp_path / "out" / "c1_seg.nii.gz").dataobj)
    expected = np.zeros(SHAPE, np.uint8)
    expected[1, 2, 3] = expected[0, 0, 0] = 1
    assert np.array_equal(found, expected)
    (folders[0] / "run.json").write_text(json.dumps({"config": {"regions": REGIONS}}), encoding="utf-8")
    with pytest.raises(DataError, match=r"are of a sigmoid, those in .* of a softmax"):
        average_predictions(folders, tmp_path / "mixed")
    with pytest.raises(DataError, match=r"are of a sigmoid, those in .* of a softmax"):
        average_predictions(folders, tmp_path / "mixed", {"anterior": {"threshold": 0.4}})


def test_rules_and_values_of_the_label_map(folders, tmp_path):
    rules = {"anterior": {"threshold": 0.4}}
    average_predictions(folders, tmp_path / "out", rules, [7, 9])
    values = np.asanyarray(nibabel.load(tmp_path / "out" / "c1_seg.nii.gz").dataobj)
    assert values[0, 0, 0] == values[1, 2, 3] == 7
    assert np.count_nonzero(values) == 2


def test_photographs_and_single_regions(tmp_path):
    values = [np.full((1, 6, 5), value) for value in (0.3, 0.9)]
    folders = [
        write_predictions(tmp_path / str(number), {"c": of_member}, number == 0 or "regions", {"lesion": [255]})
        for number, of_member in enumerate(values)
    ]
    average_predictions(folders, tmp_path / "out")
    assert np.unique(nibabel.load(tmp_path / "out" / "c_seg.nii.gz").dataobj).tolist() == [1]


def test_photographs_are_refused(folders, tmp_path):
    (folders[1] / "c1_seg.png").touch()
    with pytest.raises(DataError, match=r"b has label maps of photographs \(PNG\).* instead: --weights A,B"):
        average_predictions(folders, tmp_path / "out")


def test_a_stopped_ensemble_knows_the_cases_of_its_members(folders, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "split.json").write_text('{"training": ["c1"], "validation": []}', encoding="utf-8")
    weights = {"weights": str(tmp_path / "model" / "model.pt")}
    (folders[1] / "inference.json").write_text(json.dumps(weights), encoding="utf-8")
    (folders[0] / "c2_probability_anterior.nii.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="c2_probability_anterior"):
        average_predictions(folders, tmp_path / "out")
    assert (tmp_path / "out" / "c1_seg.nii.gz").is_file()
    with pytest.raises(ConfigError, match="1 of 1 cases were trained on by a member"):
        refuse_trained_cases(tmp_path / "out", ["c1"])


def test_members_must_be_of_the_same_images(folders, tmp_path):
    others = {
        "regions": write_predictions(tmp_path / "r", {"c1": constant(0, 0)}, True, {"x": [1], "posterior": [2]}),
        "cases": write_predictions(tmp_path / "c", {"c1": constant(0, 0)}, True),
        "grid": write_predictions(
            tmp_path / "g", {name: constant(0, 0) for name in ("c1", "c2")}, True, affine=np.eye(4)
        ),
    }
    messages = {
        "regions": r"regions in .*a are anterior, posterior, those in .*r are x, posterior",
        "cases": r"case c2 has probability maps in .*a, but not in .*c \(1 cases differ\)",
        "grid": r"case c1: the maps in .*a have shape \(6, 5, 4\).*or their affines differ",
    }
    for name, other in others.items():
        with pytest.raises(DataError, match=messages[name]):
            average_predictions([folders[0], other], tmp_path / "out")


def test_folders_that_cannot_be_members_are_named(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no run\.json"):
        average_predictions([folders[0], tmp_path / "empty"], tmp_path / "out")
    (tmp_path / "empty" / "run.json").write_text(json.dumps({"config": {"regions": REGIONS}}), encoding="utf-8")
    with pytest.raises(DataError, match=r"empty has no probability maps. Run segan-monai predict again"):
        average_predictions([folders[0], tmp_path / "empty"], tmp_path / "out")
    (folders[0] / "c1_probability_posterior.nii.gz").unlink()
    with pytest.raises(DataError, match=r"c1_probability_posterior\.nii\.gz does not exist"):
        average_predictions(folders, tmp_path / "out")
    with pytest.raises(ConfigError, match="two or more folders"):
        average_predictions(folders[:1], tmp_path / "out")
    with pytest.raises(ConfigError, match="named twice"):
        average_predictions([folders[0], folders[0]], tmp_path / "out")
    with pytest.raises(ConfigError, match="is one of the members"):
        average_predictions(folders, folders[0])


def test_maps_that_the_last_run_did_not_make_are_omitted(folders, tmp_path, caplog):
    """They may be of other weights, whose training cases nobody knows."""
    cases = {"c1": {"status": "finished"}, "c3": {"status": "finished"}}
    (folders[0] / "inference.json").write_text(json.dumps({"weights": [], "cases": cases}), encoding="utf-8")
    (folders[1] / "metrics.csv").write_text("case,region,dice\nc1,anterior,0.5\n", encoding="utf-8")
    for folder in folders:
        assert list(read_predictions(folder).files) == ["c1"]
        assert f"{folder}: omitted the probability maps of c2, which the last run there did not finish" in caplog.text
    cases["c1"]["status"] = "failed"
    (folders[0] / "inference.json").write_text(json.dumps({"weights": [], "cases": cases}), encoding="utf-8")
    with pytest.raises(DataError, match="has no probability maps"):
        read_predictions(folders[0])


def test_a_case_without_maps_is_named(folders):
    with pytest.raises(DataError, match=r"/a has no probability maps of case c3\. Run segan-monai predict again"):
        read_predictions(folders[0]).maps("c3")


@pytest.mark.parametrize(
    ("settings", "trained_on"),
    [
        ({"weights": None, "ckpt_dir": "{0}/model"}, {"c1"}),
        ({"weights": None, "ckpt_dir": "model"}, {"c1"}),
        ({"weights": "{0}/model", "ckpt_dir": "other"}, {"c1"}),
        (
            {"weights": ["deleted", "{0}/model/model.pt", "other"], "ckpt_dir": "$@bundle_root + '/models'"},
            {"c1", "c2"},
        ),
        ({"weights": None, "ckpt_dir": "$@bundle_root + '/models'"}, set()),
        ({"weights": "@ckpt_dir", "ckpt_dir": "{0}/model"}, set()),
        ({"weights": "deleted", "ckpt_dir": "{0}/model"}, set()),
        ({}, set()),
    ],
)
def test_members_that_evaluations_saved_know_the_cases_of_their_weights(folders, tmp_path, settings, trained_on):
    """An evaluation has no journal, so its settings name the weights."""
    for name, case in (("model", "c1"), ("other", "c2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").touch()
        split = {"training": [case], "validation": []}
        (tmp_path / name / "split.json").write_text(json.dumps(split), encoding="utf-8")
    config = json.loads(json.dumps({"regions": REGIONS, **settings}).replace("{0}", tmp_path.as_posix()))
    record = {"config": config, "working_directory": str(tmp_path)}
    (folders[1] / "run.json").write_text(json.dumps(record), encoding="utf-8")
    average_predictions(folders, tmp_path / "out")
    if not trained_on:
        refuse_trained_cases(tmp_path / "out", ["c1", "c2"])
        return
    with pytest.raises(ConfigError, match=f"{len(trained_on)} of 2 cases were trained on .* such as c1 "):
        refuse_trained_cases(tmp_path / "out", ["c1", "c2"])


def test_the_command_and_an_evaluation_of_cases_that_a_member_was_trained_on(folders, tmp_path):
    (tmp_path / "model").mkdir()
    split = {"training": ["c1"], "validation": []}
    (tmp_path / "model" / "split.json").write_text(json.dumps(split), encoding="utf-8")
    weights = {"weights": str(tmp_path / "model" / "model.pt")}
    (folders[1] / "inference.json").write_text(json.dumps(weights), encoding="utf-8")
    out = tmp_path / "out"
    arguments = ["ensemble", *map(str, folders), "-o", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--region_rules", '{"anterior": {"threshold": 0.4}}'])
    assert result.exit_code == 0, result.output
    assert "2 cases, mean of 2 predictions; written:" in result.output
    references = shutil.copytree(out, tmp_path / "references")
    evaluation = [
        "evaluate",
        "--predictions",
        str(out),
        "--references",
        str(references),
        "-o",
        str(tmp_path / "evaluation"),
    ]
    error = CliRunner().invoke(app, evaluation).exception
    assert isinstance(error, ConfigError)
    assert "1 of 2 cases were trained on by a member" in str(error)
    assert "such as c1 (" in str(error)
    (out / "c1_seg.nii.gz").unlink()
    (references / "c1_seg.nii.gz").unlink()
    assert CliRunner().invoke(app, evaluation).exit_code == 0
    wrong = CliRunner().invoke(app, [*arguments, "--region_rules", "{anterior"])
    assert "--region-rules is not valid JSON" in str(wrong.exception)
