# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The application for MONAI Deploy: ``segan-monai export map``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from segan_monai.cli.bundle_runs import run_arguments
from segan_monai.cli.dicom import _config as read_configs_of_weights
from segan_monai.data.conventions import LABEL_CONVENTIONS
from segan_monai.errors import ConfigError
from segan_monai.export import ExportedBundle
from segan_monai.export.deploy import write_application
from segan_monai.networks import SegANSegmentor
from segan_monai.trained import read_trained_settings, write_trained_settings
from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, OVERLAYS, PANCREAS, SKIN, SMALL_PANCREAS

SMALL = {"base_channels": 4, "full_resolution_channels": 0, "deep_supervision": 0}


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(1)
    torch.save(SegANSegmentor(7, 2, base_channels=4).state_dict(), folder / "small.pt")
    (folder / "quality.json").write_text('{"of": "small.pt"}', encoding="utf-8")
    (folder / "domains.json").write_text('{"profiles": {}}', encoding="utf-8")
    exported = ExportedBundle(BUNDLES / HIPPOCAMPUS, folder / "small.pt", overrides=SMALL)
    return write_application(exported, folder / "map")


def test_files(application):
    about = yaml.safe_load((application / "app" / "app.yaml").read_text(encoding="utf-8"))["application"]
    metadata = json.loads((BUNDLES / HIPPOCAMPUS / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert (about["title"], about["version"]) == (metadata["name"], metadata["version"])
    (rule,) = json.loads((application / "app" / "selections.json").read_text(encoding="utf-8"))["selections"]
    assert rule == {"name": "T1", "conditions": {"Modality": "^MR$", "ImageType": ["!LOCALIZER"]}}
    placed = application / "models" / HIPPOCAMPUS
    config = json.loads((placed / "configs" / "inference.json").read_text(encoding="utf-8"))
    assert {key: config[key] for key in SMALL} == SMALL
    assert "cuda" in config["device"]  # not that of the export
    assert (placed / "models" / "model.pt").is_file()
    assert (placed / "models" / "quality.json").read_text(encoding="utf-8") == '{"of": "small.pt"}'
    assert (placed / "models" / "domains.json").read_text(encoding="utf-8") == '{"profiles": {}}'
    assert (placed / "docs" / "README.md").is_file()
    assert (placed / "LICENSE").read_bytes() == (BUNDLES / HIPPOCAMPUS / "LICENSE").read_bytes()
    needed = (application / "app" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in needed if not line.startswith("#")] == ["monai-deploy-app-sdk >= 4"]
    with pytest.raises(ConfigError, match=r"map is not empty\. Expected an empty or a new folder"):
        write_application(ExportedBundle(placed), application)


def test_one_rule_per_modality_and_no_photographs(tmp_path):
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match=r"takes images of modality .* Expected CT or MR .* photographs"):
        write_application(ExportedBundle(BUNDLES / SKIN, tmp_path / "model.pt"), tmp_path / "skin")
    from segan_monai.export.deploy import _selections

    rules = _selections(ExportedBundle(BUNDLES / BRATS, tmp_path / "model.pt").parser)
    assert [rule["name"] for rule in rules] == ["t1c", "t2", "flair"]
    assert rules[2]["conditions"]["SeriesDescription"] == r"\bflair\b"


def test_an_application_finds_weights_of_an_overlay_where_they_are_placed(tmp_path):
    torch.save({}, tmp_path / "model.pt")
    arguments = BUNDLES / PANCREAS, tmp_path / "model.pt", [OVERLAYS / "ct_pictures.json"], SMALL_PANCREAS
    network = ExportedBundle(*arguments).parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    placed = write_application(ExportedBundle(*arguments), tmp_path / "map") / "models" / PANCREAS
    parser = ConfigParser(ConfigParser.load_config_file(placed / "configs" / "inference.json"))
    parser["bundle_root"] = str(placed)
    assert parser["picture_axes"] == "LA"
    assert Path(parser.get_parsed_content("ckpt_dir")) == placed / "models"
    assert (placed / "models" / "model.pt").is_file()


def test_settings_of_the_export_hold_when_the_application_runs(tmp_path):
    """The settings of the training, beside the weights, would precede those of the config."""
    weights = tmp_path / "small.pt"
    torch.save(SegANSegmentor(7, 2, base_channels=4).state_dict(), weights)
    trained = {**SMALL, "mirror_axes": [], "test_crop_size": [40, 40, -1], "region_rules": None}
    write_trained_settings(weights, {"bundle": HIPPOCAMPUS, "settings": trained})
    (tmp_path / "mirrored.json").write_text('{"mirror_axes": [0]}', encoding="utf-8")
    rules = {"anterior": {"min_voxels": 20}}
    given = {"region_rules": rules, "test_crop_size": [32, 32, -1], "allow_other_settings": "test_crop_size"}
    exported = ExportedBundle(BUNDLES / HIPPOCAMPUS, weights, [tmp_path / "mirrored.json"], given)
    placed = write_application(exported, tmp_path / "map") / "models" / HIPPOCAMPUS
    parser = read_configs_of_weights(run_arguments("dicom", str(placed), tmp_path, tmp_path / "out", (), {}))
    found = {key: parser.get_parsed_content(key) for key in trained}
    assert found == {**SMALL, "mirror_axes": [0], "test_crop_size": [32, 32, -1], "region_rules": rules}
    record = json.loads((placed / "models" / "model.json").read_text(encoding="utf-8"))
    assert record["bundle"] == HIPPOCAMPUS
    assert json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))["settings"] == trained


def test_a_convention_of_the_export_is_recorded_as_label_values(tmp_path):
    settings = {"modalities": ["t1c"], "base_channels": 4, "regions": LABEL_CONVENTIONS["brats2021"].regions}
    torch.save(SegANSegmentor(1, 3, base_channels=4).state_dict(), tmp_path / "model.pt")
    write_trained_settings(tmp_path / "model.pt", {"settings": settings})
    exported = ExportedBundle(BUNDLES / BRATS, tmp_path / "model.pt", overrides={"regions": "brats2023"})
    placed = write_application(exported, tmp_path / "map") / "models" / BRATS
    regions = read_trained_settings(placed / "models" / "model.pt")["regions"]
    assert regions == {"whole_tumour": [1, 2, 3], "tumour_core": [1, 3], "enhancing_tumour": [3]}


@pytest.mark.slow
def test_the_application_runs(application, tmp_path):
    """As MONAI Deploy's runner starts it, without a container."""
    pytest.importorskip("monai.deploy", reason="pip install monai-deploy-app-sdk segan-monai[dicom]")
    import pydicom

    from tests.dicom.reading import sources_of_frames
    from tests.dicom.studies import SECRETS, image, write_series

    (application / "models" / HIPPOCAMPUS / "models" / "quality.json").unlink()  # not one of an estimate
    study = tmp_path / "study"
    sources = write_series(study, image((32, 40, 12)))
    write_series(study, image(), number=2, description="T2")

    def run(models=application / "models"):
        command = [sys.executable, application / "app", "-i", study, "-o", tmp_path, "-m", models]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    ambiguous = run()
    assert ambiguous.returncode != 0
    assert "2 series match the selection T1" in ambiguous.stderr + ambiguous.stdout

    none = run(application / "app")
    assert none.returncode != 0
    assert "has 0 bundles (none). Expected one, with configs/inference.json" in none.stderr + none.stdout

    rules = application / "app" / "selections.json"
    content = json.loads(rules.read_text(encoding="utf-8"))
    content["selections"][0]["conditions"]["SeriesDescription"] = "^T1"
    rules.write_text(json.dumps(content), encoding="utf-8")
    done = run()
    assert done.returncode == 0, done.stderr
    assert not any(word in done.stdout + done.stderr for word in SECRETS)
    (result,) = tmp_path.glob("*_seg.dcm")
    of_series = {pydicom.dcmread(file).SOPInstanceUID for file in sources}
    assert {instance for instance, _ in sources_of_frames(result)} <= of_series
    assert [one.SegmentLabel for one in pydicom.dcmread(result).SegmentSequence] == [
        "Anterior hippocampus",
        "Posterior hippocampus",
    ]
