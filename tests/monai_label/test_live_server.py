# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A real server, asked by MONAI Label's own client: scripts/test_monai_label.sh."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from segan_monai.label_strategy import NAME as LOWEST_QUALITY
from segan_monai.quality import FitCase, fit_quality, write_quality
from tests.bundles.workflow import BRATS, HIPPOCAMPUS, make_workflow
from tests.monai_label.cases import CLAIMING, SMALL, copy_with_weights, write_case, write_overlay
from tests.monai_label.reading import labels_of, read_as_monai_label
from tests.monai_label.serving import bounded_requests, check_geometry, label_server, say, server_without_script

if os.environ.get("SEGAN_MONAI_LABEL") != "1":
    pytest.skip("the live server: bash scripts/test_monai_label.sh", allow_module_level=True)
client_module = pytest.importorskip("monailabel.client.client", reason="run bash scripts/test_monai_label.sh")

ROOT = Path(__file__).parents[2]
TRAIN_SECONDS = 300

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


every_request_is_bounded = pytest.fixture(autouse=True)(bounded_requests)


def run_in_process(bundle, run_id, **overrides):
    workflow = make_workflow(bundle, run_id, **{**SMALL[bundle], **overrides})
    workflow.initialize()
    workflow.run()
    workflow.finalize()


@pytest.fixture(params=CLAIMING)
def trained(request, tmp_path, oblique):
    """A copy of a bundle, trained for seconds on six cases; returns it, its overlay and the folder of studies."""
    name, folder = request.param, tmp_path / "training"
    entries = []
    for index in range(6):
        image, label = write_case(name, folder / "images", f"case_{index}", index, oblique)
        (folder / "labels").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(label, oblique), folder / "labels" / image.name)
        entries.append({"image": f"images/{image.name}", "label": f"labels/{image.name}"})
    (folder / "datalist.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    bundle = tmp_path / "bundles" / name
    settings = {"datalist": str(folder / "datalist.json"), "ckpt_dir": str(bundle / "models"), "epochs": 30, "folds": 3}
    if name == BRATS:
        settings["regions"] = "msd_brain_tumour"
    run_in_process(name, "training", output_dir=str(tmp_path / "run"), **settings)
    (bundle / "configs").symlink_to(ROOT / "bundles" / name / "configs")
    for index in range(4):
        write_case(name, tmp_path / "studies", f"study_{index}", 10 + index, oblique)
    return bundle, write_overlay(name, tmp_path), tmp_path / "studies"


@pytest.fixture
def server(trained, tmp_path):
    """The address, and the folder of the app."""
    bundle, overlay, studies = trained
    with label_server(tmp_path, bundle, studies, overlay) as served:
        yield served


def dice(found, expected):
    return 2 * np.sum((found > 0) & (expected > 0)) / max(1, np.sum(found > 0) + np.sum(expected > 0))


def train(client, name):
    """Start a training and wait for its end; returns its status."""
    client.train_start(name, {"device": "cpu", "max_epochs": 2, "val_split": 0.34})
    deadline = time.monotonic() + TRAIN_SECONDS
    while (status := client.train_status())["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < deadline, status
        time.sleep(0.5)
    return status


def test_a_viewers_session(server, trained, tmp_path, oblique, write_volume):
    url, app = server
    bundle, _, studies = trained
    name = bundle.name
    client = client_module.MONAILabelClient(url, tmpdir=str(tmp_path))
    say(f"\n== {name}")

    info = client.info()
    say("info: models", list(info["models"]), "trainers", list(info["trainers"]), "labels", info["labels"])
    assert list(info["models"]) == list(info["trainers"]) == [name]
    assert info["models"][name]["type"] == "segmentation"
    served = app / "model" / name
    labels = labels_of(served)
    assert info["models"][name]["labels"] == labels

    def infer(study):
        file, parameters = client.infer(name, study, {"device": "cpu"})
        assert parameters["label_names"] == labels
        check_geometry(file, studies / f"{study}.nii.gz")
        found = nibabel.load(file)
        assert found.get_data_dtype() == np.uint8
        np.testing.assert_allclose(found.affine, oblique, atol=1e-4)
        return np.asanyarray(found.dataobj)

    def workflow(folder):
        """The same weights through `monai.bundle run inference`."""
        settings = {"ckpt_dir": str(served / "models"), "dataset_dir": str(studies)}
        run_in_process(name, "inference", output_dir=str(tmp_path / folder), **settings)
        return np.asanyarray(nibabel.load(tmp_path / folder / "study_3_seg.nii.gz").dataobj)

    truth = write_case(name, tmp_path / "again", "study_3", 13, oblique)[1]
    first = infer("study_3")
    say("infer study_3: values", np.unique(first), "Dice of the foreground", round(dice(first, truth), 3))
    assert set(np.unique(first)) <= {0, *labels.values()}
    assert np.array_equal(first, workflow("first"))
    if name in (HIPPOCAMPUS, BRATS):
        assert set(np.unique(first)) == {0, *labels.values()}
        assert dice(first, truth) > 0.7

    nrrd, _ = client.infer(name, "study_3", {"device": "cpu", "result_extension": ".nrrd"})  # as 3D Slicer asks
    check_geometry(nrrd, studies / "study_3.nii.gz")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(nrrd)).T, first)

    two = write_volume(tmp_path / "two" / "two_channels.nii.gz", np.ones((20, 18, 12, 2), np.float32), oblique)
    with pytest.raises(client_module.MONAILabelClientException) as refused:
        client.infer(name, "", {"device": "cpu"}, file=str(two))
    say("infer of an image with 2 channels:", refused.value.msg)
    modalities = read_as_monai_label(served).get_parsed_content("preprocessing").transforms[0].modalities
    assert "Status: 422" in refused.value.msg
    assert "found 2" in refused.value.msg
    assert all(modality.lower() in refused.value.msg.lower() for modality in modalities)

    for index in range(3):
        study, label = write_case(name, tmp_path / "drawn", f"study_{index}", 10 + index, oblique)
        file = study.with_name("label.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, oblique), file)
        say("save label:", client.save_label(f"study_{index}", str(file), tag="final"))
    saved = nibabel.load(studies / "labels" / "final" / "study_2.nii.gz")
    assert np.array_equal(np.asanyarray(saved.dataobj), label)

    sample = client.next_sample("random", {})
    say("next sample:", sample["id"])
    assert sample["id"] == "study_3"  # the only one without a label

    weights = served / "models" / "model.pt"
    before = weights.read_bytes()
    status = train(client, name)
    lines = [line for line in status["details"] if "epoch " in line and "/2" in line]
    say("train:", status["status"], *(line.split("INFO - ")[-1] for line in lines))
    assert status["status"] == "DONE", "\n".join(status["details"])
    assert weights.read_bytes() != before
    history = (served / "output" / "training" / "history.csv").read_text(encoding="utf-8")
    assert "\n2," in history
    assert "\n3," not in history

    second = infer("study_3")
    say("infer with the new model: values", np.unique(second), "Dice", round(dice(second, truth), 3))
    assert np.array_equal(second, workflow("second"))
    assert [file.name for file in weights.parent.glob("*.pt")] == ["model.pt"]
    assert (bundle / "models" / "model.pt").read_bytes() == before  # the bundle's own weights stay

    wrong = tmp_path / "drawn" / "wrong.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.where(label, 9, 0).astype(np.uint8), oblique), wrong)
    client.save_label("study_0", str(wrong), tag="final")
    status = train(client, name)
    say("train on a label map with the value 9:", status["status"], status["details"][-1])
    assert status["status"] == "ERROR"
    assert "found label values 9" in status["details"][-1]


@pytest.fixture
def estimated(tmp_path, oblique):
    """A bundle with an estimate of quality, its overlay, studies, and the expected Dice of each by an inference."""
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    studies, entries = tmp_path / "studies", []
    for index in range(4):
        image, label = write_case(HIPPOCAMPUS, studies, f"study_{index}", index, oblique)
        file = tmp_path / "labels" / image.name
        file.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(label, oblique), file)
        entries.append({"image": f"studies/{image.name}", "label": f"labels/{image.name}"})
    (tmp_path / "datalist.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    weights = {"ckpt_dir": str(bundle / "models")}
    datalist = str(tmp_path / "datalist.json")
    run_in_process(
        HIPPOCAMPUS, "evaluating", datalist=datalist, output_dir=str(tmp_path / "evaluation"), subset="all", **weights
    )
    content = json.loads((tmp_path / "evaluation" / "signals.json").read_text(encoding="utf-8"))
    cases = [
        FitCase(group, found["image"], found["regions"], {"anterior": 0.3 + 0.1 * number, "posterior": 0.5})
        for number, found in enumerate(content["cases"].values())
        for group in range(10)
    ]
    write_quality(bundle / "models" / "model.pt", fit_quality(cases), content["settings"], {})
    run_in_process(HIPPOCAMPUS, "inference", dataset_dir=str(studies), output_dir=str(tmp_path / "table"), **weights)
    expected: dict[str, float] = {}
    with (tmp_path / "table" / "quality.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            expected[row["case"]] = expected.get(row["case"], 0.0) + float(row["expected_dice"]) / 2
    return bundle, overlay, studies, expected


def test_the_next_image_is_that_of_the_lowest_expected_quality(estimated, tmp_path):
    bundle, overlay, studies, expected = estimated
    order = sorted(expected, key=expected.__getitem__)
    say(f"\n== {LOWEST_QUALITY}: expected Dice by an inference", {name: round(expected[name], 4) for name in order})
    assert len(set(expected.values())) == 4
    with label_server(tmp_path, bundle, studies, overlay) as (url, _):
        client = client_module.MONAILabelClient(url, tmpdir=str(tmp_path))
        assert LOWEST_QUALITY in client.info()["strategies"]
        for name in order[:2]:
            sample = client.next_sample(LOWEST_QUALITY, {})
            say("next sample:", sample["id"], "weight", sample["weight"])
            assert sample["id"] == name
            assert sample["weight"] == pytest.approx(1 - expected[name], abs=2e-4)
            client.save_label(name, str(tmp_path / "labels" / f"{name}.nii.gz"), tag="final")


def test_a_copy_of_the_included_weights_on_monai_labels_own_server(data_dir, tmp_path):
    case, bundle = "hippocampus_001", ROOT / "bundles" / HIPPOCAMPUS
    studies, output = tmp_path / "studies", tmp_path / "inference"
    studies.mkdir()
    shutil.copy(data_dir / "msd_hippocampus" / "imagesTr" / f"{case}.nii.gz", studies)
    settings = {
        "weights": [str(bundle / "models" / "model.pt")],
        "dataset_dir": str(studies),
        "output_dir": str(output),
    }
    workflow = make_workflow(HIPPOCAMPUS, "inference", **settings)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    expected = np.asanyarray(nibabel.load(output / f"{case}_seg.nii.gz").dataobj)
    assert set(np.unique(expected)) == {0, 1, 2}
    with (output / "quality.csv").open(encoding="utf-8") as stream:
        estimate = {row["region"]: float(row["expected_dice"]) for row in csv.DictReader(stream)}
    with server_without_script(tmp_path, bundle, studies) as url:
        client = client_module.MONAILabelClient(url, tmpdir=str(tmp_path))
        file, parameters = client.infer(HIPPOCAMPUS, case, {"device": "cpu"})
    say("infer", case, "quality", parameters["quality"])
    assert np.array_equal(np.asanyarray(nibabel.load(file).dataobj), expected)
    for region, quality in parameters["quality"].items():
        assert quality["expected_dice"] == pytest.approx(estimate[region], abs=2e-4)
