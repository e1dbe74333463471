# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""An ensemble that a bundle includes, in ``models`` or in the folder of an overlay, in whatever uses the bundle."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

import segan_monai
from segan_monai.errors import ConfigError
from segan_monai.export import ExportedBundle, include_weights
from segan_monai.label_bundle import main, place_bundle
from segan_monai.trained import write_trained_settings
from segan_monai.verify import run_checks
from tests.bundles.test_ensembles import refusal, write_members
from tests.bundles.workflow import BUNDLES, OVERLAYS, PANCREAS, SMALL_PANCREAS, make_workflow, run_workflow
from tests.forked import run_python
from tests.test_label_bundle import start

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]

PICTURES = OVERLAYS / "ct_pictures.json"
SETTINGS = {key: value for key, value in SMALL_PANCREAS.items() if key != "device"}


@pytest.fixture
def bundle(slices, tmp_path):
    """The pancreas bundle with two small networks for pictures, saved in float16; each left out another patient."""
    folder = tmp_path / PANCREAS
    shutil.copytree(BUNDLES / PANCREAS / "configs", folder / "configs")
    shutil.copytree(BUNDLES / PANCREAS / "docs", folder / "docs")
    names = sorted(file.name.split(".")[0] for file in (slices / "images").iterdir())
    patients = sorted({name.split("-")[0] for name in names})
    runs = write_members(tmp_path, PANCREAS, SMALL_PANCREAS, common="segmentor.")
    for number, run in enumerate(runs):
        trained = [name for name in names if name.startswith(patients[number])]
        split = {"training": trained, "validation": [], "subjects": {name: name.split("-")[0] for name in names}}
        (tmp_path / run / "split.json").write_text(json.dumps(split), encoding="utf-8")
        write_trained_settings(tmp_path / run / "model.pt", {"settings": SETTINGS, "network": "LSNet"})
    include_weights(runs, folder / "models" / "ct_pictures", half=True)
    shutil.rmtree(runs[0])
    shutil.rmtree(runs[1])
    return folder


@pytest.fixture
def small(tmp_path):
    """The overlay of the small networks."""
    file = tmp_path / "small.json"
    file.write_text(json.dumps(SETTINGS), encoding="utf-8")
    return file


def label_maps(folder):
    return {
        file.name: np.asanyarray(nibabel.load(file).dataobj) for file in sorted(folder.glob("*_probabilities.nii.gz"))
    }


def test_inference_uses_it_without_being_told(bundle, slices, tmp_path):
    settings = {**SMALL_PANCREAS, "dataset_dir": str(slices), "save_overlays": False, "save_probabilities": True}
    settings |= {"bundle_root": str(bundle)}

    def probabilities(name, **more):
        run_workflow(PANCREAS, "inference", "ct_pictures.json", output_dir=str(tmp_path / name), **settings, **more)
        return label_maps(tmp_path / name)

    folders = [str(bundle / "models" / "ct_pictures" / f"fold_{number}") for number in range(2)]
    included = probabilities("included")
    first, second = (probabilities(f"alone_{number}", ckpt_dir=folder) for number, folder in enumerate(folders))
    assert len(included) == 8
    for name, found in included.items():
        assert np.abs(first[name] - second[name]).max() > 0.01
        assert np.abs(found - np.maximum(first[name], second[name])).max() < 1e-4, "one segmentor, two localizers"


def test_commands_use_it_and_evaluate_no_patient_that_a_member_was_trained_on(bundle, slices, tmp_path):
    def command(*words):
        small = [word for key, value in SETTINGS.items() for word in (f"--{key}", json.dumps(value))]
        overlay = ["--overlay", "ct_pictures.json", "--device", "cpu"]
        done = run_python("-m", "segan_monai", *words, *overlay, *small)
        assert done.returncode == 0, done.stdout + done.stderr

    command("predict", bundle, "-i", slices, "-o", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 8
    command("evaluate", bundle, slices, "-o", tmp_path / "held_out")
    trained = set()
    for number in range(2):
        split = bundle / "models" / "ct_pictures" / f"fold_{number}" / "split.json"
        trained |= set(json.loads(split.read_text(encoding="utf-8"))["training"])
    assert len(trained) == 4
    evaluated = {file.name.removesuffix("_seg.nii.gz") for file in (tmp_path / "held_out").glob("*_seg.nii.gz")}
    assert len(evaluated) == 4
    assert not evaluated & trained
    settings = {**SMALL_PANCREAS, "dataset_dir": str(slices), "bundle_root": str(bundle), "subset": "all"}
    workflow = make_workflow(PANCREAS, "evaluating", "ct_pictures.json", **settings, output_dir=str(tmp_path / "all"))
    assert "4 of 8 cases were trained on by a member of the ensemble" in refusal(workflow)


def test_verification_loads_every_member_and_compares_its_digest(bundle):
    def weights():
        (check,) = run_checks(bundle, names=["weights"])
        return check.result, check.detail

    result, detail = weights()
    assert (result, detail.startswith("ct_pictures: 2 networks, ")) == ("ok", True)
    member = bundle / "models" / "ct_pictures" / "fold_1" / "model.pt"
    state = torch.load(member, weights_only=True)
    name = next(iter(state))
    torch.save({**state, name: state[name] + 1}, member)
    assert weights() == ("FAILED", f"{member}: another file than model.json beside it names, by its SHA-256")
    torch.save({**state, name: state[name][:1]}, member)
    assert "fold_1/model.pt: weights of another architecture" in weights()[1]


def test_monai_label_serves_it_as_one_network(bundle, small, tmp_path, capsys):
    assert main([str(bundle), str(tmp_path / "app"), str(PICTURES), str(small)]) == 0
    assert "serving an ensemble" in capsys.readouterr().out
    placed = tmp_path / "app" / PANCREAS
    parser = ConfigParser(json.loads((placed / "configs" / "inference.json").read_text(encoding="utf-8")))
    parser["bundle_root"] = str(placed)
    assert parser.get_parsed_content("weight_files") == [placed / "models" / "model.pt"]
    network = parser.get_parsed_content("network_def")
    served = torch.load(placed / "models" / "model.pt", weights_only=True)
    assert network.load_state_dict(served) == ([], [])
    for number, member in enumerate(network.members):
        file = bundle / "models" / "ct_pictures" / f"fold_{number}" / "model.pt"
        saved = torch.load(file, weights_only=True)
        assert all(torch.equal(value, saved[name].to(value.dtype)) for name, value in member.state_dict().items())


def test_one_network_of_an_overlay_is_served_from_the_folder_of_models(bundle, small, tmp_path):
    pictures = bundle / "models" / "ct_pictures"
    for file in (pictures / "fold_1").iterdir():
        file.rename(pictures / file.name)
    placed = place_bundle(bundle, tmp_path / "app", [PICTURES, small])
    assert (placed / "models" / "model.pt").read_bytes() == (pictures / "model.pt").read_bytes()
    parser = ConfigParser(json.loads((placed / "configs" / "inference.json").read_text(encoding="utf-8")))
    parser["bundle_root"] = str(placed)
    assert parser.get_parsed_content("ckpt_dir") == str(placed / "models"), "where an estimate would be looked for"


def test_the_launcher_finds_members_and_weights_of_an_overlay(bundle, tmp_path):
    nowhere = tmp_path / "nowhere"
    assert "has no trained weights" in start(tmp_path, bundle, nowhere).stderr
    assert f"there is no folder {nowhere} of studies" in start(tmp_path, bundle, nowhere, PICTURES).stderr
    for member in (bundle / "models" / "ct_pictures").iterdir():
        member.rename(bundle / "models" / member.name)
    assert f"there is no folder {nowhere} of studies" in start(tmp_path, bundle, nowhere).stderr


def test_python_gets_an_ensemble_and_an_export_is_refused(bundle, small):
    for member in (bundle / "models" / "ct_pictures").iterdir():
        shutil.copytree(member, bundle / "models" / member.name)
    network = segan_monai.load_network(bundle)
    assert len(network.members) == 2
    assert not network.training
    for exported in (ExportedBundle(bundle), ExportedBundle(bundle, overlays=[PICTURES, small])):
        with pytest.raises(ConfigError, match=r"fold_1/model\.pt: 2 files of weights, an ensemble"):
            _ = exported.network
