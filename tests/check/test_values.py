# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Values of the keys: every shipped one passes, every wrong one is refused by name before anything is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from monai.bundle import ConfigParser

from segan_monai.check.keys import KEYS
from segan_monai.check.report import Report
from segan_monai.check.values import check_values, refuse_wrong_values, shown
from segan_monai.errors import ConfigError
from tests.bundles.workflow import BRATS, BUNDLES, FILES, HIPPOCAMPUS, OVERLAYS, PANCREAS, SKIN
from tests.forked import run_python

BRAIN = "brain_mri_adversarial_normalization_segmentation"
CONFIGS = [f"{bundle.name}/{file}" for bundle in sorted(BUNDLES.iterdir()) for file in sorted(FILES.values())]
PARTS = ("imports", "train")  # stand above initialize, but are no settings
OVERLAYS_OF = {
    BRATS: ["dice_ce.json", "lgg.json", "quick_cpu.json", "segan_paper.json", "volumes.json"]
    + [f"experiments/segan_{part}/*.json" for part in ("components", "lgg")],
    HIPPOCAMPUS: [
        "axial_slices.json",
        "quick_cpu.json",
        "segan_paper.json",
        "volumes.json",
        "experiments/segan_components/*.json",
    ],
    SKIN: ["segan_isic_code.json", "skin_deep_segmentor.json", "experiments/segan_isic/report.json"],
    PANCREAS: [
        "ct_pictures.json",
        *(f"experiments/lsnet_{part}/*.json" for part in ("components", "decay", "methods")),
    ],
    BRAIN: ["cpu.json", "experiments/adversarial_normalization/*.json"],
}


def parsed(*files, **overrides):
    parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in files]))
    parser.update(overrides)
    parser.parse()
    return parser


def found(*files, **overrides):
    report = Report()
    check_values(parsed(*files, **overrides), report)
    return [finding.message for finding in report.findings]


def train(bundle):
    return BUNDLES / bundle / "configs" / "train.json"


@pytest.mark.parametrize("config", CONFIGS)
def test_every_key_at_the_top_is_described_and_its_value_passes(config):
    bundle, file = config.split("/")
    path = BUNDLES / bundle / "configs" / file
    names = list(json.loads(path.read_text(encoding="utf-8")))
    above = names[: names.index("initialize")]
    above = [name for name in above if name not in PARTS and not name.startswith("_")]  # which are titles
    assert [name for name in above if name not in KEYS] == []
    assert found(path) == []
    for several_gpus in path.parent.glob(f"multi_gpu_{file}"):
        assert found(path, several_gpus) == []


@pytest.mark.parametrize(
    ("bundle", "overlay"),
    [
        (bundle, str(file.relative_to(OVERLAYS)))
        for bundle, patterns in sorted(OVERLAYS_OF.items())
        for pattern in patterns
        for file in sorted(OVERLAYS.glob(pattern))
        if file.name != "table.json"
    ],
)
def test_every_overlay_passes(bundle, overlay):
    for file in FILES.values():
        assert found(train(bundle).with_name(file), OVERLAYS / overlay) == []


@pytest.mark.parametrize("bundle", [BRATS, HIPPOCAMPUS, SKIN])
def test_pretraining_passes_in_a_training(bundle):
    assert found(train(bundle), OVERLAYS / "pretraining.json") == []


def test_every_described_key_is_in_a_config():
    shipped = {name for config in CONFIGS for name in json.loads((BUNDLES / _path(config)).read_text(encoding="utf-8"))}
    assert set(KEYS) <= shipped


def _path(config):
    return config.replace("/", "/configs/")


NAN, INFINITY = float("nan"), float("inf")
WHOLE = "expected a whole number of at least 1 "
ABOVE_0 = "expected a finite number above 0 "
NOT_NEGATIVE = "expected a finite number of at least 0 "
SHARE = "expected a finite number of at least 0 and of at most 1 "
YES_NO = "expected true or false "
WRONG = [
    (HIPPOCAMPUS, "epochs", 0, "--epochs 0: " + WHOLE + "(epochs: passes over the training cases)."),
    (HIPPOCAMPUS, "epochs", 2.5, "--epochs 2.5: " + WHOLE),
    (HIPPOCAMPUS, "epochs", "ten", "--epochs ten: " + WHOLE),
    (HIPPOCAMPUS, "epochs", "10", "--epochs '10': " + WHOLE),
    (HIPPOCAMPUS, "epochs", True, "--epochs true: " + WHOLE),
    (HIPPOCAMPUS, "epochs", None, "--epochs null: " + WHOLE),
    (HIPPOCAMPUS, "val_interval", 0, "--val_interval 0: " + WHOLE),
    (HIPPOCAMPUS, "num_workers", -1, "--num_workers -1: expected a whole number of at least 0 "),
    (HIPPOCAMPUS, "batch_size", 0, "--batch_size 0: " + WHOLE),
    *[(HIPPOCAMPUS, "learning_rate", value, ABOVE_0) for value in (NAN, INFINITY, -INFINITY, -0.1, 0, "fast", None)],
    (HIPPOCAMPUS, "learning_rate_decay", -1, NOT_NEGATIVE),
    (HIPPOCAMPUS, "critic_learning_rate", NAN, "--critic_learning_rate nan: " + ABOVE_0),
    *[(HIPPOCAMPUS, "slice_size", value, "expected a list of 2, each a whole") for value in (48, [48], [48, 0], "big")],
    (HIPPOCAMPUS, "mlflow", True, "--mlflow true: expected a path or null "),
    (HIPPOCAMPUS, "loss_layers", [], "--loss_layers []: expected a list of one or more, each a whole number"),
    (HIPPOCAMPUS, "loss_layers", [-1], "--loss_layers [-1]: expected a list"),
    (HIPPOCAMPUS, "loss_layers", [4], "--loss_layers [4]: the critic has layers 0 to 3 only"),
    (HIPPOCAMPUS, "loss_layer_weights", [1, 2], "--loss_layer_weights [1, 2]: the loss has 4 layers"),
    (
        HIPPOCAMPUS,
        "loss_reduction",
        "mean",
        "--loss_reduction mean: expected 'sum', 'per_layer', 'concat' or 'balanced' ",
    ),
    (
        HIPPOCAMPUS,
        "num_levels",
        9,
        "--num_levels 9: axis 0 is halved 9 times, and --slice_size [48, 48] can be halved at most 6",
    ),
    (HIPPOCAMPUS, "num_levels", 0, "--num_levels 0: " + WHOLE),
    (HIPPOCAMPUS, "base_channels", 0, "--base_channels 0: " + WHOLE),
    (HIPPOCAMPUS, "base_channels", 1024, "--base_channels 1024 and --num_levels 4: the deepest level would have 8192"),
    (HIPPOCAMPUS, "spatial_dims", 4, "--spatial_dims 4: expected a whole number from 2 to 3 "),
    (HIPPOCAMPUS, "level_strides", [2, 2], "--level_strides [2, 2]: expected a list of one or more, each a list of"),
    (HIPPOCAMPUS, "level_strides", [[2, 2, 1]], "--level_strides [[2, 2, 1]]: with --spatial_dims 2, expected 2 num"),
    (HIPPOCAMPUS, "slice_axis", 5, "--slice_axis 5: expected a whole number from 0 to 2 or a list of one or more"),
    (HIPPOCAMPUS, "slice_axis", [1, 1], "--slice_axis [1, 1]: expected"),
    (HIPPOCAMPUS, "slice_axis", [], "--slice_axis []: expected"),
    *[
        (HIPPOCAMPUS, "mirror_axes", value, "expected an empty list or a list of one or more")
        for value in (0, [3], None)
    ],
    (HIPPOCAMPUS, "mirror_axes", [1, 1], "each a whole number from 0 to 2, all different "),
    (HIPPOCAMPUS, "mirror_axes", [0, 1], "name the sides anterior and posterior, which axis 1 would exchange"),
    (SKIN, "mirror_axes", [2], "--mirror_axes [2]: a photograph has the axes 0 (left-right) and 1 (up-down) only."),
    (
        HIPPOCAMPUS,
        "norm",
        "bach",
        "--norm bach: expected 'batch', 'instance', 'layer' or 'localresponse', or a list such",
    ),
    *[(HIPPOCAMPUS, "norm", value, f"--norm {value}: expected 'batch', ") for value in ([], ["bach", {}], [5])],
    *[
        (BRAIN, key, value, "for several GPUs 'batch' and sync_batch_norm true")
        for key in ("norm", "discriminator_norm")
        for value in ("syncbatch", ["SYNCBATCH", {"eps": 1e-3}])
    ],
    (HIPPOCAMPUS, "seed", -1, "--seed -1: expected a whole number from 0 to 4294967295 "),
    (HIPPOCAMPUS, "seed", "lucky", "--seed lucky: expected a whole number"),
    (HIPPOCAMPUS, "folds", 1, "--folds 1: expected a whole number of at least 2 "),
    (HIPPOCAMPUS, "fold", 5, "--fold 5 of --folds 5: folds are counted from 0; expected a fold from 0 to 4"),
    (HIPPOCAMPUS, "max_cases", 0, "--max_cases 0: expected a whole number of at least 1 or null "),
    (HIPPOCAMPUS, "cache_rate", 2, "--cache_rate 2: " + SHARE),
    (HIPPOCAMPUS, "neighbours", -1, "--neighbours -1: expected a whole number of at least 0 "),
    (HIPPOCAMPUS, "in_channels", 5, "--in_channels 5: with --neighbours 3 the network sees 7 slices"),
    (HIPPOCAMPUS, "amp", "maybe", "--amp maybe: " + YES_NO),
    (HIPPOCAMPUS, "resume", "yes", "--resume yes: " + YES_NO),
    (HIPPOCAMPUS, "check", 0, "--check 0: " + YES_NO),
    (HIPPOCAMPUS, "skip_unreadable_cases", 1, "--skip_unreadable_cases 1: " + YES_NO),
    (HIPPOCAMPUS, "foreground_probability", 1.5, SHARE),
    (HIPPOCAMPUS, "augmentation_probability", -1, SHARE),
    (HIPPOCAMPUS, "critic_start", 0, "--critic_start 0: " + WHOLE),
    (HIPPOCAMPUS, "critic_clamp", -1, "--critic_clamp -1: " + ABOVE_0),
    (HIPPOCAMPUS, "adversarial_weight", -0.5, NOT_NEGATIVE),
    (HIPPOCAMPUS, "supervised_weight", NAN, NOT_NEGATIVE),
    (HIPPOCAMPUS, "modalities", "T1", "--modalities T1: expected a list of one or more, each text "),
    (HIPPOCAMPUS, "modalities", [], "--modalities []: expected a list of one or more"),
    (HIPPOCAMPUS, "regions", "brats1999", "unknown label convention regions='brats1999'"),
    (HIPPOCAMPUS, "regions", "auto", "--regions auto: this config does not detect the convention"),
    (HIPPOCAMPUS, "regions", {"anterior": [0]}, "regions: region 'anterior' needs one or more positive integer"),
    (HIPPOCAMPUS, "regions", {}, "regions must name at least one region"),
    (HIPPOCAMPUS, "annotated_slices", 0, "--annotated_slices 0: expected a whole number of at least 1 or null"),
    (HIPPOCAMPUS, "missing_regions", {"posterior": 1}, "each to a finite number above 0 and below 1 or null"),
    (HIPPOCAMPUS, "missing_regions", {}, "expected a mapping of one or more names, each to a finite number above 0"),
    (HIPPOCAMPUS, "regions", 3, "--regions 3: expected a mapping of names to values or text "),
    (HIPPOCAMPUS, "num_classes", 5, "--num_classes 5: there are 2 regions"),
    (
        HIPPOCAMPUS,
        "background_labels",
        [2, 3],
        "--background_labels [2, 3]: region posterior has the values [2]. Expected",
    ),
    (HIPPOCAMPUS, "dataset_dir", None, "--dataset_dir null: expected a path "),
    (HIPPOCAMPUS, "cache_dir", "", "--cache_dir '': expected a path or null "),
    (BRATS, "modalities", ["t1", 2], "--modalities ['t1', 2]: expected a list of one or more, each text "),
    (BRATS, "num_levels", 9, "--slice_size [160, 160] can be halved at most 8 times"),
    (BRAIN, "patch_size", [32, 32], "--patch_size [32, 32]: expected a list of 3, each a whole number"),
    (BRAIN, "patch_size", [32, 32, 30], "--patch_size [32, 32, 30]: with --num_levels 4 a patch is halved 3 times"),
    (BRAIN, "patch_stride", [8, 8, 0], "--patch_stride [8, 8, 0]: expected a list of 3"),
    (BRAIN, "num_levels", 1, "--num_levels 1: expected at least 2 levels"),
    (BRAIN, "num_levels", 9, "--patch_size [32, 32, 32]: with --num_levels 9"),
    (BRAIN, "spacing_mm", [1, 1, 0], "--spacing_mm [1, 1, 0]: expected a list of 3, each a finite number above 0 "),
    (BRAIN, "spacing_mm", 1.0, "--spacing_mm 1.0: expected a list of 3"),
    (BRAIN, "window_overlap", 1, "--window_overlap 1: expected a finite number of at least 0 and below 1 "),
    (BRAIN, "intensity", "zscore", "--intensity zscore: expected raw, scale or standardize"),
    (BRAIN, "class_weights", [1, 2], "--class_weights [1, 2]: the loss has 3 classes"),
    (BRAIN, "regions", "auto", "--regions auto: this config does not detect the convention"),
    (BRAIN, "adversarial_loss", "wgan", "expected 'minimax', 'non_saturating', 'confusion', 'least_squares', "),
    (BRAIN, "discriminator_channels", [], "--discriminator_channels []: expected a list of one or more"),
    (BRAIN, "lr_step_on", 3, "--lr_step_on 3: expected a Python function "),
    (PANCREAS, "hu_window", [240, -100], "--hu_window [240, -100]: expected a list of 2 numbers, the lower one first "),
    (PANCREAS, "slice_size", [512, 512, 512], "expected a list of 2, each"),
    (PANCREAS, "structure", "vnet", "--structure vnet: expected 'unet', 'attention_unet' or 'fcn' "),
    (PANCREAS, "segmentor_depth", 50, "--segmentor_depth 50: expected 18 or 34 "),
    (PANCREAS, "picture_axes", "XY", "--picture_axes XY: expected 'LA', "),
    (PANCREAS, "heatmap_threshold", 1, "expected a finite number above 0 and below 1 "),
    (PANCREAS, "max_rois", 0, "--max_rois 0: " + WHOLE),
    (PANCREAS, "subject_pattern", "(", "--subject_pattern (: expected a regular expression with a group"),
    (SKIN, "image_size", 128, "--image_size 128: expected a list of 2"),
    (SKIN, "image_size", [4, 4], "--image_size [4, 4] can be halved at most 3 times"),
    (SKIN, "adam_betas", [0.5, 1.0], "--adam_betas [0.5, 1.0]: expected a list of 2, each a finite number of at"),
    (SKIN, "held_out", -1, "--held_out -1: expected a finite number of at least 0 or null "),
    (SKIN, "crop_probability", 2, SHARE),
]


@pytest.mark.parametrize(
    ("bundle", "key", "value", "words"),
    [pytest.param(*case, id=f"{case[0].split('_')[0]}-{case[1]}-{case[2]}") for case in WRONG],
)
def test_a_wrong_value_is_refused_by_name(bundle, key, value, words):
    messages = found(train(bundle), **{key: value})
    assert any(words in message and key in message for message in messages), messages
    with pytest.raises(ConfigError, match=key):
        refuse_wrong_values(parsed(train(bundle), **{"device": "cpu", key: value}))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("level_strides", [[1, 1, 1]], "--level_strides [[1, 1, 1]]: with --spatial_dims 3, expected 3 numbers"),
        ("augment_on_device", True, "--augment_on_device true with --spatial_dims 3: only slices are changed"),
        ("num_levels", 9, "--patch_size [48, 64, 48] can be halved at most 6 times"),
        ("patch_size", [48, 48, 4], 'keep that axis in the first levels: --level_strides "[[2, 2, 1]]"'),
        ("patch_size", [1, 48, 48], '--level_strides "[[1, 2, 2], [1, 2, 2], [1, 2, 2]]"'),
    ],
)
def test_a_wrong_value_of_a_3d_network(key, value, words):
    messages = found(train(HIPPOCAMPUS), **{"spatial_dims": 3, key: value})
    assert any(words in message for message in messages), messages


def test_strides_that_keep_an_axis_allow_thin_patches():
    """Four levels halve the last axis as often as its strides say: 4 voxels can be halved 3 times, 2 voxels twice."""
    thin = {"spatial_dims": 3, "patch_size": [48, 48, 4]}
    assert found(train(HIPPOCAMPUS), **thin, level_strides=[[2, 2, 1]]) == []
    thinner = {**thin, "patch_size": [48, 48, 2]}
    assert found(train(HIPPOCAMPUS), **thinner, level_strides=[[2, 2, 1]] * 2) == []
    (message,) = found(train(HIPPOCAMPUS), **thinner, level_strides=[[2, 2, 1]])
    assert "axis 2 is halved 3 times" in message
    assert '--level_strides "[[2, 2, 1], [2, 2, 1]]"' in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "subset",
            "heldout",
            "--subset heldout: expected 'held_out', 'training', 'validation', 'test', 'unlabeled' or 'all' ",
        ),
        ("output_labels", "foo", "--output_labels foo: expected 'consecutive' or 'dataset' or a list of one or more"),
        ("output_labels", [1, 1], "--output_labels [1, 1]: expected"),
        ("output_labels", [1, 256], "--output_labels [1, 256]: expected"),
        ("output_labels", [1, 2, 3], "--output_labels: values=[1, 2, 3] for 2 regions"),
        ("slice_batch_size", 0, "--slice_batch_size 0: " + WHOLE),
        ("case_statistics", 1.5, "--case_statistics 1.5: " + SHARE),
        ("save_probabilities", "no", "--save_probabilities no: " + YES_NO),
    ],
)
def test_wrong_values_in_evaluation_and_inference(key, value, words):
    for file in ("evaluate.json", "inference.json") if key != "subset" else ("evaluate.json",):
        (message,) = found(train(HIPPOCAMPUS).with_name(file), **{key: value})
        assert message.startswith(words)


@pytest.mark.parametrize("config", [config for config in CONFIGS if "train" not in config])
def test_weights_are_one_path_or_several(config):
    for right in ("run/model.pt", ["run", "other/model.pt"], None):
        assert found(BUNDLES / _path(config), weights=right) == []
    for wrong in ("", [], 3, [None]):
        (message,) = found(BUNDLES / _path(config), weights=wrong)
        assert "expected a path or a list of one or more, each a path or null (weights: file of weights" in message


@pytest.mark.parametrize("norm", ["instance", ["group", {"num_groups": 4}]])
def test_statistics_of_a_case_need_batch_norm(norm):
    inference = train(HIPPOCAMPUS).with_name("inference.json")
    (message,) = found(inference, case_statistics=0.5, norm=norm)
    assert message.startswith(f"--case_statistics 0.5: the network was built with --norm {norm}; expected batch norm.")
    assert found(inference, case_statistics=0.0, norm=norm) == []
    assert found(inference, case_statistics=0.5, norm="batch") == []


@pytest.mark.parametrize(
    ("bundle", "overrides"),
    [
        (HIPPOCAMPUS, {"slice_size": (48, 48), "slice_axis": (0, 2), "output_dir": "ü b"}),
        (HIPPOCAMPUS, {"loss_layers": [0, 3], "loss_layer_weights": [1, 0.5]}),
        (HIPPOCAMPUS, {"loss_layers": [4], "critic_num_levels": 4}),
        (HIPPOCAMPUS, {"epochs": 1, "critic_start": 2, "max_cases": 1, "mlflow": "runs"}),
        (HIPPOCAMPUS, {"regions": "brats2021", "my_own_key": object(), "epochs": "@my_own_epochs", "my_own_epochs": 3}),
        (HIPPOCAMPUS, {"epochs": "$len(@cases)"}),  # what needs a component is not judged
        (BRAIN, {"regions": "brats2021", "norm": ["group", {"num_groups": 4}], "class_weights": [1, 1, 2]}),
        (BRATS, {"regions": "auto"}),
        (BRATS, {"regions": {"lesion": [1]}}),
        (SKIN, {"max_channels": 64, "base_channels": 4096, "critic_base_channels": 64}),
    ],
)
def test_what_is_right_passes(bundle, overrides):
    assert found(train(bundle), **overrides) == []


@pytest.mark.parametrize(
    ("bundle", "settings", "message"),
    [
        (
            HIPPOCAMPUS,
            {"batch_size": 4},
            "--batch_size 4 with --slices_per_volume 8: a batch has all 8 slices of each of its cases, so it has 8 "
            "slices. Set --batch_size to a multiple of 8, or --slices_per_volume to a divisor of 4.",
        ),
        (PANCREAS, {"batch_size": 20}, "--batch_size 20 with --slices_per_volume 8: .*, so it has 16 slices."),
        (
            BRATS,
            {"spatial_dims": 3, "batch_size": 1},
            "--batch_size 1 with --patches_per_volume 2: .* it has 2 patches.",
        ),
        (BRAIN, {"batch_size": 4}, "--batch_size 4 with --patches_per_volume 8: .*, so it has 8 patches."),
    ],
)
def test_a_batch_of_another_size_than_asked_for_is_a_warning(bundle, settings, message):
    parser = parsed(train(bundle), device="cpu", **settings)
    report = Report()
    check_values(parser, report)
    (warning,) = report.findings
    assert (warning.rule, warning.level) == ("values", "warning")
    assert re.match(message, warning.message), warning.message
    assert refuse_wrong_values(parser) == [warning.message]


@pytest.mark.parametrize(
    ("bundle", "settings"),
    [
        (HIPPOCAMPUS, {"batch_size": 8}),
        (HIPPOCAMPUS, {"batch_size": 4, "slices_per_volume": 2}),
        (HIPPOCAMPUS, {"spatial_dims": 3, "batch_size": 1}),
        (BRAIN, {"patches_per_volume": None, "batch_size": 3}),
        (SKIN, {"batch_size": 3}),
    ],
)
def test_batches_of_the_size_asked_for(bundle, settings):
    assert found(train(bundle), **settings) == []


def test_an_output_critic_without_label_maps():
    (message,) = found(train(BRAIN), output_weight=0.001, unlabeled_statistics=True, unlabeled_domains=["iSEG"])
    assert message.startswith("--output_weight 0.001 with --unlabeled_statistics true: ")


@pytest.mark.parametrize(("weight", "start"), [(0.0, 1), (1.0, 2)])
def test_a_segmentor_without_a_loss(weight, start):
    settings = {"supervised_weight": 0, "adversarial_weight": weight, "critic_start": start}
    (message,) = found(train(HIPPOCAMPUS), **settings)
    assert message.startswith(f"--supervised_weight 0 with --adversarial_weight {weight} and --critic_start {start}: ")
    assert found(train(HIPPOCAMPUS), supervised_weight=0) == []  # the critics begin at once then


@pytest.mark.parametrize(
    ("bundle", "settings", "message"),
    [
        (
            HIPPOCAMPUS,
            {"consistency_weight": 0.5},
            "consistency_weight 0.5 with ema_decay 0: the teacher is the seg",
        ),
        (
            SKIN,
            {"unpaired_weight": 0.2},
            "unpaired_weight 0.2 with critic_norm true: norm layers remove the mean",
        ),
        (
            SKIN,
            {"patch_weight": 0.2, "critic_score": True},
            "patch_weight 0.2 with critic_score true: the term is of the critics' features",
        ),
        (
            HIPPOCAMPUS,
            {"unpaired_weight": 0.2, "unpaired_layers": [1, 4]},
            "--unpaired_layers [1, 4]: the critic has layers 1 to 3",
        ),
        (
            BRATS,
            {"patch_weight": 0.2, "foreground_probability": 1},
            "patch_weight 0.2 with foreground_probability 1",
        ),
        (
            BRATS,
            {"consistency_weight": 0.5, "ema_decay": 0.99, "unlabeled": "ignore"},
            "consistency_weight 0.5 with unlabeled ignore: there are no unlabelled images",
        ),
        (
            BRATS,
            {"patch_weight": 0.2, "supervised_weight": 0, "critic_start": 1},
            "patch_weight 0.2 with balance_gradients true and supervised_weight 0: the weight is relative",
        ),
    ],
)
def test_a_term_of_unlabelled_images_without_what_it_needs(bundle, settings, message):
    (problem,) = found(train(bundle), **{"unlabeled": "use", **settings})
    assert problem.startswith(message)
    needed = {
        "ema_decay": 0.99,
        "critic_norm": False,
        "critic_score": False,
        "unlabeled": "use",
        "supervised_weight": 1,
    }
    needed |= {"foreground_probability": 0.5, "unpaired_layers": None} if bundle is not SKIN else {}
    assert found(train(bundle), **{**settings, **needed}) == []


@pytest.mark.parametrize("row", ["unet", "fcn", "attention_unet"])
def test_a_baseline_without_a_teacher_refuses_its_weight(row):
    overlay = OVERLAYS / "experiments" / "lsnet_methods" / f"{row}.json"
    settings = {"unlabeled": "use", "consistency_weight": 0.5, "ema_decay": 0.99}
    (problem,) = found(train(PANCREAS), overlay, **settings)
    assert problem.startswith(
        "--consistency_weight 0.5: this config trains with SegmentationTrainer, which learns from"
    )
    assert found(train(PANCREAS), **settings) == []


def test_a_data_set_may_name_folds_of_its_own(tmp_path):
    """Then `folds` says nothing of their number, and the split refuses a fold that is not there."""
    settings = {"fold": 7, "dataset_dir": str(tmp_path)}
    assert len(found(train(HIPPOCAMPUS), **settings)) == 1
    (tmp_path / "dataset.json").touch()
    assert found(train(HIPPOCAMPUS), **settings) == []


def test_what_a_wrong_value_makes_of_others_is_not_told():
    (message,) = found(train(HIPPOCAMPUS), epochs=60.5)  # critic_start is derived from it
    assert message.startswith("--epochs 60.5: ")
    (message,) = found(train(PANCREAS), slice_size=[True, 512])  # roi_size and heatmap_sigma are derived from it
    assert message.startswith("--slice_size [True, 512]: ")
    (message,) = found(train(HIPPOCAMPUS), epochs="$2.5")
    assert message.startswith("--epochs 2.5: ")


def test_a_run_names_the_first_of_several_and_check_names_all():
    wrong = {"epochs": 0, "seed": -1, "amp": "maybe"}
    assert len(found(train(HIPPOCAMPUS), **wrong)) == 3
    with pytest.raises(ConfigError, match=r"^--amp maybe: .* And 2 more wrong values: segan-monai check lists all\.$"):
        refuse_wrong_values(parsed(train(HIPPOCAMPUS), **wrong))


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "cpu:x"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ConfigError, match=f"^--device {device} cannot be used .*This machine has cpu"):
        refuse_wrong_values(parsed(train(HIPPOCAMPUS), device=device))


@pytest.mark.parametrize("bundle", [HIPPOCAMPUS, BRAIN, PANCREAS, SKIN, BRATS])
@pytest.mark.parametrize("run_id", ["training", "evaluating", "inference"])
def test_the_number_of_classes_is_that_of_a_named_convention(bundle, run_id):
    parser = parsed(train(bundle).with_name(FILES[run_id]), regions="brats2021")
    assert parser.get_parsed_content("num_classes") == 3


def test_values_are_shown_as_they_are_written():
    written = [True, None, "ten", "10", "", [1, "a"], 0.5]
    assert [shown(value) for value in written] == ["true", "null", "ten", "'10'", "''", "[1, 'a']", "0.5"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["option", "args_file"])
def test_a_process_ends_with_the_message_and_writes_nothing(tmp_path, how):
    wrong = ["--loss_layers", "[]"]
    if how == "args_file":
        (tmp_path / "args.json").write_text('{"loss_layers": []}', encoding="utf-8")
        wrong = ["--args_file", str(tmp_path / "args.json")]
    config = ["--config_file", str([str(train(HIPPOCAMPUS))]), "--dataset_dir", "nowhere", "--device", "cpu"]
    places = ["--output_dir", str(tmp_path / "run"), "--ckpt_dir", str(tmp_path / "models"), "--check", "false"]
    words = ["-m", "monai.bundle", "run", "training", *config, *places, *wrong]
    if how == "option":  # an interpreter as a user starts it
        command = [sys.executable, *words]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, encoding="utf-8")
    else:
        ended = run_python(*words, cwd=tmp_path)
    assert ended.returncode == 1
    last = ended.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: --loss_layers []: expected a list of one or more, each a whole number of at least 0")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "models").exists()
