# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights of trainings that are copied into a bundle."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.errors import ConfigError
from segan_monai.export import include_weights
from segan_monai.export.single_weights import single_weights
from segan_monai.files import sha256_of
from segan_monai.member_weights import network_files, weight_files
from segan_monai.networks import load_weights, network_of_weights
from segan_monai.quality.file import has_quality_file, read_record, write_record
from segan_monai.trained import changed_files, read_trained_settings, write_trained_settings
from segan_monai.trained.included import included_weights_dir

QUALITY = {"version": 1, "settings": {"slice_axis": 2}, "model": {"signals": []}, "fit": {"cases": 30}}


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def write_training(folder, seed, **settings):
    folder.mkdir()
    torch.manual_seed(seed)
    made = network()
    made(torch.rand(2, 1, 8, 8))  # the statistics of the batch norm move
    torch.save(made.state_dict(), folder / "model.pt")
    (folder / "split.json").write_text(json.dumps({"training": [f"of {seed}"], "validation": []}), encoding="utf-8")
    write_record(folder / "model.pt", QUALITY)
    (folder / "quality_critic").mkdir()
    (folder / "quality_critic" / "critic.json").write_text("{}", encoding="utf-8")
    (folder / "domains.json").write_text("{}", encoding="utf-8")
    write_trained_settings(folder / "model.pt", {"settings": settings, "network": "Sequential"})
    return folder


def test_float16_weights_load_as_the_float32_numbers_that_they_are(tmp_path):
    training = write_training(tmp_path / "run", 0)
    (file,) = include_weights([training], tmp_path / "models", half=True)
    saved = torch.load(file, weights_only=True)
    assert {value.dtype for value in saved.values()} == {torch.float16, torch.int64}
    loaded, original = load_weights(network(), file).state_dict(), torch.load(training / "model.pt", weights_only=True)
    for name, value in loaded.items():
        assert value.dtype == original[name].dtype
        assert torch.equal(
            value, original[name].half().to(value.dtype) if value.is_floating_point() else original[name]
        )
    assert read_record([file]) == {**QUALITY, "weights_sha256": sha256_of(file)}, "not those of float32"
    assert file.with_name("quality_critic").is_dir(), "it does not depend on the weights"
    assert not torch.equal(loaded["0.weight"], original["0.weight"])
    assert torch.allclose(loaded["0.weight"], original["0.weight"], rtol=2**-11, atol=0)


def test_an_ensemble_has_what_belongs_to_each_member_and_new_digests(tmp_path, caplog):
    runs = [write_training(tmp_path / name, number, size=7) for number, name in enumerate(("a", "b"))]
    done = CliRunner().invoke(app, ["include", *map(str, runs), "-o", str(tmp_path / "models"), "--half"])
    assert done.exit_code == 0, repr(done.exception)
    files = weight_files(None, tmp_path / "models")
    assert [file.parent.name for file in files] == ["fold_0", "fold_1"]
    for number, file in enumerate(files):
        assert sorted(path.name for path in file.parent.iterdir()) == [
            "domains.json", "model.json", "model.pt", "quality.json", "split.json",
        ]  # fmt: skip
        assert json.loads(file.with_name("split.json").read_text(encoding="utf-8"))["training"] == [f"of {number}"]
        record = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        assert record["weights"]["sha256"] == sha256_of(file) != sha256_of(runs[number] / "model.pt")
        assert (read_trained_settings(file), changed_files(file)) == ({"size": 7}, [])
    assert not caplog.records, "a digest of the float32 weights would be warned of"
    assert has_quality_file(files)
    assert read_record(files) == {**QUALITY, "weights_sha256": sha256_of(files[0])}
    ensemble = network_of_weights(network(), files)
    assert [member[0].weight.dtype for member in ensemble.members] == [torch.float32] * 2
    files[1].write_bytes(files[0].read_bytes())
    assert changed_files(files[1]) == [files[1]]


def test_one_training_is_copied_as_it_is(tmp_path):
    training = write_training(tmp_path / "run", 0)
    (file,) = include_weights([training], tmp_path / "models")
    assert file == tmp_path / "models" / "model.pt"
    assert file.read_bytes() == (training / "model.pt").read_bytes()
    assert file.with_name("quality.json").read_bytes() == (training / "quality.json").read_bytes()
    assert (file.with_name("quality_critic") / "critic.json").is_file()
    with pytest.raises(ConfigError, match=r"models has weights, .*model\.pt\. Move them elsewhere"):
        include_weights([training], tmp_path / "models")


def test_a_network_beside_an_ensemble_is_for_what_takes_one(tmp_path):
    runs = [write_training(tmp_path / name, number, size=7) for number, name in enumerate(("a", "b", "alone"))]
    models = tmp_path / "models"
    command = ["include", *map(str, runs[:2]), "--network", str(runs[2]), "-o", str(models)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, repr(done.exception)
    members = [models / "folds" / f"fold_{number}" / "model.pt" for number in range(2)]
    assert weight_files(None, models) == members
    assert network_files(models) == [models / "model.pt"] == [single_weights(None, models)]
    assert has_quality_file(members)
    assert (models / "quality_critic").is_dir()
    record = json.loads((models / "model.json").read_text(encoding="utf-8"))
    assert (record["settings"], changed_files(models / "model.pt")) == ({"size": 7}, [])
    assert record["ensemble"] == {"folder": "folds", "members": 2}
    shutil.copytree(models, tmp_path / "incomplete")
    shutil.rmtree(tmp_path / "incomplete" / "folds" / "fold_1")
    with pytest.raises(ConfigError, match=r"folds has 1 networks; expected the 2 that .*model\.json names\. Copy the"):
        weight_files(None, tmp_path / "incomplete")
    shutil.rmtree(tmp_path / "incomplete" / "folds")
    assert weight_files(None, tmp_path / "incomplete") == [tmp_path / "incomplete" / "model.pt"]
    # a training into the folder writes its own model.json; a file that is replaced alone is another network, too
    (models / "model.pt").write_bytes((runs[0] / "model.pt").read_bytes())
    assert weight_files(None, models) == [models / "model.pt"]
    with pytest.raises(ConfigError, match=r"1 training besides the network .*; expected an ensemble, 2 or more"):
        include_weights(runs[:1], tmp_path / "other", network=runs[2])


def test_an_estimate_that_members_do_not_share_is_copied_and_warned_of(tmp_path, caplog):
    runs = [write_training(tmp_path / name, number) for number, name in enumerate(("a", "b"))]
    (runs[1] / "quality.json").unlink()
    files = include_weights(runs, tmp_path / "models")
    assert [file.with_name("quality.json").is_file() for file in files] == [True, False]
    (warning,) = caplog.messages
    assert "models will have no estimate of their quality: expected quality.json of one fit beside every" in warning


def test_what_cannot_be_included_is_refused_before_anything_is_written(tmp_path):
    good, other = write_training(tmp_path / "good", 0, size=7), write_training(tmp_path / "other", 1, size=8)
    with pytest.raises(ConfigError, match=r"size is 7 for .*, but 8 for"):
        include_weights([good, other], tmp_path / "models")
    large = write_training(tmp_path / "large", 1, size=7)
    state = torch.load(large / "model.pt", weights_only=True)
    state["1.running_var"][1] = 7e4
    torch.save(state, large / "model.pt")
    with pytest.raises(ConfigError, match=r"large.model\.pt: another file than .*large.model\.json names, by its SHA"):
        include_weights([good, large], tmp_path / "models")
    write_trained_settings(large / "model.pt", {"settings": {"size": 7}, "network": "Sequential"})
    write_record(large / "model.pt", QUALITY)
    with pytest.raises(ConfigError, match=r"weight '1.running_var' has numbers up to 7e\+04; expected at most 65504"):
        include_weights([good, large], tmp_path / "models", half=True)
    with pytest.raises(ConfigError, match=r"good.model\.pt and .*good.model\.pt are the same weights"):
        include_weights([good, large, good / "model.pt"], tmp_path / "models")
    (tmp_path / "unfinished").mkdir()
    with pytest.raises(ConfigError, match=r"^\S*unfinished.model\.pt does not exist; expected the output folder of a"):
        include_weights([tmp_path / "unfinished"], tmp_path / "models")
    ruled = write_training(tmp_path / "ruled", 2, size=7, region_rules={"a": {"threshold": 0.4}})
    plain = write_training(tmp_path / "plain", 3, size=7, region_rules=None)
    with pytest.raises(ConfigError, match=r"region_rules is .* by --weights of each run, and set --region_rules there"):
        include_weights([ruled, plain], tmp_path / "models")
    (plain / "quality.json").write_bytes((good / "quality.json").read_bytes())
    with pytest.raises(ConfigError, match=r"plain.quality\.json was fitted for other weights than model\.pt"):
        include_weights([plain], tmp_path / "models", half=True)
    (good / "split.json").unlink()
    with pytest.raises(ConfigError, match=r"split\.json does not exist; expected the settings and the split"):
        include_weights([good], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_folder_of_an_overlay(tmp_path):
    bundle = tmp_path / "a #1"
    assert included_weights_dir({}, bundle) == bundle / "models"
    config = {"included_weights_dir": "$@bundle_root + '/models/pictures'", "bundle_root": "elsewhere"}
    assert included_weights_dir(config, bundle) == bundle / "models" / "pictures"
