# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import pytest
from monai.bundle import ConfigParser

from segan_monai.json_files import read_json_object
from segan_monai.quality.file import write_record
from segan_monai.trained import write_trained_settings
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS

pytestmark = pytest.mark.usefixtures("process_as_before")


def test_files(result, bundle):
    (bundle / "LICENSE").unlink()
    (bundle / "configs" / "evaluate.json").unlink()
    assert result("files") == [("FAILED", "missing: LICENSE, configs/evaluate.json")]


def test_metadata(edit, result):
    edit("metadata.json", lambda meta: meta.update(version="0.2.0"))
    assert result("metadata") == [("FAILED", "version 0.2.0 is not in the changelog")]
    edit("metadata.json", lambda meta: meta.pop("task"))
    assert result("metadata") == [("FAILED", "metadata.json: 'task' is a required property")]


def test_document(result, bundle):
    readme = bundle / "docs" / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("## Performance", "## Results"), encoding="utf-8")
    assert result("document") == [("FAILED", "docs/README.md has no section Performance")]
    readme.write_text("# Performance\n" + readme.read_text(encoding="utf-8"), encoding="utf-8")
    ((outcome, detail),) = result("document")
    assert outcome == "FAILED"
    assert detail.startswith("docs/README.md: expected the order Model Overview, Data")


def test_labels(edit, result):
    def drop(meta):
        del meta["network_data_format"]["outputs"]["pred"]["channel_def"]["2"]

    edit("metadata.json", drop)
    assert result("labels") == [("FAILED", "1 values for 2 regions")]


def copy_network(folder):
    """Copy the single network that the hippocampus bundle includes, without its ensemble and estimate of quality."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model.pt", "model.json", "split.json"):
        shutil.copy(BUNDLES / HIPPOCAMPUS / "models" / name, folder)


def test_members_that_no_run_uses(bundle, result):
    for folder in ("", "fold_0"):
        copy_network(bundle / "models" / folder)
    found = "models/model.pt lies beside members of an ensemble, which no run uses: models/fold_0/model.pt."
    assert result("weights") == [("FAILED", f"{found} Move either elsewhere")]
    (bundle / "models" / "model.pt").unlink()
    ((outcome, _),) = result("weights")
    assert outcome == "ok"


def test_members_without_the_estimate_of_the_others(bundle, result):
    models = [bundle / "models" / f"fold_{number}" / "model.pt" for number in range(2)]
    for file in models:
        copy_network(file.parent)
        write_trained_settings(file, read_json_object(file.with_name("model.json")))
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    content = {"version": 1, "settings": {**parser.get_parsed_content("quality_settings"), "members": 1}}
    content["model"] = {
        "signals": [],
        "image": {"features": [], "mean": [], "spread": [], "inverse": []},
        "regions": {},
    }
    write_record(models[0], content)
    ((outcome, detail),) = result("weights")
    assert outcome == "FAILED"
    assert "fold_1" in detail
    assert "quality.json does not exist; an estimate of quality needs it. Fit it with segan-monai fit-quality" in detail
    write_record(models[1], content)
    ((outcome, detail),) = result("weights")
    assert (outcome, detail.endswith("2 networks, 1.2 MiB, with an estimate of quality")) == ("ok", True), detail
    for file in models:
        write_record(file, {**content, "settings": {**content["settings"], "spacing_mm": [2, 2, 2]}})
    ((outcome, detail),) = result("weights")
    assert outcome == "FAILED"
    assert "was made with spacing_mm [2, 2, 2]; expected null as in this run" in detail


def test_network(edit, result):
    edit("metadata.json", lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels=5))
    ((outcome, detail),) = result("network")
    assert outcome == "FAILED"
    assert "5" in detail


def test_a_3d_network_has_the_channels_and_axes_of_the_config(edit, result):
    """The metadata describe the 2.5-D network: 7 channels of planes."""
    in_3d = {"spatial_dims": 3, "num_levels": 2, "patch_size": [16, 16, 12]}
    assert result("network", overrides=in_3d) == [("ok", "as metadata.json says")]
    edit("metadata.json", lambda meta: meta["network_data_format"]["outputs"]["pred"].update(num_channels=5))
    ((outcome, detail),) = result("network", overrides=in_3d)
    assert outcome == "FAILED", "the regions are still those of the metadata"
    assert "5" in detail
