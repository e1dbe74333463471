# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The SegAN bundles train on images whose labels are known in part."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.bundles.workflow import BRATS, HIPPOCAMPUS, SKIN, SMALL_SKIN, make_workflow, run_workflow

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


def single_slices(data_dir, folder, cases=4):
    """Write a datalist of hippocampi: one annotated coronal slice in each, and no posterior part in every other."""
    folder.mkdir()
    entries = []
    for number, entry in enumerate(
        json.loads((data_dir / "msd_hippocampus/dataset.json").read_text())["training"][:cases]
    ):
        image = nib.load(data_dir / "msd_hippocampus" / entry["label"])
        label = np.asarray(image.dataobj).astype(np.uint8)
        known = label.any(axis=(0, 2)).nonzero()[0][10]
        partly = np.full_like(label, 255)
        partly[:, known] = label[:, known]
        nib.save(nib.Nifti1Image(partly, image.affine), folder / f"{number}.nii.gz")
        (folder / f"image_{number}.nii.gz").symlink_to(data_dir / "msd_hippocampus" / entry["image"])
        lacking = {"labelled_regions": ["anterior"]} if number % 2 else {}
        entries.append({"image": f"image_{number}.nii.gz", "label": f"{number}.nii.gz", **lacking})
    (folder / "dataset.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    return str(folder)


@pytest.mark.real_data
def test_single_annotated_slices_and_missing_regions(data_dir, tmp_path):
    workflow = run_workflow(
        HIPPOCAMPUS,
        "training",
        dataset_dir=single_slices(data_dir, tmp_path / "data"),
        output_dir=str(tmp_path / "run"),
        ignore_label=255,
        augmentation_probability=0.0,
        slice_axis=1,
        folds=2,
        num_levels=2,
    )
    dataset = workflow.parser.get_parsed_content("train#dataset")
    for case in range(2):
        lacks_posterior = dataset.data[case].get("labelled_regions") is not None
        for sample in dataset[case]:
            assert sample["mask"].shape == sample["label"].shape == (2, 32, 32)
            assert sample["mask"][0].any(), "only slices with a known label are drawn"
            assert sample["mask"][1].any() != lacks_posterior


@pytest.mark.real_data
def test_photographs_with_unknown_pixels(data_dir, tmp_path):
    """Of the lower half of every mask, nothing is known."""
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for mask in sorted((data_dir / "isic2017_256/masks").glob("*.png"))[:6]:
        values = np.array(Image.open(mask).convert("L"))
        values[128:] = 7
        Image.fromarray(values).save(tmp_path / "data" / "masks" / mask.name)
        name = mask.stem.removesuffix("_segmentation")
        (photograph,) = (data_dir / "isic2017_256/images").glob(f"{name}.*")
        (tmp_path / "data" / "images" / photograph.name).symlink_to(photograph)
    workflow = run_workflow(
        SKIN,
        "training",
        dataset_dir=str(tmp_path / "data"),
        output_dir=str(tmp_path / "run"),
        **{**SMALL_SKIN, "folds": 3, "ignore_label": 7, "crop_probability": 0.0},
    )
    shares = [sample["mask"].float().mean() for sample in workflow.parser.get_parsed_content("train#dataset")]
    assert shares == [0.5] * 4


def test_nested_regions_of_which_cases_have_the_inner_one(phantoms, tmp_path):
    """Half of the cases are labelled for the tumour core alone: nothing is known of what is around and in it."""
    regions = {"whole_tumour": [1, 2, 4], "tumour_core": [1, 4], "enhancing_tumour": [4]}
    entries = []
    for number, case in enumerate(sorted(folder for folder in phantoms.iterdir() if folder.is_dir())):
        images = [str(case / f"{case.name}_{name}.nii.gz") for name in ("t1ce", "t2", "flair")]
        lacking = {"labelled_regions": ["tumour_core"]} if number % 2 else {}
        entries.append({"image": images, "label": str(case / f"{case.name}_seg.nii.gz"), "case": case.name, **lacking})
    modality = {"0": "t1c", "1": "t2", "2": "flair"}
    (tmp_path / "list.json").write_text(json.dumps({"modality": modality, "training": entries}), encoding="utf-8")
    common = {"dataset_dir": str(phantoms), "datalist": str(tmp_path / "list.json"), "regions": regions}
    common["ckpt_dir"] = str(tmp_path / "models")
    workflow = run_workflow(BRATS, "training", output_dir=str(tmp_path / "run"), critic_start=1, **common)
    dataset = workflow.parser.get_parsed_content("train#dataset")
    known = {"labelled_regions" in case: dataset[number] for number, case in enumerate(dataset.data)}
    for sample in known[False]:
        assert sample["mask"].flatten(1).any(1).all()
    for sample in known[True]:
        assert sample["mask"].flatten(1).any(1).tolist() == [False, True, False]

    run_workflow(BRATS, "evaluating", output_dir=str(tmp_path / "evaluation"), subset="all", **common)
    with (tmp_path / "evaluation" / "metrics.csv").open(encoding="utf-8") as stream:
        rows = [(row["case"], row["region"]) for row in csv.DictReader(stream)]
    expected = [(entry["case"], name) for entry in entries for name in entry.get("labelled_regions", regions)]
    assert sorted(rows) == sorted(expected)


def test_labels_hidden_in_part_leave_unlabelled_images(phantoms, tmp_path):
    workflow = run_workflow(
        BRATS,
        "training",
        dataset_dir=str(phantoms),
        output_dir=str(tmp_path / "run"),
        annotated_slices=1,
        missing_regions={"enhancing_tumour": 0.5},
        augmentation_probability=0.0,
        unlabeled="use",
        consistency_weight=1.0,
        unpaired_weight=0.25,
        unlabeled_critic_start=1,
        critic_norm=False,
        ema_decay=0.9,
    )
    parser = workflow.parser
    training, held_out, unlabelled = (
        parser.get_parsed_content(name) for name in ("train#dataset", "validate#dataset", "train#unlabeled_dataset")
    )
    assert [case["case"] for case in unlabelled.data] == [case["case"] for case in training.data]
    assert all("label" not in sample for case in unlabelled for sample in case)
    found = sorted([bool(sample["mask"][2].any()) for sample in case] for case in training)
    assert found == [[False, False], [True, True]], "half of the cases lack the enhancing tumour"
    assert all(case["mask"].all() for case in held_out)
    with (tmp_path / "run" / "history.csv").open(encoding="utf-8") as stream:
        terms = {row["name"] for row in csv.DictReader(stream)}
    assert {"training/consistency", "training/segmentor_unpaired"} <= terms
    record = json.loads((tmp_path / "run" / "split.json").read_text(encoding="utf-8"))
    assert "unlabeled" not in record
    assert len(record["labelled_regions"]) == 1


@pytest.mark.parametrize("bundle", [BRATS, HIPPOCAMPUS])
def test_a_case_that_lists_all_regions_is_fully_labelled(bundle, phantoms, hippocampi, tmp_path):
    if bundle == BRATS:
        regions, images = ["enhancing_tumour", "tumour_core", "whole_tumour"], ("t1ce", "t2", "flair")
        folders = sorted(folder for folder in phantoms.iterdir() if folder.is_dir())
        places = [([str(f / f"{f.name}_{i}.nii.gz") for i in images], str(f / f"{f.name}_seg.nii.gz")) for f in folders]
        modality = {"0": "t1c", "1": "t2", "2": "flair"}
    else:
        regions, modality = ["posterior", "anterior"], {"0": "MRI"}
        labels = sorted((hippocampi / "labelsTr").glob("*.nii.gz"))
        places = [(str(hippocampi / "imagesTr" / file.name), str(file)) for file in labels]
    entries = [{"image": image, "label": label, "labelled_regions": regions} for image, label in places]
    entries[0]["labelled_regions"] = regions[:1]
    (tmp_path / "list.json").write_text(json.dumps({"modality": modality, "training": entries}), encoding="utf-8")
    workflow = make_workflow(
        bundle,
        "training",
        dataset_dir=str(phantoms if bundle == BRATS else hippocampi),
        datalist=str(tmp_path / "list.json"),
        output_dir=str(tmp_path / "run"),
        **({"regions": "brats2021"} if bundle == BRATS else {}),
    )
    workflow.initialize()
    split = workflow.parser.get_parsed_content("split")
    listed = [case["labelled_regions"] for part in split.values() for case in part if "labelled_regions" in case]
    assert listed == [regions[:1]]
