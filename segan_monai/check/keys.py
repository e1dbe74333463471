# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Top-level keys of the bundle configs: type, range and purpose.

A key has the same meaning in every bundle. Rules that join several keys are in ``key_rules`` and ``label_rules``. Keys
that are not listed, such as those of a user's own overlay, accept any value.
"""

from __future__ import annotations

from typing import NamedTuple

from segan_monai.check.kinds import (
    DEVICE,
    EMPTY,
    FUNCTION,
    INTERVAL,
    LIST,
    MAPPING,
    NORM,
    NULL,
    PART,
    PATH,
    PATTERN,
    SWITCH,
    TEXT,
    Kind,
    choice,
    distinct,
    list_of,
    mapping_to,
    number,
    whole,
)

_COUNT = whole(1)
_NOT_NEGATIVE = number(0)
_POSITIVE = number(above=0)
_SHARE = number(0, 1)
_AXIS = whole(0, 2)
_TEXTS = list_of(TEXT)


class Key(NamedTuple):
    """Kind of value and purpose of a config key."""

    kind: Kind
    purpose: str


KEYS: dict[str, Key] = {
    # places
    "bundle_root": Key(PATH, "the bundle's folder"),
    "dataset_dir": Key(PATH, "folder of the data set"),
    "datalist": Key(PATH | NULL, "JSON file that lists the cases"),
    "output_dir": Key(PATH, "folder for the run's output"),
    "ckpt_dir": Key(PATH, "folder of the trained weights, model.pt"),
    "weights": Key(
        PATH | list_of(PATH) | NULL,
        "file of weights or folder of a training, or a list of them for an ensemble; null: that of ckpt_dir",
    ),
    "included_weights_dir": Key(PATH, "folder of the weights that the bundle includes"),
    "cache_dir": Key(PATH | NULL, "folder for prepared cases; null keeps them in memory"),
    "allow_other_settings": Key(_TEXTS | TEXT | NULL, "settings that may differ from those of the training"),
    "split_file": Key(PATH | list_of(PATH) | NULL, "the split with which the weights were trained, one per member"),
    "initial_weights": Key(
        PATH | NULL, "file, training or bundle with whose weights the training begins; null for none"
    ),
    "localizer_weights": Key(PATH | NULL, "ImageNet weights of the localizer"),
    "segmentor_weights": Key(PATH | NULL, "ImageNet weights of the segmentor"),
    # the machine
    "device": Key(DEVICE, "where the networks run"),
    "amp": Key(SWITCH, "mixed precision"),
    "num_workers": Key(whole(0), "processes that load data"),
    "cache_rate": Key(_SHARE, "fraction of cases kept in memory"),
    # the run
    "seed": Key(whole(0, 2**32 - 1), "seed of all random numbers"),
    "resume": Key(SWITCH, "resume the training in output_dir"),
    "check": Key(SWITCH, "check configs and headers before training"),
    "repeat_finished": Key(SWITCH, "segment finished cases again"),
    "part": Key(
        PART | NULL, "part of the cases, such as 2/4, for several processes that share output_dir; null for all"
    ),
    "skip_unreadable_cases": Key(SWITCH, "train without cases that cannot be read"),
    "mlflow": Key(PATH | NULL, "MLflow server, database or folder for its record"),
    "live_cases": Key(whole(0), "validation cases shown in TensorBoard"),
    "count_operations": Key(SWITCH, "count floating-point operations per slice"),
    "published": Key(
        MAPPING | NULL, "published figures for the report: source, cases (regular expression), regions, values"
    ),
    # cases and their split
    "subset": Key(choice("held_out", "training", "validation", "test", "unlabeled", "all"), "cases to evaluate"),
    "folds": Key(whole(2), "number of folds"),
    "fold": Key(whole(0), "fold that is held out, counted from 0"),
    "max_cases": Key(_COUNT | NULL, "use only this many cases"),
    "new_cases": Key(choice("unused", "training"), "what a resumed training does with cases added since it began"),
    "unlabeled": Key(choice("ignore", "use"), "whether cases without a label map take part in training"),
    "labeled_cases": Key(_COUNT | distinct(_TEXTS) | NULL, "training cases that keep labels: number, names, or null"),
    "labeled_seed": Key(whole(0), "seed of the draw of cases, slices and regions that keep labels"),
    "labeled_by": Key(
        choice("case", "subject"), "unit of labeled_cases and missing_regions: cases, or subjects with all their cases"
    ),
    "annotated_slices": Key(_COUNT | NULL, "axial slices of each training case whose label is known; null for all"),
    "missing_regions": Key(
        mapping_to(number(above=0, below=1)) | NULL,
        "share of the training cases that lack a region, such as {'posterior': 0.5}; null for none",
    ),
    "official_split": Key(SWITCH, "use the data set's own split"),
    "held_out": Key(_NOT_NEGATIVE | NULL, "number, or fraction below 1, of subjects held out instead of folds"),
    "split_by": Key(choice("subject", "patch"), "unit of which folds are made"),
    "unlabeled_domains": Key(_TEXTS | NULL, "domains whose labels are hidden in training; null for none"),
    "first_domain": Key(TEXT, "name of the first domain"),
    "second_domain": Key(TEXT, "name of the second domain"),
    "train_domains": Key(_TEXTS | NULL, "domains to train on; null for all"),
    "test_domains": Key(_TEXTS | NULL, "domains to evaluate; null for all"),
    "subject_pattern": Key(PATTERN, "regular expression whose first group is the subject in a picture's file name"),
    # images and labels
    "modalities": Key(_TEXTS, "modalities in channel order, such as ['t1c', 't2']"),
    "regions": Key(MAPPING | TEXT, "label values of each region, such as {'lesion': [1]}, or the name of a convention"),
    "ignore_label": Key(whole(1) | NULL, "value of voxels whose label is unknown; null for none"),
    "background_labels": Key(
        distinct(list_of(whole(1))) | NULL, "label values that count as background, such as [3, 4]; null for none"
    ),
    "num_classes": Key(_COUNT, "number of regions"),
    "output_labels": Key(
        choice("consecutive", "dataset") | distinct(list_of(whole(1, 255))), "voxel values in the label maps written"
    ),
    "spacing_mm": Key(list_of(_POSITIVE, 3) | NULL, "voxel size in mm to which images are resampled; null for none"),
    "spacing_known": Key(SWITCH, "whether distances can be measured in mm"),
    "estimate_quality": Key(SWITCH, "estimate the Dice of every case; needs quality.json beside the weights"),
    "hu_window": Key(INTERVAL | NULL, "Hounsfield units mapped to 0 and 1; null for percentiles of each image"),
    "picture_window": Key(INTERVAL, "Hounsfield units of black and white in pictures"),
    "picture_axes": Key(
        choice(*(x + y for x in "LR" for y in "AP"), *(y + x for x in "LR" for y in "AP")),
        "directions of a picture's columns and rows",
    ),
    "intensity_window": Key(INTERVAL | NULL, "intensities mapped to 0 and 1; null for percentiles of each image"),
    "skull_stripped": Key(SWITCH, "images hold the brain alone, with 0 outside; false scales by the head"),
    "intensity": Key(TEXT, "how intensities are scaled: a name in intensities"),
    "intensity_unit": Key(_POSITIVE, "divisor of raw intensities"),
    "zero_is_background": Key(SWITCH, "voxels with value 0 are outside the head"),
    "simulation": Key(LIST, "transforms that simulate a domain"),
    "region_rules": Key(MAPPING | NULL, "threshold, holes and smallest component of each region; null for none"),
    "learn_region_rules": Key(SWITCH, "choose region_rules on validation cases and write them to model.json"),
    "save_probabilities": Key(
        SWITCH | choice("regions"), "also write probability maps; 'regions': a compact NIfTI per region"
    ),
    "save_overlays": Key(SWITCH, "also write a picture of each case"),
    "save_nifti": Key(SWITCH, "also write label maps of photographs as NIfTI"),
    # slices, patches, photographs
    "spatial_dims": Key(whole(2, 3), "axes of the network's input: 2 for slices, 3 for patches of volumes"),
    "level_strides": Key(
        list_of(list_of(whole(1, 2))) | NULL,
        "strides of the first levels, such as [[2, 2, 1]]; others halve every axis",
    ),
    "slice_axis": Key(_AXIS | distinct(list_of(_AXIS)), "axis or axes along which volumes are sliced"),
    "plane_size": Key(list_of(_COUNT, 2), "rows and columns of a plane, from which regions of interest are cut"),
    "slice_size": Key(list_of(_COUNT, 2), "rows and columns of a slice"),
    "roi_size": Key(list_of(_COUNT, 2), "rows and columns of a recalibrated region of interest"),
    "neighbours": Key(whole(0), "slices on each side shown to the network"),
    "mirror_axes": Key(
        EMPTY | distinct(list_of(_AXIS)), "axes of the image that are mirrored in training and at inference"
    ),
    "case_statistics": Key(_SHARE, "share of a case's own statistics in batch norm layers at inference; 0 for none"),
    "in_channels": Key(_COUNT, "input channels of the network"),
    "cases_per_epoch": Key(
        _COUNT | NULL, "training cases drawn per epoch, some again if there are fewer; null: each once"
    ),
    "slices_per_volume": Key(_COUNT, "slices sampled from a volume per epoch"),
    "foreground_probability": Key(_SHARE, "probability of sampling a slice with foreground"),
    "training_crop_size": Key(list_of(_COUNT, 3) | NULL, "centre of a training volume to sample; null for the brain"),
    "test_crop_size": Key(list_of(_COUNT, 3) | NULL, "centre of a volume to segment; null for all of it"),
    "augmentation_probability": Key(_SHARE, "probability of random deformation"),
    "contrast_probability": Key(_SHARE, "probability of a random contrast curve, which may invert the image"),
    "elastic_magnitude": Key(_NOT_NEGATIVE, "largest random displacement of elastic deformation in pixels; 0 for none"),
    "augment_on_device": Key(SWITCH, "deform and change slices in batches on the device, not in the loader"),
    "skip_empty_slices": Key(SWITCH, "skip slices without signal in inference"),
    "slice_batch_size": Key(_COUNT, "slices segmented together"),
    "patch_size": Key(list_of(_COUNT, 3), "voxels of a patch"),
    "patch_stride": Key(list_of(_COUNT, 3), "distance between patch centres in voxels"),
    "patches_per_volume": Key(_COUNT | NULL, "patches sampled from a volume per epoch; null for each of them once"),
    "pad_small_images": Key(SWITCH, "pad images smaller than a patch"),
    "window_overlap": Key(number(0, below=1) | NULL, "overlap of the sliding window; null for whole planes"),
    "window_batch_size": Key(_COUNT, "windows segmented together"),
    "image_size": Key(list_of(_COUNT, 2), "columns and rows of the network's input"),
    "cached_size": Key(list_of(_COUNT, 2), "columns and rows at which photographs are cached"),
    "crop_probability": Key(_SHARE, "probability of a crop instead of the whole photograph"),
    # networks
    "base_channels": Key(_COUNT, "width of the first level"),
    "num_levels": Key(_COUNT, "levels of the network"),
    "max_channels": Key(_COUNT | NULL, "largest width of a level"),
    "full_resolution_channels": Key(whole(0), "width at full resolution; 0 for none"),
    "deep_supervision": Key(whole(0), "coarser levels whose logits also have a supervised loss in training"),
    "normalizer_base_channels": Key(_COUNT, "width of the normalizer's first level"),
    "norm": Key(NORM, "normalization layer, as in MONAI"),
    "gain_and_offset": Key(SWITCH, "the normalizer predicts a gain and an offset per voxel"),
    "normalizer_residual": Key(SWITCH, "the normalizer predicts what to add to the image"),
    "discriminator_channels": Key(list_of(_COUNT), "widths of the discriminator"),
    "discriminator_norm": Key(
        NORM | NULL,
        "normalization layer of the discriminator, as in MONAI; null for none",
    ),
    "discriminator_dropout": Key(number(0, below=1), "dropout of the discriminator"),
    "critic_base_channels": Key(_COUNT, "width of the critic's first level"),
    "critic_num_levels": Key(_COUNT, "down-sampling blocks of the critic"),
    "critic_joint": Key(SWITCH, "one critic for all classes"),
    "critic_norm": Key(
        SWITCH | NORM,
        "normalization layer of the critics, as in MONAI; true for batch norm, false for none",
    ),
    "sync_batch_norm": Key(SWITCH, "batch norm uses the images of all GPUs"),
    "structure": Key(choice("unet", "attention_unet", "fcn"), "decoder of both networks"),
    "localizer_masks": Key(SWITCH, "the localizer also learns coarse masks"),
    "localizer_depth": Key(choice(18, 34), "layers of the localizer's ResNet"),
    "segmentor_depth": Key(choice(18, 34), "layers of the segmentor's ResNet"),
    "roi_margin": Key(_NOT_NEGATIVE, "pixels added around a region of interest"),
    "heatmap_threshold": Key(number(above=0, below=1), "minimum heatmap value of a region of interest"),
    "heatmap_sigma": Key(_POSITIVE, "width in pixels of a heatmap's peaks"),
    "max_rois": Key(_COUNT, "regions of interest per slice and class"),
    "hard_crop": Key(SWITCH, "crop at integer pixels, without gradient"),
    "test_boxes": Key(whole(1, 5), "boxes per region of interest at inference, 1 to 5"),
    "mirror_rois": Key(SWITCH, "mirror regions of interest in training, and segment both at inference"),
    # training
    "epochs": Key(_COUNT, "passes over the training cases"),
    "batch_size": Key(_COUNT, "slices, patches or photographs per step"),
    "accumulation_steps": Key(_COUNT, "parts into which each batch is split, to save memory; 1 for none"),
    "val_interval": Key(_COUNT, "epochs between validations"),
    "learning_rate": Key(_POSITIVE, "learning rate of the segmentor's optimizer"),
    "learning_rate_decay": Key(_NOT_NEGATIVE, "power or factor of the decay"),
    "learning_rate_decay_epochs": Key(_COUNT, "epochs between decays"),
    "ema_decay": Key(number(0, below=1), "decay of the moving average of the weights, such as 0.99; 0 for none"),
    "critic_learning_rate": Key(_POSITIVE, "learning rate of the critics' optimizer"),
    "normalizer_learning_rate": Key(_POSITIVE, "learning rate of the normalizer"),
    "discriminator_learning_rate": Key(_POSITIVE, "learning rate of the discriminator's optimizer"),
    "adam_betas": Key(list_of(number(0, below=1), 2), "decay rates of Adam's two averages"),
    "lr_step_on": Key(FUNCTION, "maps the trainer to the arguments of the schedule's step"),
    "identity_start": Key(SWITCH, "the normalizer begins as the identity"),
    "warm_up_epochs": Key(whole(0), "epochs in which the normalizer trains alone; with warm_up_error, at most"),
    "warm_up_error": Key(
        number(above=0) | NULL, "error of the normalizer that ends its warm-up, as a fraction of the variance"
    ),
    # losses
    "adversarial_weight": Key(_NOT_NEGATIVE, "weight of the adversarial loss; 0 for none"),
    "adversarial_loss": Key(
        choice("minimax", "non_saturating", "confusion", "least_squares", "hinge", "wasserstein"),
        "objective of the generator and the discriminator",
    ),
    "discriminator_start": Key(_COUNT, "epoch in which the discriminator and the output critic join"),
    "identity_weight": Key(_NOT_NEGATIVE, "weight of the difference between normalized and raw image; 0 for none"),
    "output_weight": Key(_NOT_NEGATIVE, "weight of the critic of label maps of unlabelled images; 0 for none"),
    "unlabeled_statistics": Key(SWITCH, "norm layers keep the statistics of unlabelled images (AdaBN)"),
    "gradient_penalty_weight": Key(_NOT_NEGATIVE, "weight of the gradient penalty of the Wasserstein loss"),
    "supervised_weight": Key(_NOT_NEGATIVE, "weight of the Dice loss; 0 for none"),
    "critic_start": Key(_COUNT, "epoch in which the critics join"),
    "critic_clamp": Key(_POSITIVE, "absolute bound of the critics' weights"),
    "critic_score": Key(SWITCH, "one real-or-fake score per image instead of features"),
    "critic_input": Key(choice("multiply", "concat"), "image times mask, or image and mask as channels"),
    "critic_constraint": Key(choice("clamp", "spectral_norm", "none"), "how the critics' weights are bounded"),
    "critic_clamp_norm": Key(SWITCH, "clamp biases and norm weights of the critics too"),
    "loss_layers": Key(list_of(whole(0)) | NULL, "critic layers in the loss; null for all"),
    "loss_reduction": Key(choice("sum", "per_layer", "concat", "balanced"), "how much each layer counts"),
    "loss_layer_weights": Key(list_of(_NOT_NEGATIVE) | NULL, "one weight per layer; null for equal weights"),
    # unlabelled images
    "consistency_weight": Key(_NOT_NEGATIVE, "weight of the difference to the teacher; 0 for none"),
    "consistency_loss": Key(choice("mse", "dice"), "difference of the segmentor and the teacher"),
    "consistency_ramp": Key(_NOT_NEGATIVE, "epochs in which consistency_weight rises"),
    "unpaired_weight": Key(_NOT_NEGATIVE, "weight of the critic's distance of mean features; 0 for none"),
    "unpaired_layers": Key(list_of(whole(1)) | NULL, "critic layers of that distance; null for all but the input"),
    "unpaired_momentum": Key(number(0, below=1), "share of the previous value in the running mean features"),
    "patch_weight": Key(_NOT_NEGATIVE, "weight of the critic's patch scores; 0 for none"),
    "patch_loss": Key(choice("hinge", "least_squares"), "objective of the patch scores"),
    "unlabeled_critic_start": Key(_COUNT, "epoch in which the critics see unlabelled images"),
    "unlabeled_critic_ramp": Key(_NOT_NEGATIVE, "epochs in which unpaired_weight and patch_weight rise"),
    "balance_gradients": Key(SWITCH, "weights of the critics' terms are relative to the gradient of the Dice loss"),
    "mask_blur": Key(_NOT_NEGATIVE, "blur of true masks in pixels, for critics of unlabelled images; 0 for none"),
    "mask_noise": Key(_NOT_NEGATIVE, "noise on masks at first, for critics of unlabelled images; 0 for none"),
    # other losses
    "class_weights": Key(
        list_of(_NOT_NEGATIVE) | choice("inverse") | NULL,
        "one weight per class, or 'inverse' for 1 / its voxels; null for equal weights",
    ),
    "include_background": Key(SWITCH, "include the background in the loss"),
    "gradient_decay": Key(_NOT_NEGATIVE, "factor of the segmentor's gradient in the localizer"),
    "true_box_share": Key(
        _SHARE | NULL, "share of the epochs in which the segmentor also sees true boxes; null: all, only true ones"
    ),
    "box_jitter": Key(_NOT_NEGATIVE, "shift of a true box's edges, as a share of its size"),
    "roi_jitter": Key(_NOT_NEGATIVE, "shift of a predicted box's edges in training, as a share of its size"),
    "focal_weight": Key(_NOT_NEGATIVE, "weight of the focal loss"),
    "dice_weight": Key(_NOT_NEGATIVE, "weight of the Dice loss"),
}
