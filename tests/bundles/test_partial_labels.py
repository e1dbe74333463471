# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The SegAN bundles train on real images whose labels are known in part."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.bundles.workflow import HIPPOCAMPUS, SKIN, SMALL_SKIN, run_workflow

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow, pytest.mark.real_data]


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
