# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Whole command lines, checked; and the quick look that a training takes by itself."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
import torch

from segan_monai.check import check_command_line
from segan_monai.errors import UserError, user_error_in
from tests.bundles.workflow import BRATS, BUNDLES, FILES, HIPPOCAMPUS, PANCREAS, SKIN, SMALL, make_workflow

pytestmark = pytest.mark.slow

SIZES = {**SMALL, "batch_size": 4, "slices_per_volume": 2, "folds": 2}
BRAIN = "brain_mri_adversarial_normalization_segmentation"


@pytest.fixture
def hippocampi(tmp_path, write_volume):
    """Four small cases with a datalist."""
    folder = tmp_path / "data"
    random = np.random.default_rng(0)
    entries = []
    for index in range(4):
        label = np.zeros((18, 24, 12), np.uint8)
        label[5:10, 6:12, 3:9], label[5:10, 12:18, 3:9] = 1, 2
        label[index, 0, 0] = 1
        image = (random.normal(100, 10, label.shape) + 50 * label).astype(np.float32)
        write_volume(folder / f"image_{index}.nii.gz", image, np.eye(4))
        write_volume(folder / f"label_{index}.nii.gz", label, np.eye(4))
        entries.append({"image": f"image_{index}.nii.gz", "label": f"label_{index}.nii.gz", "case": f"c{index}"})
    (folder / "dataset.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    return folder


def arguments(tmp_path, data, bundle=HIPPOCAMPUS, run_id="training", file=None, **overrides):
    given = {
        "run_id": run_id,
        "config_file": [str(BUNDLES / bundle / "configs" / (file or FILES[run_id]))],
        "dataset_dir": str(data),
        "output_dir": str(tmp_path / "out"),
        "ckpt_dir": str(tmp_path / "models"),
    }
    return given | (SIZES if run_id == "training" else SMALL) | overrides


def check(*positional, quick=False, **overrides):
    report, _ = check_command_line(arguments(*positional, **overrides), quick=quick, processes=1)
    return report


def messages(report, rule):
    return [finding.message for finding in report.findings if finding.rule == rule]


def test_a_good_training_passes_and_leaves_only_the_folder_check(hippocampi, tmp_path):
    report = check(tmp_path, hippocampi)
    assert report.findings == []
    assert report.measured["cases"] == {"training": 2, "validation": 2}
    assert report.measured["step"]["device"] == "cpu"
    assert report.measured["step"]["resident_peak_gib"] > 0.1
    # two cases of a float32 image and two regions of a byte, 18 x 24 x 12 voxels each
    assert report.measured["cache_gib"] == pytest.approx(2 * 18 * 24 * 12 * (4 + 2) / 2**30, abs=1e-4)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["check"]
    assert sorted(path.name for path in (tmp_path / "out" / "check").iterdir()) == ["cases.jsonl", "check.json"]
    assert not (tmp_path / "models").exists()
    written = json.loads((tmp_path / "out" / "check" / "check.json").read_text(encoding="utf-8"))
    assert written["passed"] is True
    assert list(written["rules"])[:3] == ["configs", "keys", "ids"]


def test_evaluation_and_inference_of_trained_weights(hippocampi, tmp_path):
    network = make_workflow(HIPPOCAMPUS, "inference", output_dir=str(tmp_path / "x"), initialize=[])
    network.initialize()
    (tmp_path / "models").mkdir()
    torch.save(network.parser.get_parsed_content("network_def").state_dict(), tmp_path / "models" / "model.pt")
    split = {"training": ["c0", "c1"], "validation": ["c2", "c3"]}
    (tmp_path / "models" / "split.json").write_text(json.dumps(split), encoding="utf-8")
    report = check(tmp_path, hippocampi, run_id="evaluating")
    assert report.findings == []
    assert report.measured["cases"] == {"evaluated": 2}
    assert not list((tmp_path / "out").glob("*.nii.gz")), "what the step writes is thrown away"
    report = check(tmp_path, hippocampi, run_id="inference")
    assert report.findings == []
    assert report.measured["cases"] == {"cases": 4}


def test_cases_of_a_patient_that_the_weights_have_seen(hippocampi, tmp_path):
    (tmp_path / "models").mkdir()
    split = {"training": ["c0", "c1"], "validation": ["c2", "c3"]}
    (tmp_path / "models" / "split.json").write_text(json.dumps(split), encoding="utf-8")
    datalist = json.loads((hippocampi / "dataset.json").read_text(encoding="utf-8"))
    datalist["training"][1]["subject"] = datalist["training"][2]["subject"] = "Anna"
    (hippocampi / "dataset.json").write_text(json.dumps(datalist), encoding="utf-8")
    report = check(tmp_path, hippocampi, run_id="evaluating", quick=True)
    assert messages(report, "subjects")[0].startswith("subject Anna is trained on (c1) and judged on (c2).")


@pytest.mark.parametrize(
    ("overrides", "rule", "message"),
    [
        ({"learning_rte": 1}, "keys", "unknown key --learning_rte"),
        ({"config_file": ["no.json"]}, "configs", "config file no.json: there is no such file"),
        ({"device": "cuda:77"}, "device", "--device cuda:77 cannot be used"),
        ({"device": "gpu"}, "device", "--device gpu cannot be used"),
        ({"dataset_dir": "nowhere"}, "data set", "nowhere): there is no such file or folder. Set --dataset_dir"),
        ({"folds": 9}, "data set", "9 folds"),
        ({"regions": {"anterior": []}}, "values", "region 'anterior' needs one or more positive integer label values"),
        ({"regions": {"anterior": [1]}}, "labels", "found label values 2 (180 voxels) that are in no region"),
        ({"base_channels": 0}, "values", "--base_channels 0: expected a whole number of at least 1 "),
        ({"network_def#base_channels": 0}, "network", "base_channels 0 and num_levels 4 must all be at least 1"),
        ({"loss_layers": [9]}, "values", "--loss_layers [9]: the critic has layers 0 to 3 only."),
        ({"loss#layers": [9]}, "step", "layers is [9]; expected indices from 0 to 3, the layers of the critic."),
        ({"train#trainer": {"_target_": "SegANTrainer"}}, "classes", "SegANTrainer needs critic, critic_optimizer"),
        ({"preprocessing#0#modality": "T1"}, "classes", "LoadCased takes no 'modality'. Did you mean modalities"),
    ],
)
def test_what_stops_a_training_is_found(hippocampi, tmp_path, overrides, rule, message):
    found = messages(check(tmp_path, hippocampi, **overrides), rule)
    assert any(message in text for text in found), found


def test_a_mistyped_run_id(hippocampi, tmp_path):
    report, folder = check_command_line(arguments(tmp_path, hippocampi) | {"run_id": "trainig"})
    assert messages(report, "keys") == [
        "nothing to run is called 'trainig'. Did you mean training? This config has training, run."
    ]
    assert folder is None


def test_missing_weights(hippocampi, tmp_path):
    report = check(tmp_path, hippocampi, run_id="inference", quick=True)
    assert [finding.level for finding in report.findings] == ["error"]
    assert messages(report, "initialize")[0].endswith("set --ckpt_dir to the folder that contains model.pt.")


def test_weights_of_another_architecture(hippocampi, tmp_path):
    (tmp_path / "models").mkdir()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "models" / "model.pt")
    report = check(tmp_path, hippocampi, run_id="inference", quick=True)
    assert "model.pt" in messages(report, "initialize")[0]


def test_a_network_that_the_metadata_do_not_describe_is_a_warning(hippocampi, tmp_path):
    for name in ("image_0", "image_1", "image_2", "image_3"):
        image = nibabel.load(hippocampi / f"{name}.nii.gz")
        two = np.stack([image.get_fdata(), image.get_fdata() + 1], -1).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(two, image.affine), hippocampi / f"{name}.nii.gz")
    overrides = {"in_channels": 2, "neighbours": 0, "preprocessing#0#num_channels": 2}
    report = check(tmp_path, hippocampi, **overrides)
    assert [finding.rule for finding in report.errors] == []
    assert "the metadata describe another network" in messages(report, "network")[0]


def test_a_run_with_other_regions_is_not_what_the_metadata_describe(hippocampi, tmp_path):
    report = check(tmp_path, hippocampi, quick=True, regions={"whole": [1, 2]})
    assert report.findings == []
    assert report.rules["network"] == "built; --regions: not as in the metadata of the bundle"


def test_a_damaged_case_and_leakage_between_the_parts(hippocampi, tmp_path):
    with (hippocampi / "image_3.nii.gz").open("r+b") as file:
        file.truncate(3000)
    first = check(tmp_path, hippocampi)
    assert "image_3.nii.gz cannot be read (" in messages(first, "contents")[0]
    assert first.rules["step"] == "not run: the data have errors"

    split = json.loads((tmp_path / "out" / "check" / "check.json").read_text(encoding="utf-8"))["measured"]["cases"]
    assert split == {"training": 2, "validation": 2}
    for number in range(4):  # whichever they are: three of four are now alike, so both parts have one
        if number != 2:
            shutil.copy(hippocampi / "image_2.nii.gz", hippocampi / f"image_{number}.nii.gz")
    second = check(tmp_path, hippocampi)
    assert "the validation set was seen in training" in messages(second, "duplicates")[0]
    assert second.errors


def test_quick_reads_no_voxels(hippocampi, tmp_path):
    with (hippocampi / "image_3.nii.gz").open("r+b") as file:
        file.truncate(3000)
    report = check(tmp_path, hippocampi, quick=True)
    assert report.findings == []
    assert report.rules["step"] == "not run: --quick"
    assert not (tmp_path / "out" / "check" / "cases.jsonl").exists()


@pytest.mark.parametrize("bundle", [BRATS, HIPPOCAMPUS, SKIN, PANCREAS, BRAIN])
@pytest.mark.parametrize("run_id", ["training", "evaluating", "inference"])
def test_the_configs_of_our_bundles_are_right(bundle, run_id, tmp_path):
    configs = [str(BUNDLES / bundle / "configs" / FILES[run_id])]
    report, _ = check_command_line(
        {"run_id": run_id, "config_file": configs, "dataset_dir": str(tmp_path / "none"), "output_dir": str(tmp_path)}
    )
    wrong = {finding.rule for finding in report.errors} - {"data set", "initialize"}
    assert not wrong, report.table()
    assert "there is no such file or folder" in messages(report, "data set")[0]


@pytest.mark.parametrize("bundle", [HIPPOCAMPUS, PANCREAS, BRAIN])
@pytest.mark.parametrize(("run_id", "config"), [("training", "train"), ("evaluating", "evaluate")])
def test_configs_for_several_processes_are_checked_as_one(bundle, run_id, config, tmp_path):
    configs = BUNDLES / bundle / "configs"
    report, _ = check_command_line(
        {
            "run_id": run_id,
            "config_file": [str(configs / f"{config}.json"), str(configs / f"multi_gpu_{config}.json")],
            "dataset_dir": str(tmp_path / "none"),
            "output_dir": str(tmp_path),
            "ckpt_dir": str(tmp_path),
            "device": "cpu",
        }
    )
    if run_id == "evaluating":  # there are no weights yet
        assert "model.pt" in report.errors[-1].message
        report.findings.pop()
    assert {finding.rule for finding in report.errors} == {"data set"}, report.table()
    assert not torch.distributed.is_initialized()


def test_brats_phantoms(phantoms, tmp_path):
    report = check(tmp_path, phantoms, bundle=BRATS)
    assert report.errors == [], report.table()
    assert report.rules["labels"].startswith("4 label maps, regions {'whole_tumour': [1, 2, 4]")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("bundle", "folder", "overrides", "expected"),
    [
        (HIPPOCAMPUS, "msd_hippocampus", {"cache_rate": 0}, {"training": 159, "validation": 40}),
        (PANCREAS, "nih_pancreas_ct_2d", {}, {"training": 148, "validation": 43}),
        (SKIN, "isic2017", {"held_out": 2}, {"training": 4, "validation": 2}),
        (BRATS, "open_ms", {"regions": {"lesion": [1]}, "folds": 2}, {"training": 1, "validation": 1}),
    ],
)
def test_real_data_sets_have_good_headers(bundle, folder, overrides, expected, data_dir, tmp_path):
    given = {"run_id": "training", "config_file": str(BUNDLES / bundle / "configs" / "train.json"), "device": "cpu"}
    given |= {"dataset_dir": str(data_dir / folder), "output_dir": str(tmp_path), **overrides}
    report, _ = check_command_line(given, quick=True)
    # one region where the metadata of the bundle have three: true, and no fault of the data
    assert {finding.rule for finding in report.findings} <= ({"network"} if bundle == BRATS else set()), report.table()
    assert report.measured["cases"] == expected


def start(tmp_path, data, **overrides):
    settings = {"dataset_dir": str(data), "output_dir": str(tmp_path / "run"), "ckpt_dir": str(tmp_path / "models")}
    workflow = make_workflow(HIPPOCAMPUS, "training", **settings, **overrides)
    workflow.initialize()
    return workflow


def stopped(tmp_path, data, **overrides):
    with pytest.raises(RuntimeError) as caught:
        start(tmp_path, data, **overrides)
    error = user_error_in(caught.value)
    assert isinstance(error, UserError)
    return str(error)


def test_label_maps_that_are_all_empty_are_an_error_of_a_training(hippocampi, tmp_path):
    for file in hippocampi.glob("label_*"):
        label = nibabel.load(file)
        nibabel.save(nibabel.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), file)
    report = check(tmp_path, hippocampi)
    (error,) = [finding for finding in report.errors if finding.rule == "labels"]
    assert error.message.startswith("all 2 label maps of the training cases are empty")


@pytest.mark.usefixtures("process_as_before")
class TestBeforeTraining:
    def test_a_good_training_starts_and_the_cases_are_indexed_once(self, hippocampi, tmp_path, caplog):
        caplog.set_level("INFO", logger="segan_monai")
        workflow = start(tmp_path, hippocampi)
        assert len(workflow.parser.get_parsed_content("split")["training"]) == 2
        assert caplog.text.count("4 cases, 4 labelled") == 1

    def test_a_config_error_stops_it_before_anything_is_written(self, hippocampi, tmp_path):
        message = stopped(tmp_path, hippocampi, **{"validate#evaluator#network": "@netwrk"})
        assert message.startswith(
            "validate#evaluator refers to @netwrk, which the config does not have. Did you mean @network"
        )
        assert message.endswith("(Found before the run; --check false skips this check.)")
        assert not (tmp_path / "run").exists()

    def test_a_grid_error_stops_it_before_images_are_read(self, hippocampi, tmp_path):
        for index in (1, 2):
            label = nibabel.load(hippocampi / f"label_{index}.nii.gz")
            nibabel.save(label.slicer[:-1], hippocampi / f"label_{index}.nii.gz")
        message = stopped(tmp_path, hippocampi)
        assert "label_1.nii.gz has (17, 24, 12)" in message
        assert "And 1 more error: segan-monai check lists all." in message

    def test_what_the_data_set_refuses_is_said_as_ever(self, hippocampi, tmp_path):
        message = stopped(tmp_path, hippocampi, folds=9)
        assert "4 subjects" in message
        assert "--check false" not in message

    def test_cases_that_are_left_out_do_not_stop_it(self, hippocampi, tmp_path):
        label = nibabel.load(hippocampi / "label_1.nii.gz")
        nibabel.save(label.slicer[:-1], hippocampi / "label_1.nii.gz")
        with pytest.raises(RuntimeError):
            start(tmp_path, hippocampi)
        drawn = [seed for seed in range(20) if 1 not in _drawn(hippocampi, seed)]
        start(tmp_path, hippocampi, max_cases=2, seed=drawn[0])

    @pytest.mark.parametrize("no", ["false", False])
    def test_check_false_skips_it(self, hippocampi, tmp_path, no):
        label = nibabel.load(hippocampi / "label_1.nii.gz")
        nibabel.save(label.slicer[:-1], hippocampi / "label_1.nii.gz")
        start(tmp_path, hippocampi, check=no)

    def test_warnings_go_to_the_log(self, hippocampi, tmp_path):
        for kind in ("image", "label"):
            volume = nibabel.load(hippocampi / f"{kind}_0.nii.gz")
            thick = nibabel.Nifti1Image(np.asarray(volume.dataobj), np.diag([1, 1, 9, 1]))
            nibabel.save(thick, hippocampi / f"{kind}_0.nii.gz")
        start(tmp_path, hippocampi)
        assert "spacing: " in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
        assert "has voxels of 1 x 1 x 9 mm" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")

    def test_data_that_another_program_puts_in_are_left_alone(self, hippocampi, tmp_path):
        """As MONAI Label does: it replaces the data of both data sets, so the config's own are never looked for."""
        volumes = [{"image": str(hippocampi / "image_0.nii.gz"), "label": str(hippocampi / "label_0.nii.gz")}]
        start(tmp_path, "nowhere", **{"train#dataset#data": volumes, "validate#dataset#data": volumes})


def _drawn(folder, seed):
    from segan_monai.data import find_cases, split_cases

    split = split_cases(find_cases(folder), 2, 0, seed, max_cases=2)
    return {int(case["case"][1:]) for part in split.values() for case in part}


@pytest.mark.parametrize("output_dir", ["data", "data/out"])
def test_an_output_folder_in_the_data_set(hippocampi, tmp_path, output_dir):
    (hippocampi / "dataset.json").unlink()
    before = sorted(hippocampi.rglob("*"))
    report = check(tmp_path, hippocampi, run_id="inference", output_dir=str(tmp_path / output_dir), quick=True)
    (message,) = messages(report, "data set")
    assert message.startswith(f"output_dir {tmp_path}/{output_dir} ")
    assert sorted(hippocampi.rglob("*")) == before
