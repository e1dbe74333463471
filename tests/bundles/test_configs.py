# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Every config stands alone, so what two of them say must be the same, unless there is a reason in a list here."""

from __future__ import annotations

import json
from itertools import takewhile

import pytest
import torch
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple

from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, PANCREAS, SKIN

BRAIN = "brain_mri_adversarial_normalization_segmentation"
NAMES = ("train", "evaluate", "inference")
TITLE = "---- "

OF_EACH_CONFIG = {
    "imports": "training also needs monai and sys",
    "output_dir": "each has a folder of its own",
    "ckpt_dir": "training writes to its own folder, never over the weights that a bundle includes",
    "num_workers": "training reads many cases at once",
    "initialize": "training has no weights to load",
    "network": "evaluation and inference may load several",
    "cases": "inference needs no labels",
    "preprocessing": "inference has no labels, training is no one pipeline; of images it is the same, see below",
    "dataset": "inference omits finished cases, and training keeps cases in memory",
    "agreement": "inference compares what it averages only for a quality estimate",
    "handlers": "evaluation measures, inference keeps a journal",
    "run": "each runs its own",
}
OF_ONE_BUNDLE = {
    BRATS: {
        "regions": "without labels, inference cannot tell the convention",
        "label_regions": "the same, and a training must not look at cases that are held out",
        "postprocessing": "evaluation may choose region_rules, from probabilities before any rule",
        "quality_settings": "the same: then no rule is applied",
    },
    HIPPOCAMPUS: {"postprocessing": "the same", "quality_settings": "the same"},
    BRAIN: {
        "domains": "evaluation has those of the training, and more",
        "load": "inference has no labels",
        "to_grid": "training resamples label maps, evaluation compares them on their own grid",
        "fits": "of image and label in training",
        "postprocessing": "evaluation keeps the normalized image",
    },
    PANCREAS: {
        "localizer_def": "only training begins with given weights",
        "segmentor_def": "only training begins with given weights",
        "train": "empty in evaluation and inference, for overlays that change the trainer",
        "postprocessing": "evaluation may choose region_rules, from probabilities before any rule",
        "quality_settings": "the same: then no rule is applied",
    },
    SKIN: {"postprocessing": "the same", "quality_settings": "the same"},
}
OF_EACH_BUNDLE = {
    *("bundle_root", "dataset_dir", "regions", "label_regions", "base_channels", "published"),  # its data
    "ckpt_dir",  # the pancreas bundle includes weights for pictures
    *("epochs", "batch_size", "num_workers", "learning_rate", "learning_rate_decay", "val_interval", "folds"),
    *("cases", "split", "chosen_cases", "preprocessing", "postprocessing", "handlers"),  # its kind of images
    *("initialize", "network_def", "optimizer", "lr_scheduler", "loss", "train", "validate", "inferer"),  # its method
    "quality_settings",  # its images and its method
    "journal",  # a photograph has no volume
    "evaluator",  # a photograph is no volume: mixed precision is not the inferer's
}
# what the hippocampus bundle has otherwise than BraTS, with the same method
OF_THE_HIPPOCAMPUS = {
    *("bundle_root", "dataset_dir", "modalities", "regions", "published", "cases", "label_regions"),
    *("epochs", "batch_size", "num_workers", "learning_rate", "val_interval", "folds", "base_channels"),
    *("full_resolution_channels", "slice_axis", "neighbours", "in_channels", "slice_size", "augmentation_probability"),
    *("patch_size", "patches_per_volume"),
    *("preprocessing", "train"),
}
OF_ALL = {"bundle_root", "dataset_dir", "datalist", "output_dir", "ckpt_dir", "device", "amp", "seed"}
OF_EVERY_TRAINING = {
    "epochs",
    "batch_size",
    "accumulation_steps",
    "sync_batch_norm",
    "num_workers",
    "learning_rate",
    "val_interval",
    "resume",
    "check",
    "mlflow",
}
# steps on images that need a label map or pad both alike, and what steps say of label maps
WITH_LABELS = {"StripByLabeld", "SpatialPadd"}
OF_LABELS = {
    "keys",
    "allow_missing_keys",
    "mode",
    "regions",
    "ignore_label",
    "background_labels",
    "resize_masks",
    "_desc_",
}
# settings of images, regions and network that need not be those of the fit of quality.json
WITHOUT_EFFECT_ON_QUALITY = {
    *(
        "num_classes",
        "base_channels",
        "num_levels",
        "norm",
        "full_resolution_channels",
        "deep_supervision",
        "level_strides",
    ),
    *(
        "in_channels",
        "max_channels",
        "normalizer_base_channels",
        "normalizer_residual",
        "gain_and_offset",
        "structure",
        "localizer_depth",
        "localizer_masks",
        "segmentor_depth",
    ),  # of weights
    *("window_batch_size", "slice_batch_size", "skip_empty_slices"),  # of speed and memory
    *("subject_pattern", "picture_window", "picture_axes"),
}
BUNDLE_NAMES = sorted(folder.name for folder in BUNDLES.iterdir())


def read(bundle, name):
    return json.loads((BUNDLES / bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))


def differing(configs):
    """Keys at the top that stand in two or more of the configs, with values that are not all the same."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return {key for key in keys if len({json.dumps(config[key]) for config in configs if key in config}) > 1}


@pytest.mark.parametrize("bundle", BUNDLE_NAMES)
def test_the_configs_of_a_bundle_agree(bundle):
    found = differing([read(bundle, name) for name in NAMES])
    own = set(OF_ONE_BUNDLE.get(bundle, {}))
    assert found - set(OF_EACH_CONFIG) == own


def test_no_reason_is_left_over():
    found = [differing([read(bundle, name) for name in NAMES]) for bundle in BUNDLE_NAMES]
    assert set(OF_EACH_CONFIG) <= set().union(*found)


def test_what_all_bundles_have_is_the_same():
    found = set()
    for name in NAMES:
        configs = [read(bundle, name) for bundle in BUNDLE_NAMES]
        common = set.intersection(*(set(config) for config in configs))
        found |= differing([{key: config[key] for key in common} for config in configs])
    assert found == OF_EACH_BUNDLE


def test_bundles_of_one_method_differ_in_their_data_alone():
    found = set().union(*(differing([read(bundle, name) for bundle in (BRATS, HIPPOCAMPUS)]) for name in NAMES))
    assert found == OF_THE_HIPPOCAMPUS
    for name in NAMES:
        assert list(read(BRATS, name)) == list(read(HIPPOCAMPUS, name)), "the same keys in the same order"
    trainings = [read(bundle, "train") for bundle in (BRATS, HIPPOCAMPUS)]
    assert differing([config["train"] for config in trainings]) == {"random_slices", "augmentation"}


def test_trainings_have_the_same_handlers_and_validation():
    of_bundle = {"network", "objects", "lr_schedulers", "lr_step_on", "regions", "modalities"}
    handlers = [read(bundle, "train")["train"]["handlers"] for bundle in BUNDLE_NAMES]
    assert differing([item for (item,) in handlers]) <= of_bundle
    validations = [read(bundle, "train")["validate"] for bundle in BUNDLE_NAMES]
    for part in ("dataset", "pred_and_label", "handlers"):
        assert part not in differing(validations), part


def steps_on_images(bundle, name):
    """What every image goes through, in order: classes, and settings but for those of label maps."""
    config = read(bundle, name)
    if bundle == BRAIN:
        steps = [*config["load"], *config["to_grid"], *config["fits"]]
    elif bundle == SKIN and name == "train":
        steps = config["validate"]["preprocessing"]["transforms"]
    else:
        steps = config["preprocessing"]
        steps = steps if isinstance(steps, list) else steps["transforms"]
    if name == "train":
        steps = [*steps, *config["validate"].get("crop", [])]
    found = []
    for step in steps:
        if "image" in ensure_tuple(step["keys"]) and step["_target_"] not in WITH_LABELS:
            step["_target_"] = step["_target_"].removeprefix("Isolated")
            found.append({key: value for key, value in step.items() if key not in {*OF_LABELS, "of_pictures"}})
    return found


@pytest.mark.parametrize("bundle", BUNDLE_NAMES)
def test_a_network_gets_the_images_that_it_was_trained_on(bundle):
    training, evaluation, inference = (steps_on_images(bundle, name) for name in NAMES)
    assert training
    assert training == evaluation == inference


@pytest.mark.parametrize("bundle", BUNDLE_NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_settings_are_at_the_top_in_titled_sections(bundle, name):
    config = read(bundle, name)
    needed = OF_ALL | (OF_EVERY_TRAINING if name == "train" else set())
    assert needed <= set(takewhile(lambda key: key != "initialize", config))
    titles = {key: text for key, text in config.items() if key.startswith("_")}
    assert all(text.startswith(TITLE) for text in titles.values())
    assert {"_files_", "_run_", "_network_", "_components_"} <= set(titles)
    before_initialize = list(config)[list(config).index("initialize") - 1]
    assert before_initialize == "_components_"


@pytest.mark.parametrize("name", ["evaluate", "inference"])
@pytest.mark.parametrize("bundle", BUNDLE_NAMES)
def test_quality_is_estimated_under_the_settings_of_its_fit(bundle, name):
    config = read(bundle, name)
    keys = list(config)
    of_network = keys[keys.index("_network_") + 1 : keys.index("_results_")]
    of_labels = {"regions", "ignore_label", "background_labels"}
    wanted = {*of_network, *({"region_rules"} & config.keys())} - WITHOUT_EFFECT_ON_QUALITY - of_labels
    assert wanted <= config["quality_settings"].keys()
    for key in wanted - {"region_rules", "simulation"}:  # of transforms, the names
        assert config["quality_settings"][key] == f"@{key}"


@pytest.mark.parametrize("bundle", [BRATS, HIPPOCAMPUS, PANCREAS, SKIN])
def test_an_evaluation_that_learns_region_rules_has_the_dice_without_them(bundle):
    rules = {"anterior": {"keep": 0.5}}
    for learns, expected in ((True, None), (False, rules)):
        own = read(bundle, "evaluate")["quality_settings"]["region_rules"]
        parser = ConfigParser({"region_rules": rules, "learn_region_rules": learns, "own": own})
        assert parser.get_parsed_content("own") == expected


@pytest.mark.parametrize(
    ("bundle", "settings", "modalities", "channels"),
    [
        (HIPPOCAMPUS, {}, 1, 7),
        (HIPPOCAMPUS, {"spatial_dims": 3}, 1, 1),
        (BRATS, {"neighbours": 1}, 3, 9),
        (BRATS, {"modalities": ["t1", "t2"], "spatial_dims": 3}, 2, 2),
        (PANCREAS, {"neighbours": 2}, 1, 5),
        (SKIN, {}, 3, 3),
    ],
)
def test_the_strong_change_treats_all_slices_of_a_modality_alike(bundle, settings, modalities, channels):
    parser = ConfigParser(read(bundle, "train") | settings)
    change = parser.get_parsed_content("train#trainer#strong_change")
    assert change.modalities == modalities
    assert "in_channels" not in parser or parser.get_parsed_content("in_channels") == channels
    change.noise = change.erased = 0
    slices = change(torch.arange(24.0).expand(2, channels, 4, 24)).unflatten(1, (-1, modalities))
    assert torch.equal(slices, slices[:, :1].expand_as(slices))


@pytest.mark.parametrize(("cases", "batches"), [(5, [2, 2]), (2, [2]), (1, [1])])
@pytest.mark.parametrize("bundle", BUNDLE_NAMES)
def test_batches_of_unlabelled_images_are_whole_if_there_is_a_whole_one(bundle, cases, batches):
    """A smaller one could not be split into as many parts by accumulation_steps."""
    parser = ConfigParser(read(bundle, "train") | {"batch_size": 2, "slices_per_volume": 1, "patches_per_volume": 1})
    parser["num_workers"] = 0
    parser["train#unlabeled_in_use"] = True
    parser["train#unlabeled_dataset"] = [*range(cases)]
    loader = parser.get_parsed_content("train#unlabeled_dataloader")
    assert [len(batch) for batch in loader] == batches
    parser["train#unlabeled_in_use"] = False
    parser["train#unlabeled_dataset"] = None
    parser.parse()
    assert parser.get_parsed_content("train#unlabeled_dataloader") is None
