# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A bundle in MONAI Label's app, and what a user is told who has none that can be served."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from segan_monai.errors import ConfigError
from segan_monai.files import sha256_of
from segan_monai.label_bundle import main, place_bundle
from segan_monai.quality.file import read_record, write_record
from tests.bundles.workflow import BRATS, HIPPOCAMPUS
from tests.monai_label.cases import copy_with_weights

SCRIPT = Path(__file__).parents[1] / "scripts" / "monai_label.sh"


def test_configs_are_made_to_fit_what_a_viewer_sends(tmp_path):
    bundle, overlay = copy_with_weights(BRATS, tmp_path)
    placed = place_bundle(bundle, tmp_path / "model", [overlay])
    assert placed == tmp_path / "model" / BRATS
    inference, training, metadata = (
        json.loads((placed / "configs" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("inference", "train", "metadata")
    )
    assert inference["base_channels"] == training["base_channels"] == 4
    assert inference["output_labels"] == "consecutive"
    assert training["regions"] == {"whole_tumour": [1, 2, 3], "tumour_core": [2, 3], "enhancing_tumour": [3]}
    assert training["epochs"] == "@train#trainer#max_epochs"
    assert training["learning_rate"] == pytest.approx(0.002)  # a tenth of the overlay's
    assert len(metadata["network_data_format"]["outputs"]["pred"]["channel_def"]) == 4
    assert (placed / "configs" / "logging.conf").is_file()


def test_other_regions_become_the_labels_of_the_viewer(tmp_path):
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    overlay.write_text(
        json.dumps({**json.loads(overlay.read_text(encoding="utf-8")), "regions": {"head": [4], "tail": [7]}}),
        encoding="utf-8",
    )
    placed = place_bundle(bundle, tmp_path / "model", [overlay])
    metadata = json.loads((placed / "configs" / "metadata.json").read_text(encoding="utf-8"))
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert channels == {"0": "background", "1": "head", "2": "tail"}
    assert json.loads((placed / "configs" / "train.json").read_text(encoding="utf-8"))["regions"] == {
        "head": [1],
        "tail": [2],
    }


def test_a_training_from_a_viewer_omits_the_terms_of_unlabelled_images(tmp_path, caplog):
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    few = {"unlabeled": "use", "consistency_weight": 1.0, "ema_decay": 0.9, "labeled_cases": 4}
    few |= {"annotated_slices": 1, "missing_regions": {"posterior": 0.5}}
    few["cases_per_epoch"] = "$segan_monai.data.labelled_training_cases(@cases, @split)"
    overlay.write_text(json.dumps({**json.loads(overlay.read_text(encoding="utf-8")), **few}), encoding="utf-8")
    placed = place_bundle(bundle, tmp_path / "model", [overlay])
    training = json.loads((placed / "configs" / "train.json").read_text(encoding="utf-8"))
    found = {key: training[key] for key in (*few, "unpaired_weight")}
    omitted = {"unlabeled": "ignore", "consistency_weight": 0, "unpaired_weight": 0}
    hidden = dict.fromkeys(("labeled_cases", "annotated_slices", "missing_regions"))
    assert found == {**omitted, "ema_decay": 0.9, "cases_per_epoch": None, **hidden}
    assert "uses labelled images only, so it omits consistency_weight 1.0" in caplog.text


def test_weights_of_a_training_in_the_app_stay(tmp_path, capsys):
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    arguments = [str(bundle), str(tmp_path / "model"), str(overlay)]
    assert main(arguments) == 0
    assert "(the bundle's)" in capsys.readouterr().out
    served = tmp_path / "model" / HIPPOCAMPUS / "models" / "model.pt"
    trained = {key: value + 1 for key, value in torch.load(served, weights_only=True).items()}
    torch.save(trained, served)
    assert main(arguments) == 0
    assert "from an earlier start or training here" in capsys.readouterr().out
    assert all(torch.equal(value, trained[key]) for key, value in torch.load(served, weights_only=True).items())


def test_the_quality_estimate_is_served_with_its_weights(tmp_path):
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    (bundle / "models" / "quality.json").write_text('{"of": "the bundle"}', encoding="utf-8")
    (bundle / "models" / "domains.json").write_text('{"profiles": {}}', encoding="utf-8")
    placed = place_bundle(bundle, tmp_path / "model", [overlay])
    served = placed / "models" / "quality.json"
    assert served.read_text(encoding="utf-8") == '{"of": "the bundle"}'
    assert (placed / "models" / "domains.json").read_text(encoding="utf-8") == '{"profiles": {}}'
    served.unlink()  # as a training from the viewer does
    place_bundle(bundle, tmp_path / "model", [overlay])
    assert not served.exists(), "the weights in the app are kept, and the estimate is of others"


def test_an_ensemble_is_served_as_one_network_and_not_trained(tmp_path, capsys):
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    for number in range(2):
        folder = tmp_path / f"fold_{number}"
        folder.mkdir()
        state = torch.load(bundle / "models" / "model.pt", weights_only=True)
        torch.save({key: value + number for key, value in state.items()}, folder / "model.pt")
    folders = [str(tmp_path / f"fold_{number}") for number in range(2)]
    settings = json.loads(overlay.read_text(encoding="utf-8"))
    overlay.write_text(json.dumps({**settings, "weights": folders}), encoding="utf-8")
    arguments = [str(bundle), str(tmp_path / "model"), str(overlay)]
    assert [main(arguments), main(arguments)] == [0, 0], "a second start replaces its own file"
    assert "serving an ensemble" in capsys.readouterr().out
    placed = tmp_path / "model" / HIPPOCAMPUS
    assert sorted(file.name for file in (placed / "configs").glob("*train*")) == []
    # as MONAI Label does
    parser = ConfigParser(json.loads((placed / "configs" / "inference.json").read_text(encoding="utf-8")))
    network = parser.get_parsed_content("network_def")
    missing = network.load_state_dict(torch.load(placed / "models" / "model.pt", weights_only=True), strict=False)
    assert missing == ([], [])
    name, weight = next(iter(state.items()))
    for number, member in enumerate(network.members):
        assert torch.equal(member.state_dict()[name], weight + number)
    result = parser.get_parsed_content("inferer")(torch.rand(1, 1, 12, 14, 9), network.eval())
    assert result.shape == (1, 2, 12, 14, 9)


def test_the_estimate_of_an_ensemble_is_served_for_its_one_file(tmp_path):
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    (bundle / "models" / "model.pt").unlink()
    content = {"version": 1, "settings": {"slice_axis": 2}, "model": {"signals": []}, "fit": {}}
    files = [bundle / "models" / f"fold_{number}" / "model.pt" for number in range(2)]
    for number, file in enumerate(files):
        file.parent.mkdir()
        torch.save({key: value + number for key, value in state.items()}, file)
        write_record(file, content)
    served = place_bundle(bundle, tmp_path / "model", [overlay]) / "models" / "model.pt"
    assert read_record([served]) == {**content, "weights_sha256": sha256_of(served)}
    files[1].with_name("quality.json").unlink()
    place_bundle(bundle, tmp_path / "model", [overlay])
    assert not served.with_name("quality.json").exists()


def test_an_ensemble_replaces_no_weights_of_a_training_in_the_app(tmp_path, capsys):
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    place_bundle(bundle, tmp_path / "model", [overlay])
    weights = [str(bundle / "models")] * 2
    overlay.write_text(json.dumps({**json.loads(overlay.read_text(encoding="utf-8")), "weights": weights}))
    assert main([str(bundle), str(tmp_path / "model"), str(overlay)]) == 1
    assert "an ensemble would replace it" in capsys.readouterr().err


def test_weights_of_another_network_are_refused(tmp_path, capsys):
    bundle, _ = copy_with_weights(HIPPOCAMPUS, tmp_path)
    assert main([str(bundle), str(tmp_path / "model")]) == 1  # without the overlay
    assert "model.pt: weights of another architecture" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_name_that_monai_label_takes_for_another_kind_of_model(tmp_path):
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    renamed = bundle.rename(bundle.parent / "hippocampus_detection")
    with pytest.raises(
        ConfigError, match="hippocampus_detection: MONAI Label derives the kind of a model from its folder"
    ):
        place_bundle(renamed, tmp_path / "model", [overlay])


def start(tmp_path, *arguments):
    """The script; whatever it refuses is refused before anything is installed or started."""
    environment = {"PATH": "/usr/bin:/bin", "SEGAN_MONAI_LABEL_VENV": str(tmp_path / "venv")}
    environment["SEGAN_MONAI_LABEL_APP"] = str(tmp_path / "app")
    done = subprocess.run(
        ["bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=60, encoding="utf-8"
    )
    assert not (tmp_path / "venv").exists()
    return done


def test_a_bundle_without_weights_is_answered_with_how_to_get_them(tmp_path):
    bundle, _ = copy_with_weights(HIPPOCAMPUS, tmp_path)
    shutil.rmtree(bundle / "models")
    done = start(tmp_path, bundle, tmp_path)
    assert done.returncode == 1
    assert f"{bundle} has no trained weights (models/model.pt, or models/fold_0" in done.stderr
    assert (
        f"run training --config_file {bundle}/configs/train.json --bundle_root {bundle} --dataset_dir DIR"
        in done.stderr
    )
    assert f"--ckpt_dir {bundle}/models" in done.stderr


def test_bad_arguments_are_named(tmp_path):
    done = start(tmp_path, "liver", tmp_path)
    assert (done.returncode, "there is no bundle liver" in done.stderr) == (1, True)
    assert HIPPOCAMPUS in done.stderr
    bundle, _ = copy_with_weights(HIPPOCAMPUS, tmp_path)
    done = start(tmp_path, bundle, tmp_path / "nowhere")
    assert (done.returncode, f"there is no folder {tmp_path / 'nowhere'} of studies" in done.stderr) == (1, True)
    assert start(tmp_path).returncode == 2
