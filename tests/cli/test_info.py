# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import torch
from typer.testing import CliRunner

from segan_monai.bundles_by_name import BUNDLES, bundle_names
from segan_monai.cli.main import app
from segan_monai.installed import describe_bundle

HIPPOCAMPUS = "hippocampus_mri_segan_segmentation"


def test_json_lists_bundles_weights_versions_and_devices():
    done = CliRunner().invoke(app, ["info", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [bundle["bundle"] for bundle in found["bundles"]] == bundle_names()
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["devices"][-1] == {**found["devices"][-1], "device": "cpu", "threads": torch.get_num_threads()}
    bundle = next(bundle for bundle in found["bundles"] if bundle["bundle"] == HIPPOCAMPUS)
    assert bundle["classes"] == ["anterior", "posterior"]
    *members, weights = bundle["weights"]
    assert [member["file"] for member in members] == [f"models/folds/fold_{number}/model.pt" for number in range(5)]
    recorded = json.loads((BUNDLES / HIPPOCAMPUS / "models" / "model.json").read_text(encoding="utf-8"))
    assert weights["sha256"] == recorded["weights"]["sha256"]
    assert (weights["file"], weights["license"]) == ("models/model.pt", "CC-BY-SA-4.0")


def test_text_names_weights_and_bundles_without_any():
    done = CliRunner().invoke(app, ["info"])
    lines = done.stdout.splitlines()
    assert "  weights: models/model.pt, 0.6 MB, CC-BY-SA-4.0" in lines
    first = next(number for number, line in enumerate(lines) if line.startswith("brats_mri_segan_segmentation"))
    assert lines[first + 2 : first + 4] == [
        "  classes: whole_tumour, tumour_core, enhancing_tumour",
        "  weights: none; train your own",
    ]


def test_every_included_weight_has_a_licence():
    for name in bundle_names():
        assert all(weights["license"] for weights in describe_bundle(BUNDLES / name)["weights"]), name


def test_a_bundle_without_segments_names_its_channels(tmp_path):
    shutil.copytree(BUNDLES / HIPPOCAMPUS, tmp_path / "own")
    file = tmp_path / "own" / "configs" / "metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    del metadata["segments"]
    file.write_text(json.dumps(metadata), encoding="utf-8")
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values()
    assert describe_bundle(tmp_path / "own")["classes"] == [name for name in channels if name != "background"]


def test_the_shell_completes_commands():
    variables = {"_SEGAN_MONAI_COMPLETE": "complete_bash", "COMP_WORDS": "segan-monai repr", "COMP_CWORD": "1"}
    done = CliRunner().invoke(app, [], prog_name="segan-monai", env=variables)
    assert done.output.split() == ["reproduce"]
