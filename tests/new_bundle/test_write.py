# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What is written, and that bundles of all methods train, evaluate and segment."""

from __future__ import annotations

import json
import sys

import nibabel
import numpy as np
import pandas as pd
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from segan_monai.errors import ConfigError, DataError
from segan_monai.new_bundle import new_bundle
from segan_monai.new_bundle.document import fingerprint_lines
from segan_monai.new_bundle.write import BUNDLES, TEMPLATES, dicom_modality
from segan_monai.verify import run_checks
from tests.new_bundle.data import MRI, write_raw

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]
QUICK = ("files", "metadata", "document", "labels", "network", "train", "evaluate", "infer")
TWO = {**MRI, "channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "whole": [1, 3], "core": 3}}


def content(bundle, file):
    return json.loads((bundle / "configs" / f"{file}.json").read_text(encoding="utf-8"))


def results(bundle, names=QUICK, **settings):
    return {check.name: (check.result, check.detail) for check in run_checks(bundle, settings, names=names)}


def all_ok(found):
    assert {result for result, _ in found.values()} == {"ok"}, found


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory):
    top = tmp_path_factory.mktemp("two")
    data = write_raw(top / "Dataset001_Prostate", channels=2, content=TWO, values=(1, 3))
    bundle, *_ = new_bundle("prostate_segmentation", "segan", data, top / "bundles")
    return data, bundle


def test_every_choice_is_in_the_configs_and_explained(two_channels):
    data, bundle = two_channels
    recorded = json.loads((bundle / "fingerprint.json").read_text(encoding="utf-8"))
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    train = content(bundle, "train")
    assert recorded["data"]["cases"] == 4
    for key, choice in recorded["choices"].items():
        assert train[key] == choice["value"], key
        assert f"| `{key}` | `{json.dumps(choice['value'])}` | {choice['reason']} |" in text
    assert train["slice_size"] == [32, 48]  # a body of 32 x 36
    assert train["modalities"] == ["T2", "ADC"]
    assert train["regions"] == {"whole": [1, 3], "core": [3]}
    assert train["dataset_dir"] == str(data)
    assert content(bundle, "evaluate")["published"] is None
    for file in ("evaluate", "inference"):
        same = {key: value for key, value in content(bundle, file).items() if key in recorded["choices"]}
        assert same == {key: recorded["choices"][key]["value"] for key in same}
        assert same["slice_size"] == [32, 48]


def test_json_is_written_as_people_read_it(two_channels):
    text = (two_channels[1] / "configs" / "train.json").read_text(encoding="utf-8")
    assert '    "regions": {\n        "whole": [1, 3],\n        "core": [3]\n    },\n' in text
    assert all((len(line) - len(line.lstrip(" "))) % 4 == 0 for line in text.splitlines())
    assert text.endswith("}\n")


def test_sections_keep_their_titles_and_trainings_their_handlers(two_channels):
    for file in ("train", "evaluate", "inference"):
        of_project = content(BUNDLES / TEMPLATES["segan"], file)
        titles = [key for key in of_project if key.startswith("_")]
        assert [key for key in content(two_channels[1], file) if key.startswith("_")] == titles
        assert "_network_" in titles
    (handlers,) = content(two_channels[1], "train")["train"]["handlers"]
    assert (handlers["_target_"], handlers["regions"]) == ("TrainingHandlers", "$list(@label_regions)")


def test_metadata_say_what_goes_in_and_comes_out(two_channels):
    _, bundle = two_channels
    metadata = content(bundle, "metadata")
    image, pred = (metadata["network_data_format"][side] for side in ("inputs", "outputs"))
    assert image["image"]["channel_def"] == {"0": "T2", "1": "ADC"}
    assert (image["image"]["num_channels"], image["image"]["modality"]) == (2, "MR")
    assert pred["pred"]["channel_def"] == {"0": "background", "1": "whole", "2": "core"}
    assert "BraTS" not in json.dumps(metadata)
    assert "Licence unknown" in (bundle / "docs" / "data_license.txt").read_text(encoding="utf-8")


def test_segan_of_two_channels_passes_verify(two_channels):
    all_ok(results(two_channels[1]))


def test_slices_of_like_voxels_along_all_axes_pass_verify(tmp_path):
    data = write_raw(tmp_path / "data", channels=2, content=TWO, values=(1, 3), spacing=(1, 1, 1), shape=(36, 40, 30))
    bundle, *_ = new_bundle("prostate_segmentation", "segan", data, tmp_path)
    for file in ("train", "evaluate", "inference"):
        config = content(bundle, file)
        assert (config["slice_axis"], config["neighbours"], config["slice_size"]) == (
            [2, 1, 0],
            3,
            [32, 32],
        )  # of a body of 32 x 36 x 30
    image = content(bundle, "metadata")["network_data_format"]["inputs"]["image"]
    names = list(image["channel_def"].values())
    assert (image["num_channels"], len(names)) == (14, 14)
    assert names[:2] == ["T2, 3 slices before", "ADC, 3 slices before"]
    assert names[5:10] == ["ADC, 1 slice before", "T2", "ADC", "T2, 1 slice after", "ADC, 1 slice after"]
    all_ok(results(bundle, (*QUICK, "onnx", "run_onnx")))


def test_it_trains_on_the_raw_folder_and_segments_test_images_without_labels(two_channels, tmp_path):
    data, bundle = two_channels
    test = tmp_path / "imagesTs"
    test.mkdir()
    for channel in ("0000", "0001"):
        image = nibabel.load(data / "imagesTr" / f"c0_{channel}.nii.gz")
        nibabel.save(image, test / f"new_{channel}.nii.gz")
    common = {"bundle_root": str(bundle), "ckpt_dir": str(tmp_path / "models"), "device": "cpu", "base_channels": 4}
    for file, run_id, more in (
        ("train", "training", {"epochs": 1}),
        ("inference", "inference", {"dataset_dir": str(test)}),
    ):
        workflow = ConfigWorkflow(
            config_file=str(bundle / "configs" / f"{file}.json"),
            meta_file=str(bundle / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type=run_id,
            run_id=run_id,
            output_dir=str(tmp_path / run_id),
            **common,
            **more,
        )
        workflow.initialize()
        workflow.run()
    split = json.loads((tmp_path / "training" / "split.json").read_text(encoding="utf-8"))
    assert len(split["training"]) == 2
    assert len(split["validation"]) == 2
    written = nibabel.load(tmp_path / "inference" / "new_seg.nii.gz")
    assert written.shape == image.shape
    np.testing.assert_allclose(written.affine, image.affine)


def test_a_ct_for_lsnet_passes_verify(tmp_path):
    data = write_raw(tmp_path / "data", content={**MRI, "channel_names": {"0": "CT"}}, air=-1000, spacing=(1, 1, 5))
    bundle, *_ = new_bundle("organ_ct_segmentation", "lsnet", data, tmp_path)
    assert content(bundle, "train")["hu_window"] == [150, 460]  # 300 to 319 HU, widened to 159.5 to 459.5
    assert content(bundle, "metadata")["network_data_format"]["inputs"]["image"]["modality"] == "CT"
    all_ok(results(bundle))


def test_domains_for_adversarial_normalization_pass_verify(tmp_path):
    domains = {f"c{number}": f"site {number % 2}" for number in range(4)}
    data = write_raw(tmp_path / "data", content={**MRI, "domains": domains}, values=(1,))
    bundle, *_ = new_bundle("organ_segmentation", "adversarial-normalization", data, tmp_path)
    train = content(bundle, "train")
    assert (train["first_domain"], train["second_domain"]) == ("site 0", "site 1")
    assert train["modalities"] == ["T1"]
    assert train["load"][0]["modalities"] == train["train"]["handlers"][0]["modalities"] == "@modalities"
    all_ok(results(bundle))


def steps_of(config):
    """Classes of the preprocessing, without disabled steps."""
    steps = ConfigParser(config).get_parsed_content("preprocessing")
    return [type(step).__name__ for step in getattr(steps, "transforms", steps) if step is not None]


def test_a_ct_of_mixed_spacing_for_segan(tmp_path):
    description = {**MRI, "channel_names": {"0": "CT"}}
    data = write_raw(tmp_path / "data", content=description, air=-1000)
    image = nibabel.load(data / "imagesTr" / "c0_0000.nii.gz")
    for file in (data / "imagesTr" / "c0_0000.nii.gz", data / "labelsTr" / "c0.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(file).dataobj), np.diag([2.0, 2, 2, 1])), file)
    assert image.header.get_zooms()[:3] == (1, 1, 2)
    bundle, *_ = new_bundle("organ_segmentation", "segan", data, tmp_path)
    for file in ("train", "evaluate", "inference"):
        config = content(bundle, file)
        names = steps_of(config)
        assert names.index("IsolatedSpacingd") == names.index("Orientationd") + 1
        assert "ScaleIntensityRanged" in names
        assert "ScaleForegroundd" not in names
        assert (config["spacing_mm"], config["intensity_window"]) == ([1, 1, 2], [150, 460])
    assert "modalities" not in content(bundle, "train")["cases"], "another folder may call its only channel as it likes"
    all_ok(results(bundle, ("labels", "train", "infer")))


def test_mri_for_lsnet_is_scaled_by_percentiles(tmp_path):
    bundle, *_ = new_bundle("organ_segmentation", "lsnet", write_raw(tmp_path / "data"), tmp_path)
    for file in ("train", "evaluate", "inference"):
        config = content(bundle, file)
        assert (config["hu_window"], config["picture_window"]) == (None, [0, 255])
        assert "ScaleForegroundd" in steps_of(config)
        assert "ScaleIntensityRanged" not in steps_of(config)
    all_ok(results(bundle, ("network", "train", "infer")))


def test_an_ignore_label_and_an_image_without_label(tmp_path):
    labelled = {**MRI, "labels": {"background": 0, "organ": 1, "ignore": 2}}
    data = write_raw(tmp_path / "data", content=labelled, values=(1, 2))
    (data / "labelsTr" / "c3.nii.gz").unlink()
    bundle, *_ = new_bundle("organ_segmentation", "lsnet", data, tmp_path)
    assert [content(bundle, file)["ignore_label"] for file in ("train", "evaluate")] == [2, 2]
    assert content(bundle, "train")["regions"] == {"organ": [1]}
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert "Images without a label map (1) are omitted." in text
    assert "`--unlabeled use --consistency_weight 1 --ema_decay 0.99`" in text
    with pytest.raises(DataError, match=r"'ignore' label \(2\).*adversarial-normalization does not support"):
        new_bundle("other_segmentation", "adversarial-normalization", data, tmp_path)


@pytest.mark.parametrize("method", ["segan", "lsnet"])
def test_values_outside_chosen_regions_are_background_in_training_and_evaluation(tmp_path, method):
    content = {**MRI, "labels": {"background": 0, "left": 1, "right": 3, "middle": 2}}
    data = write_raw(tmp_path / "data", content=content, values=(1, 2, 3))
    bundle, found, _ = new_bundle("organ_segmentation", method, data, tmp_path, regions={"sides": [1, 3]})
    assert "label values that count as background: 2" in fingerprint_lines(found)
    for file, run_id in (("train", "training"), ("evaluate", "evaluating")):
        workflow = ConfigWorkflow(
            config_file=str(bundle / "configs" / f"{file}.json"),
            meta_file=str(bundle / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type="train",
            run_id=run_id,
            output_dir=str(tmp_path / run_id),
            ckpt_dir=str(tmp_path / "training"),
            bundle_root=str(bundle),
            device="cpu",
            base_channels=4,
            **({"epochs": 1} if file == "train" else {}),
        )
        workflow.initialize()
        workflow.run()
    row = pd.read_csv(tmp_path / "evaluating" / "metrics.csv").iloc[0]
    label = nibabel.load(data / "labelsTr" / "c0.nii.gz").get_fdata()
    voxel_ml = 1 * 1 * 2 / 1000
    assert (row["region"], row["reference_ml"]) == ("sides", pytest.approx(np.isin(label, [1, 3]).sum() * voxel_ml))


def test_the_root_of_a_bundle_is_where_its_config_lies(two_channels, tmp_path, monkeypatch):
    _, bundle = two_channels
    monkeypatch.chdir(tmp_path)
    config = str(bundle / "configs" / "train.json")
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "training", "--config_file", config])
    parser = ConfigParser()
    parser.read_config(config)
    assert parser.get_parsed_content("output_dir") == str(bundle / "output" / "training")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my-liver segmentation",
            r"invalid bundle name 'my-liver segmentation'.*such as my_liver_segmentation_segmentation",
        ),
        ("../liver_segmentation", r"invalid bundle name '../liver_segmentation'"),
        ("liver", r"liver: MONAI Label derives the kind of a model.*such as liver_segmentation"),
        ("lesion_detection_segmentation", r"without 'deepedit'.*such as lesion_segmentation"),
    ],
)
def test_names(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        new_bundle(name, "segan", tmp_path, tmp_path)


def test_a_folder_that_exists_is_left_alone(two_channels):
    data, bundle = two_channels
    with pytest.raises(ConfigError, match=r"prostate_segmentation exists. Choose another name or --output-dir"):
        new_bundle("prostate_segmentation", "segan", data, bundle.parent)


def test_dicom_modalities():
    assert [dicom_modality([name]) for name in ("CT", "PET", "T1", "contrast CT", "zscore")] == [
        "CT",
        "PT",
        "MR",
        "CT",
        "MR",
    ]
