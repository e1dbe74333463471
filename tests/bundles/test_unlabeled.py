# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The SegAN bundles train on real images whose labels are hidden, and resume exactly."""

from __future__ import annotations

import json

import pytest
import torch

from segan_monai.check import check_command_line
from segan_monai.errors import ConfigError, DataError, user_error_in
from tests.bundles.workflow import (
    BRATS,
    BUNDLES,
    HIPPOCAMPUS,
    SKIN,
    SMALL_SKIN,
    make_workflow,
    run_workflow,
    stop_after,
)

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]
LGG = {
    "modalities": ["t1", "t1c", "flair"],
    "regions": {"tumour": [1]},
    "skull_stripped": False,
    "num_levels": 2,
    "max_cases": 12,
    "folds": 4,
    "live_cases": 0,
    "augmentation_probability": 0.5,
    "elastic_magnitude": 4.0,
}
TERMS = {"ema_decay": 0.9, "consistency_weight": 0.5, "unpaired_weight": 0.1, "unlabeled_critic_start": 1}
HIDDEN = {"unlabeled": "use", "labeled_cases": 4}
ON_DEVICE = {"augment_on_device": True}  # both kinds of batches


def lgg(data_dir, tmp_path, name="run", **settings):
    places = {"dataset_dir": str(data_dir / "lgg_brain_tumour"), "output_dir": str(tmp_path / name)}
    return {**places, **LGG, **settings}


def test_a_resumed_training_has_the_very_same_weights(data_dir, tmp_path):
    whole = run_workflow(
        BRATS, "training", **lgg(data_dir, tmp_path, "whole", epochs=3, **ON_DEVICE, **TERMS, **HIDDEN)
    )
    split = json.loads((tmp_path / "whole/split.json").read_text(encoding="utf-8"))
    assert [len(split[part]) for part in ("training", "validation", "unlabeled")] == [4, 3, 5]
    dataset = whole.parser.get_parsed_content("train#unlabeled_dataset")
    assert [case["case"] for case in dataset.data] == split["unlabeled"]
    sample = dataset[0][0]
    assert set(sample) == {"case", "image", "uniform"}
    assert sample["uniform"], "slices of unlabelled images are drawn uniformly"

    first = make_workflow(
        BRATS, "training", **lgg(data_dir, tmp_path, "parts", epochs=3, **ON_DEVICE, **TERMS, **HIDDEN)
    )
    first.initialize()
    trainer = first.parser.get_parsed_content("train#trainer")
    stop_after(trainer, 2)
    resumed = run_workflow(
        BRATS, "training", **lgg(data_dir, tmp_path, "parts", epochs=3, resume=True, **ON_DEVICE, **TERMS, **HIDDEN)
    )
    for name in ("network", "critic"):
        expected = whole.parser.get_parsed_content(name).state_dict()
        found = resumed.parser.get_parsed_content(name).state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


def test_nothing_is_loaded_without_weights(data_dir, tmp_path):
    workflow = make_workflow(BRATS, "training", **lgg(data_dir, tmp_path, **HIDDEN))
    workflow.initialize()
    assert workflow.parser.get_parsed_content("train#unlabeled_dataset") is None
    assert len(workflow.parser.get_parsed_content("split")["unlabeled"]) == 5


def test_epochs_are_as_long_with_few_labels_as_with_all(data_dir, tmp_path):
    """The overlay of ``reproduce semi-supervised``: 9 training cases, batches of 2 cases."""
    lengths = []
    for number in (None, 2):
        settings = lgg(data_dir, tmp_path, f"run{number}", labeled_cases=number)
        workflow = make_workflow(BRATS, "training", "experiments/semi_supervised/few_labels.json", **settings)
        workflow.initialize()
        assert len(workflow.parser.get_parsed_content("split")["training"]) == (number or 9)
        lengths.append(len(workflow.parser.get_parsed_content("train#dataloader")))
    assert lengths == [5, 5]


def test_photographs_without_masks(data_dir, tmp_path):
    """The photographs of one folder, 15 of them labelled."""
    settings = {**SMALL_SKIN, "folds": 3, "max_cases": 12, "critic_norm": False, "num_levels": 2, "unlabeled": "use"}
    workflow = run_workflow(
        SKIN,
        "training",
        dataset_dir=str(data_dir / "isic2017_256"),
        output_dir=str(tmp_path / "run"),
        **settings,
        **TERMS,
    )
    dataset = workflow.parser.get_parsed_content("train#unlabeled_dataset")
    assert len(dataset) == 12
    assert "label" not in dataset[0]
    assert dataset[0]["image"].shape == (3, 32, 32)


def test_hippocampi(data_dir, tmp_path):
    workflow = run_workflow(
        HIPPOCAMPUS,
        "training",
        dataset_dir=str(data_dir / "msd_hippocampus"),
        output_dir=str(tmp_path / "run"),
        **{"max_cases": 8, "folds": 4, "labeled_cases": 3, "unlabeled": "use", "num_levels": 2} | TERMS,
    )
    assert workflow.parser.get_parsed_content("train#unlabeled_dataset")[0][0]["image"].shape == (7, 32, 32)


def test_terms_without_unlabelled_images(data_dir, tmp_path):
    settings = lgg(data_dir, tmp_path, **TERMS)
    with pytest.raises(Exception) as caught:
        run_workflow(BRATS, "training", **settings, unlabeled="use")
    assert isinstance(error := user_error_in(caught.value), DataError)
    assert "no unlabelled cases to train on, besides 9 labelled ones" in str(error)


def test_a_program_with_cases_of_its_own(data_dir, tmp_path):
    """MONAI Label sets the data of both loaders, and the data set of the config need not exist."""
    settings = lgg(tmp_path / "nowhere", tmp_path, check=False, unlabeled="use", **TERMS)
    workflow = make_workflow(BRATS, "training", **settings, **{"train#dataset#data": [{}], "validate#dataset#data": []})
    workflow.initialize()
    with pytest.raises(Exception) as caught:
        workflow.parser.get_parsed_content("train#unlabeled_dataset")
    assert isinstance(error := user_error_in(caught.value), ConfigError)
    assert str(error).startswith("the program that runs this config gives its own training cases, so there are no")


def test_check_counts_and_reads_them(data_dir, tmp_path):
    given = {"run_id": "training", "config_file": [str(BUNDLES / BRATS / "configs/train.json")]}
    small = {"base_channels": 4, "slice_size": [32, 32], "batch_size": 4, "slices_per_volume": 2, "num_workers": 0}
    settings = lgg(data_dir, tmp_path, **TERMS, **HIDDEN)
    report, _ = check_command_line(given | small | settings | {"device": "cpu"}, processes=1)
    assert not report.errors, [finding.message for finding in report.errors]
    assert report.measured["cases"] == {"training": 4, "validation": 3, "unlabeled": 5}
