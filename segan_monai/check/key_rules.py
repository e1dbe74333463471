# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Rules that join several config keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from segan_monai.check.label_rules import LABEL_RULES, Problems, Values, has
from segan_monai.unlabeled_terms import WEIGHTS, unmet_needs

_MAX_CHANNELS = 4096
"""Maximum channels of a level.

A 4x4 convolution from 2048 to 4096 channels has 134 million weights, and each further level has 4 times as many.
"""

_FILES_WITH_FOLDS = ("dataset.json", "splits_final.json")


def broken_rules(values: Values, config: Values) -> list[str]:
    """Return one message per rule violation.

    Args:
        values: evaluated keys, each of the right kind. Rules that need missing keys are skipped.
        config: the whole config, not evaluated.
    """
    return [problem for rule in RULES for problem in rule(values, config)]


def _folds(values: Values, config: Values) -> Problems:
    """Check that ``fold`` is below ``folds``, unless the data set defines its own folds, which the split checks."""
    folder = Path(values.get("dataset_dir") or ".")
    may_name_folds = values.get("datalist") or any((folder / name).is_file() for name in _FILES_WITH_FOLDS)
    if has(values, "folds", "fold") and not may_name_folds and not values["fold"] < values["folds"]:
        yield (
            f"--fold {values['fold']} of --folds {values['folds']}: folds are counted from 0; expected a fold from 0 "
            f"to {values['folds'] - 1}."
        )


def _in_channels(values: Values, config: Values) -> Problems:
    if values.get("spatial_dims") == 3:
        return
    if has(values, "in_channels", "neighbours") and values["in_channels"] % (2 * values["neighbours"] + 1):
        yield (
            f"--in_channels {values['in_channels']}: with --neighbours {values['neighbours']} the network sees "
            f"{2 * values['neighbours'] + 1} slices. Expected a multiple of that; set only --neighbours."
        )


def _levels(values: Values, config: Values) -> Problems:
    """Check that each axis can be halved as often as levels do; with too many levels, most would be padding."""
    if not has(values, "num_levels"):
        return
    levels = values["num_levels"]
    dims = values.get("spatial_dims")
    strides = values.get("level_strides") or []
    for key in ("patch_size",) if dims == 3 else ("slice_size", "image_size"):
        for axis, side in enumerate(values.get(key, ())):
            halved = levels - sum(stride[axis : axis + 1] == [1] for stride in strides[:levels])
            if (too_many := halved - side.bit_length()) > 0:
                yield (
                    f"--num_levels {levels}: axis {axis} is halved {halved} times, and --{key} "
                    f"{list(values[key])} can be halved at most {side.bit_length()} times, with padding. Lower "
                    f"--num_levels{_kept_axis(dims, axis, levels - halved + too_many, strides)}."
                )
                break
    if has(values, "patch_size") and dims is None:
        if levels < 2:
            yield f"--num_levels {levels}: expected at least 2 levels, between which the U-Nets halve a patch."
        elif any(side % 2 ** (levels - 1) for side in values["patch_size"]):
            yield (
                f"--patch_size {list(values['patch_size'])}: with --num_levels {levels} a patch is halved {levels - 1} "
                f"times; expected multiples of {2 ** (levels - 1)}."
            )


def _kept_axis(dims: int | None, axis: int, count: int, strides: Sequence[Sequence[int]]) -> str:
    """Return the strides that keep an axis in the first levels, as a remedy; nothing for networks without strides."""
    if dims is None:
        return ""
    kept = [list(stride) for stride in strides] + [[2] * dims for _ in range(count - len(strides))]
    for stride in kept[:count]:
        stride[axis] = 1
    return f', or keep that axis in the first levels: --level_strides "{kept}"'


def _widths(values: Values, config: Values) -> Problems:
    levels = {"base_channels": "num_levels", "normalizer_base_channels": "num_levels"}
    doublings = {key: values.get(of, 4) - 1 for key, of in levels.items()}  # ResNets have 4 levels
    doublings["critic_base_channels"] = values.get("critic_num_levels", 3) - 1
    for key, count in doublings.items():
        if not has(values, key):
            continue
        widest = values[key] * 2**count
        if key == "base_channels" and values.get("max_channels"):
            widest = min(widest, values["max_channels"])
        if widest > _MAX_CHANNELS:
            levels_too = f" and --num_levels {count + 1}" if "num_levels" in values and key in levels else ""
            yield (
                f"--{key} {values[key]}{levels_too}: the deepest level would have {widest} channels, more weights than "
                f"fit in memory; expected at most {_MAX_CHANNELS}. Lower these values."
            )


def _critic_layers(values: Values, config: Values) -> Problems:
    """Check layers and weights of the loss: layer 0 is the masked image, and each critic level adds one layer."""
    if not has(values, "critic_num_levels", "loss_layers", "loss_layer_weights"):
        return
    last = values["critic_num_levels"]
    layers = values["loss_layers"]
    if layers and max(layers) > last:
        yield f"--loss_layers {list(layers)}: the critic has layers 0 to {last} only."
    weights, count = values["loss_layer_weights"], len(layers) if layers else last + 1
    if weights and len(weights) != count:
        yield f"--loss_layer_weights {list(weights)}: the loss has {count} layers; expected one weight per layer."
    if values.get("unpaired_layers") and max(values["unpaired_layers"]) > last:
        yield f"--unpaired_layers {list(values['unpaired_layers'])}: the critic has layers 1 to {last} for this term."


def _segmentor_loss(values: Values, config: Values) -> Problems:
    """Check that the segmentor has a loss from the first epoch.

    ``critic_start`` may exceed ``epochs``, because training may be resumed with more epochs.
    """
    if not has(values, "critic_start", "adversarial_weight", "supervised_weight") or values["supervised_weight"]:
        return
    weight, start = values["adversarial_weight"], values["critic_start"]
    if not weight or start > 1:
        yield (
            f"--supervised_weight 0 with --adversarial_weight {weight} and --critic_start {start}: the segmentor has "
            "no loss in the first epoch. Set --supervised_weight 1, or --adversarial_weight and --critic_start to 1."
        )


def _unlabeled_terms(values: Values, config: Values) -> Problems:
    """Check that each term has what it needs, and that the trainer has the term: an overlay may replace the trainer."""
    yield from unmet_needs(values)
    train = config.get("train")
    trainer = train.get("trainer") if isinstance(train, Mapping) else None
    if not isinstance(trainer, Mapping):
        return
    for key in WEIGHTS:
        if values.get(key) and key not in trainer:
            yield (
                f"--{key} {values[key]}: this config trains with {trainer.get('_target_')}, which learns from labelled "
                f"images only. Set {key} to 0, or omit the overlay that sets train#trainer."
            )


def _intensity(values: Values, config: Values) -> Problems:
    known = [name for name in config.get("intensities", {}) if not name.startswith("_")]
    if known and has(values, "intensity") and values["intensity"] not in known:
        yield f"--intensity {values['intensity']}: expected {', '.join(known[:-1])} or {known[-1]}."


def _mirror_axes(values: Values, config: Values) -> Problems:
    """Check that a photograph is mirrored along axes that it has."""
    if has(values, "mirror_axes", "image_size") and 2 in values["mirror_axes"]:
        yield (
            f"--mirror_axes {list(values['mirror_axes'])}: a photograph has the axes 0 (left-right) and 1 (up-down) "
            "only."
        )


def _volumes(values: Values, config: Values) -> Problems:
    """Check what a 3-D network cannot do, and the number of axes of its strides."""
    if not has(values, "spatial_dims", "level_strides"):
        return
    dims = values["spatial_dims"]
    strides = values["level_strides"] or []
    if any(len(stride) != dims or 2 not in stride for stride in strides):
        yield (
            f"--level_strides {strides}: with --spatial_dims {dims}, expected {dims} numbers per level, 1 or 2, and at "
            "least one 2."
        )
    if dims == 3 and values.get("augment_on_device"):
        yield "--augment_on_device true with --spatial_dims 3: only slices are changed on the device. Set it to false."


def _case_statistics(values: Values, config: Values) -> Problems:
    """Check that statistics of a case have batch norm layers to go to."""
    norm = values.get("norm", "batch")
    name = norm[0] if isinstance(norm, list | tuple) else norm
    if values.get("case_statistics") and str(name).lower() != "batch":
        yield (
            f"--case_statistics {values['case_statistics']}: the network was built with --norm {norm}; expected batch "
            "norm. Set case_statistics to 0."
        )


def doubtful_values(values: Values) -> list[str]:
    """Return one message per combination of values that a run accepts and that does less than it says.

    Args:
        values: evaluated keys, each of the right kind.
    """
    key = "slices_per_volume" if "slices_per_volume" in values and values.get("spatial_dims") != 3 else None
    key = key or "patches_per_volume"
    batch, of_case = values.get("batch_size"), values.get(key)
    if batch is None or of_case is None or batch % of_case == 0:
        return []
    what, taken = key.split("_")[0], max(1, batch // of_case) * of_case
    return [
        f"--batch_size {batch} with --{key} {of_case}: a batch has all {of_case} {what} of each of its cases, so it has"
        f" {taken} {what}. Set --batch_size to a multiple of {of_case}, or --{key} to a divisor of {batch}."
    ]


def _output_critic(values: Values, config: Values) -> Problems:
    """Check that the output critic gets label maps of unlabelled images with a gradient."""
    if values.get("output_weight") and values.get("unlabeled_statistics"):
        yield (
            f"--output_weight {values['output_weight']} with --unlabeled_statistics true: unlabelled images are then "
            "segmented for their statistics alone, and the critic sees none. Pass one of the two."
        )


RULES: tuple[Callable[[Values, Values], Problems], ...] = (
    *LABEL_RULES,
    _folds,
    _in_channels,
    _levels,
    _widths,
    _critic_layers,
    _segmentor_loss,
    _unlabeled_terms,
    _output_critic,
    _intensity,
    _mirror_axes,
    _volumes,
    _case_statistics,
)
