# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Labels that are known in part: ignore value and missing regions, from the label map to the validation's Dice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from monai.transforms import Compose, RandAffined

from segan_monai.errors import ConfigError, DataError
from segan_monai.metrics import KnownDiceMetric
from segan_monai.transforms import (
    HideUnknownd,
    LabelToRegionsd,
    RandSlicesd,
    SlicesWithContentd,
    known_voxels,
    label_to_regions,
)

REGIONS = {"whole": [1, 2], "core": [2]}
LABEL = torch.tensor([[[0, 1, 2, 255]]])


def test_ignored_voxels_are_in_no_region_and_unknown():
    assert label_to_regions(LABEL, REGIONS, 255).tolist() == [[[0, 1, 1, 0]], [[0, 0, 1, 0]]]
    assert known_voxels(LABEL, REGIONS, 255).tolist() == [[[1, 1, 1, 0]], [[1, 1, 1, 0]]]
    assert known_voxels(LABEL, REGIONS).tolist() == [[[1, 1, 1, 1]], [[1, 1, 1, 1]]]


def test_regions_that_a_case_lacks_are_unknown_everywhere():
    case = LabelToRegionsd("label", REGIONS, ignore_label=255, mask_key="mask")(
        {"case": "a", "label": LABEL, "labelled_regions": ["core"]}
    )
    assert case["mask"].tolist() == [[[0, 0, 0, 0]], [[1, 1, 1, 0]]]
    assert case["label"].tolist() == [[[0, 0, 0, 0]], [[0, 0, 1, 0]]], "no slice is drawn for what is hidden"
    assert "labelled_regions" not in case, "lists of different lengths cannot be collated"


def test_there_is_no_mask_unless_it_is_asked_for():
    assert set(LabelToRegionsd("label", REGIONS, ignore_label=255)({"label": LABEL})) == {"label"}
    assert LabelToRegionsd("label", REGIONS, allow_missing_keys=True, mask_key="mask")({"image": 1}) == {"image": 1}


def test_regions_that_a_case_lacks_are_never_background_without_a_mask():
    convert = LabelToRegionsd("label", REGIONS, allow_missing_keys=True)
    label = torch.tensor([[[0, 1, 2]]])
    message = r"given label map: case a has labelled_regions \['core'\].*all of whole, core.*Omit the case, label its"
    with pytest.raises(DataError, match=message):
        convert({"case": "a", "label": label, "labelled_regions": ["core"]})
    all_of_them = convert({"case": "a", "label": label, "labelled_regions": ["core", "whole"]})
    assert all_of_them["label"].tolist() == [[[0, 1, 1]], [[0, 0, 1]]]
    assert convert({"case": "a", "labelled_regions": ["core"]}) == {"case": "a"}, "no label map, nothing to mistake"


def two_regions() -> dict:
    """Ten slices of 3 x 2: region ``whole`` in slices 2 to 6, and ``core`` in slice 4; slice 6 is unknown in part."""
    label = torch.zeros(1, 3, 2, 10)
    label[0, 1, :, 2:7] = 1
    label[0, 1, 0, 4] = 2
    label[0, 0, 0, 6] = 255
    return {"case": "a", "label": label}


def convert(number, seed=0, **fields):
    transform = LabelToRegionsd("label", REGIONS, ignore_label=255, mask_key="mask")
    return transform({**two_regions(), **fields, "annotated_slices": {"number": number, "seed": seed}})


def test_nothing_is_known_but_the_annotated_slices():
    complete = LabelToRegionsd("label", REGIONS, ignore_label=255, mask_key="mask")(two_regions())
    drawn = set()
    for seed in range(40):
        case = convert(1, seed)
        (index,) = case["mask"].flatten(0, 2).any(0).nonzero().flatten().tolist()
        drawn.add(index)
        for key in ("mask", "label"):
            assert torch.equal(case[key][..., index], complete[key][..., index])
            assert case[key].sum() == complete[key][..., index].sum(), "0 in all other slices, so never foreground"
        assert case["mask"].sum() == (10 if index == 6 else 12)
        assert "annotated_slices" not in case
    assert drawn == {2, 3, 4, 5, 6}, "slices with a region"


def test_the_draw_of_annotated_slices():
    masks = [convert(2, seed)["mask"] for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(masks[0], masks[1])
    assert not all(torch.equal(masks[0], mask) for mask in masks)
    assert all(mask.flatten(0, 2).any(0).sum() == 2 for mask in masks)
    others = [convert(1, case=name)["mask"] for name in "abcdef"]
    assert not all(torch.equal(others[0], mask) for mask in others), "of each case by itself"
    assert convert(9)["mask"].flatten(0, 2).any(0).nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


def test_annotated_slices_of_a_case_that_lacks_a_region():
    case = convert(1, labelled_regions=["core"])
    assert case["mask"].flatten(1, 2).any(1).nonzero().tolist() == [[1, 4]], "the only slice with the core"
    assert case["label"].sum(dim=(1, 2, 3)).tolist() == [0, 1]


def test_annotated_slices_without_foreground_or_without_slices():
    transform = LabelToRegionsd("label", REGIONS, mask_key="mask")
    drawn = {"annotated_slices": {"number": 1, "seed": 0}}
    assert transform({"case": "a", "label": torch.zeros(1, 3, 2, 10), **drawn})["mask"].sum() == 12
    with pytest.raises(DataError, match=r"annotated_slices is for volumes; found a label of shape \(2, 3, 2\)"):
        transform({"case": "a", "label": torch.zeros(1, 3, 2), **drawn})


@pytest.mark.parametrize(("ignore_label", "holder"), [(0, "the background"), (2, "whole"), (1, "whole")])
def test_a_value_that_is_in_use(ignore_label, holder):
    message = rf"ignore_label is {ignore_label}, which is a value of {holder}. Set it to the value of voxels"
    with pytest.raises(ConfigError, match=message):
        LabelToRegionsd("label", REGIONS, ignore_label=ignore_label)


@pytest.mark.parametrize("listed", [[], ["core", "edge"]])
def test_regions_that_do_not_exist(listed):
    with pytest.raises(DataError, match=r"case a has labelled_regions \[.*expected one or more of whole, core"):
        known_voxels(LABEL, REGIONS, None, listed, "a")


def test_another_value_is_still_refused():
    with pytest.raises(DataError, match=r"values 255 \(1 voxels\) that are in no region.* --ignore_label VALUE"):
        label_to_regions(LABEL, REGIONS)
    with pytest.raises(DataError, match=r"values 255 \(1 voxels\) that are in no region. Allowed are 0, 1, 2, 7"):
        label_to_regions(LABEL, REGIONS, 7)


def volume() -> dict:
    """Ten slices with image content, two of them annotated: slice 3 with foreground, slice 7 without."""
    label = torch.full((1, 8, 8, 10), 255)
    label[..., 3], label[..., 7] = 0, 0
    label[0, 2:4, 2:4, 3] = 1
    image = torch.arange(1.0, 11).expand(1, 8, 8, 10).clone()  # the number of the slice, counted from 1
    return {"image": image, "label": label}


def drawn(number=200, foreground_probability=0.5, size=(8, 8)):
    keys = ["image", "label", "mask"]
    transform = Compose(
        [
            LabelToRegionsd("label", {"lesion": [1]}, ignore_label=255, mask_key="mask"),
            SlicesWithContentd(keys),
            RandSlicesd(
                keys,
                label_key="label",
                num_samples=number,
                roi_size=size,
                foreground_probability=foreground_probability,
            ),
        ]
    ).set_random_state(0)
    return transform(volume())


def test_only_annotated_slices_are_drawn():
    found = [int(sample["image"].max()) - 1 for sample in drawn()]
    assert set(found) == {3, 7}
    assert 120 < found.count(3) < 180, "half of all as foreground, and half of the others"
    found = [int(sample["image"].max()) - 1 for sample in drawn(foreground_probability=0)]
    assert 80 < found.count(3) < 120


def test_the_mask_is_cut_like_the_label_and_0_outside_the_volume():
    for sample in drawn(number=4, size=(10, 10)):
        assert sample["mask"].shape == sample["label"].shape == (1, 10, 10)
        assert sample["mask"][:, 1:9, 1:9].all()
        assert sample["mask"].sum() == 64


def test_the_mask_moves_with_the_image():
    image = torch.zeros(1, 16, 16)
    image[:, 4:8, 4:12] = 1
    keys = ["image", "label", "mask"]
    modes = ["nearest", "nearest", "nearest"]
    move = RandAffined(keys, prob=1, rotate_range=0.5, translate_range=3, mode=modes, padding_mode="zeros")
    moved = move.set_random_state(3)({"image": image, "label": image.clone(), "mask": image.clone()})
    assert not torch.equal(moved["mask"], image)
    assert torch.equal(moved["mask"], moved["image"])
    assert torch.equal(moved["mask"], moved["label"])


def test_dice_of_known_voxels():
    """Region 0: TP 1, FP 1, FN 0 of known voxels: 2 / 3. Region 1 of case 2 is unknown, that of case 1 is right: 1."""
    prediction = torch.tensor([[[1.0, 1, 0, 1]], [[0, 1, 0, 0]]])
    label = torch.tensor([[[1, 0, 0, 0]], [[0, 1, 0, 0]]], dtype=torch.uint8)
    mask = torch.tensor([[[1, 1, 1, 0]], [[1, 1, 1, 1]]], dtype=torch.uint8)
    hide = HideUnknownd(["pred", "label"])
    cases = [
        hide({"pred": prediction, "label": label, "mask": mask}),
        hide({"pred": prediction, "label": label, "mask": mask * torch.tensor([1, 0]).view(2, 1, 1)}),
    ]
    per_region = KnownDiceMetric(ignore_empty=False, reduction="mean_batch")
    mean = KnownDiceMetric(ignore_empty=False)
    for case in cases:
        for metric in (per_region, mean):
            metric(y_pred=[case["pred"]], y=[case["label"]])
    assert per_region.aggregate().tolist() == pytest.approx([2 / 3, 1])
    assert mean.aggregate().item() == pytest.approx(((2 / 3 + 1) / 2 + 2 / 3) / 2)
    assert per_region.get_buffer()[1].isnan().tolist() == [False, True]


def test_a_region_without_labels_is_absent_not_collapsed():
    metric = KnownDiceMetric(ignore_empty=False, reduction="mean_batch", return_with_label=["a", "b"])
    label = torch.tensor([[[1.0, 0]], [[0, 1]]])
    hidden = label.clone()
    hidden[1] = torch.nan
    metric(y_pred=[label], y=[hidden])
    assert metric.aggregate() == {"a": 1.0}
    metric(y_pred=[label], y=[label])
    assert metric.aggregate() == {"a": 1.0, "b": 1.0}


def test_without_unknown_voxels_dice_is_that_of_monai():
    generator = torch.Generator().manual_seed(0)
    prediction, label = (torch.rand(3, 2, 6, 6, generator=generator).round() for _ in range(2))
    label[0, 0] = prediction[0, 0] = 0
    label[1, 1] = 0
    ours, theirs = (metric(ignore_empty=False) for metric in (KnownDiceMetric, DiceMetric))
    assert torch.equal(ours(prediction, label), theirs(prediction, label))
    assert HideUnknownd(["pred", "label"])({"pred": 1, "label": 2}) == {"pred": 1, "label": 2}


def test_unlabelled_volumes_are_drawn_uniformly():
    keys = ["image", "label"]
    transform = Compose(
        [
            SlicesWithContentd(keys, allow_missing_keys=True),
            RandSlicesd(keys, label_key="label", num_samples=300, roi_size=(8, 8), allow_missing_keys=True),
        ]
    ).set_random_state(0)
    samples = transform({"case": "u", "image": volume()["image"]})
    assert all(set(sample) == {"case", "image", "uniform"} and sample["uniform"] for sample in samples)
    counts = np.bincount([int(sample["image"].max()) - 1 for sample in samples], minlength=10)
    assert (counts > 12).all()
