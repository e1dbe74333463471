# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The metrics' rules against implementations that have nothing to do with them: SimpleITK, scikit-learn, scipy."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import Phase, assume, example, given
from hypothesis import settings as run
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from segan_monai.errors import DataError
from segan_monai.metrics import (
    LabelMap,
    case_metrics,
    evaluate_case,
    evaluate_folders,
    overlap_metrics,
    summarize,
    surface_distances,
    surface_metrics,
    write_evaluation,
)
from tests.bundles.volumes import Storage, grids, make_grid, storages, write

PROPERTY = run(max_examples=80, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
OVERLAPS = ("dice", "iou", "precision", "sensitivity")
DISTANCES = ("hd95_mm", "assd_mm")
SPACINGS = st.tuples(*[st.floats(0.2, 8.0)] * 3)
ONE_VOXEL = np.zeros((3, 4, 5), bool)
ONE_VOXEL[2, 0, 4] = True  # in a corner of the image


@st.composite
def masks(draw, shape=None):
    """A mask: noise, a box (perhaps at the border), one voxel, or nothing."""
    kind = draw(st.sampled_from(["noise", "noise", "box", "box", "voxel", "empty"]))
    mask = np.zeros(shape, bool)
    if kind == "noise":
        return np.random.default_rng(draw(st.integers(0, 2**32))).random(shape) < draw(st.floats(0.05, 0.95))
    if kind != "empty":
        corner = [draw(st.integers(0, length - 1)) for length in shape]
        size = [draw(st.integers(1, length)) if kind == "box" else 1 for length in shape]
        mask[tuple(slice(first, first + length) for first, length in zip(corner, size, strict=True))] = True
    return mask


@st.composite
def pairs(draw):
    """Prediction and reference of one shape, down to one voxel."""
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    return draw(masks(shape)), draw(masks(shape))


def as_image(mask, spacing=(1.0, 1.0, 1.0)):
    image = sitk.GetImageFromArray(mask.T.astype(np.uint8))
    image.SetSpacing(spacing)
    return image


@PROPERTY
@given(pairs())
def test_overlap(pair):
    prediction, reference = pair
    found = overlap_metrics(prediction, reference)
    if prediction.any() and reference.any():
        flat = reference.ravel(), prediction.ravel()
        expected = [score(*flat, zero_division=0) for score in (f1_score, jaccard_score, precision_score, recall_score)]
        filters = sitk.LabelOverlapMeasuresImageFilter()
        filters.Execute(as_image(reference), as_image(prediction))  # source, target
        np.testing.assert_allclose([found[name] for name in OVERLAPS], expected, atol=1e-12)
        np.testing.assert_allclose(
            [found["dice"], found["iou"]], [filters.GetDiceCoefficient(1), filters.GetJaccardCoefficient(1)], atol=1e-12
        )
    else:
        assert set(found.values()) == {float(prediction.any() == reference.any())}
    swapped = overlap_metrics(reference, prediction)
    assert (swapped["precision"], swapped["sensitivity"]) == (found["sensitivity"], found["precision"])
    assert (swapped["dice"], swapped["iou"]) == (found["dice"], found["iou"])
    assert found["dice"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))


def distances_of_itk(mask, other, spacing):
    """From the contour of one mask to that of the other: ITK's contour filter and its distance map.

    As in `surface_distances`, the outside of the image is outside the mask, and a single slice has a contour.
    """
    kept = [axis for axis, length in enumerate(mask.shape) if length > 1]
    if not kept:
        return np.zeros(1)
    spacing = [spacing[axis] for axis in kept]
    contours = []
    for one in (mask, other):
        one = np.pad(one.squeeze(), 1)
        if one.ndim == 1:  # ITK has no image of one dimension
            contours.append(one & ~(np.roll(one, 1) & np.roll(one, -1)))
        else:
            contour = sitk.BinaryContour(as_image(one), fullyConnected=False)
            contours.append(sitk.GetArrayFromImage(contour).T.astype(bool))
    if contours[0].ndim == 1:
        distances = distance_transform_edt(~contours[1], sampling=spacing)
    else:
        image = as_image(contours[1], spacing)
        settings = {"insideIsPositive": False, "squaredDistance": False, "useImageSpacing": True}
        distances = np.maximum(sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, **settings)).T, 0)
    return np.sort(distances[contours[0]])


@PROPERTY
@given(pairs(), SPACINGS)
@example((ONE_VOXEL, ONE_VOXEL[::-1, ::-1, ::-1].copy()), (0.5, 1.0, 4.0))
@example((np.ones((4, 5, 6), bool), np.ones((4, 5, 6), bool)), (1.0, 2.0, 3.0))  # nothing but border
@example((np.ones((1, 7, 1), bool), np.eye(1, 7, dtype=bool)[:, :, None]), (9.0, 2.0, 9.0))
def test_surface_distances(pair, spacing):
    prediction, reference = pair
    assume(prediction.any() and reference.any())
    to_reference, to_prediction = surface_distances(prediction, reference, spacing)
    expected = distances_of_itk(prediction, reference, spacing), distances_of_itk(reference, prediction, spacing)
    np.testing.assert_allclose(np.sort(to_reference), expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.sort(to_prediction), expected[1], rtol=1e-5, atol=1e-5)
    found = surface_metrics(prediction, reference, spacing)
    assert found["hd95_mm"] == pytest.approx(max(np.quantile(d, 0.95) for d in expected), rel=1e-5, abs=1e-5)
    assert found["assd_mm"] == pytest.approx(np.concatenate(expected).mean(), rel=1e-5, abs=1e-5)
    assert surface_metrics(reference, prediction, spacing) == pytest.approx(found)


@PROPERTY
@given(pairs(), SPACINGS)
def test_hausdorff_distance_is_that_of_itk(pair, spacing):
    """ITK's filter takes all voxels of the masks: the same, as the farthest one from a mask is on the surface."""
    prediction, reference = pair
    reference = reference & ~prediction
    assume(prediction.any() and reference.any() and min(prediction.shape) > 1)
    filters = sitk.HausdorffDistanceImageFilter()
    filters.Execute(as_image(prediction, spacing), as_image(reference, spacing))
    largest = max(distances.max() for distances in surface_distances(prediction, reference, spacing))
    assert largest == pytest.approx(filters.GetHausdorffDistance(), rel=1e-5)


@PROPERTY
@given(pairs(), SPACINGS, st.floats(0.1, 10.0), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_what_changes_no_metric(pair, spacing, factor, order, flips):
    """Axes in another order or direction; air around the image. Millimetres scale distances and volumes."""
    found = case_metrics(*pair, spacing, {"a": [1]})[0]
    flip = tuple(slice(None, None, -1 if flipped else 1) for flipped in flips)
    moved = [mask.transpose(order)[flip] for mask in pair]
    assert case_metrics(*moved, [spacing[axis] for axis in order], {"a": [1]})[0] == pytest.approx(found, nan_ok=True)
    if min(pair[0].shape) > 1:
        air = [np.pad(mask, 2) for mask in pair]
        assert case_metrics(*air, spacing, {"a": [1]})[0] == pytest.approx(found, nan_ok=True)
    scaled = case_metrics(*pair, [factor * size for size in spacing], {"a": [1]})[0]
    for name, power in (
        *((n, 0) for n in OVERLAPS),
        *((n, 1) for n in DISTANCES),
        ("reference_ml", 3),
        ("prediction_ml", 3),
    ):
        assert scaled[name] == pytest.approx(found[name] * factor**power)


@PROPERTY
@given(arrays(np.uint8, (4, 5, 6), elements=st.integers(0, 3)), SPACINGS)
def test_volumes(label, spacing):
    filters = sitk.LabelShapeStatisticsImageFilter()
    filters.Execute(as_image(label, spacing))
    rows = case_metrics(label, np.zeros_like(label), spacing, {str(value): [value] for value in (1, 2, 3)})
    for row in rows:
        value = int(row["region"])
        expected = filters.GetPhysicalSize(value) / 1000 if filters.HasLabel(value) else 0
        assert row["prediction_ml"] == pytest.approx(expected)
        assert row["reference_ml"] == 0
    united = case_metrics(label, label, spacing, {"all": [1, 2, 3]})[0]
    assert united["reference_ml"] == pytest.approx(sum(row["prediction_ml"] for row in rows))


@PROPERTY
@given(grids(9), st.lists(st.integers(0, 2**32), min_size=2, max_size=2))
def test_spacing_and_volume_of_any_grid(grid, seeds):
    """Of an oblique or flipped grid only the size of the voxels counts."""
    label, other = (np.random.default_rng(seed).integers(0, 2, grid.shape) for seed in seeds)
    (found,) = evaluate_case("a", LabelMap("p", other, grid.affine), LabelMap("r", label, grid.affine), {"x": [1]})
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    assert found == pytest.approx({"case": "a", **case_metrics(other, label, spacing, {"x": [1]})[0]}, nan_ok=True)
    assert found["reference_ml"] == pytest.approx(label.sum() * abs(np.linalg.det(grid.affine[:3, :3])) / 1000)


CASES = st.lists(st.integers(0, 2**32), min_size=1, max_size=12)


def table_of(seeds):
    """Cases of which every kind occurs: overlapping, apart, one or both masks empty; in an order of their own."""
    rows = []
    for index, seed in enumerate(seeds):
        random = np.random.default_rng(seed)
        pair = [(random.random((5, 4, 3)) < random.choice([0, 0.1, 0.6])) * 1 for _ in range(2)]
        rows += [{"case": f"case{index}", **row} for row in case_metrics(*pair, (1, 2, 3), {"a": [1], "b": [1, 2]})]
    return pd.DataFrame(rows)


@PROPERTY
@given(CASES, st.randoms(use_true_random=False))
@example([3], None)
def test_summary_drops_no_case(seeds, random):
    table = table_of(seeds)
    summary = summarize(table)
    assert summary["cases"] == len(seeds)
    for region, rows in table.groupby("region"):
        found = summary["regions"][region]
        true, predicted = rows["reference_ml"].to_numpy(), rows["prediction_ml"].to_numpy()
        kinds = {
            "both_empty": (true == 0) & (predicted == 0),
            "only_reference_empty": (true == 0) & (predicted > 0),
            "only_prediction_empty": (true > 0) & (predicted == 0),
            "no_overlap": (true > 0) & (predicted > 0) & (rows["dice"].to_numpy() == 0),
        }
        assert {name: found[name] for name in kinds} == {name: which.sum() for name, which in kinds.items()}
        one_empty = kinds["only_reference_empty"] | kinds["only_prediction_empty"]
        assert found["failures"] == len(found["failed_cases"]) == one_empty.sum() + kinds["no_overlap"].sum()
        assert found["cases"] == len(seeds)
        for name in OVERLAPS:  # a mean over all of them, failures as 0
            assert found[name]["mean"] == pytest.approx(math.fsum(rows[name]) / len(seeds))
            assert (rows[name].to_numpy()[one_empty] == 0).all()
        for name in DISTANCES:
            assert found[name]["infinite"] == one_empty.sum()
            assert (found[name]["mean"] is None) == bool(one_empty.any())
            finite = rows[name][np.isfinite(rows[name])]
            assert len(finite) + found[name]["infinite"] == len(seeds)
            assert found[name]["mean_of_finite"] == (pytest.approx(finite.mean()) if len(finite) else None)
    if random is not None:
        order = random.sample(range(len(table)), len(table))
        shuffled = summarize(table.iloc[order])
        for region, expected in summary["regions"].items():
            found = shuffled["regions"][region]
            assert sorted(found.pop("failed_cases")) == sorted(expected.pop("failed_cases"))
            assert json.loads(json.dumps(found)) == approximately(expected)


def approximately(value):
    if isinstance(value, dict):
        return {key: approximately(inner) for key, inner in value.items()}
    return pytest.approx(value, nan_ok=True) if isinstance(value, float) else value


@PROPERTY
@given(CASES)
def test_the_files_say_the_same(tmp_path_factory, seeds):
    """`metrics.csv` read by itself gives `summary.json`: what is on disk is the whole truth."""
    folder = tmp_path_factory.mktemp("evaluation")
    table = table_of(seeds)
    write_evaluation(table, folder)
    again = summarize(pd.read_csv(folder / "metrics.csv"))
    assert len((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * len(seeds)
    stored = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for region in stored["regions"]:
        for key, value in stored["regions"][region].items():
            assert again["regions"][region][key] == approximately(value)


@run(max_examples=30, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(
    grids(9), storages(("uint8", "int16", "float32")), storages(("uint8", "int16", "float64")), st.integers(0, 2**32)
)
def test_files_of_any_format_are_compared_on_their_grid(tmp_path_factory, grid, storage, other, seed):
    """A prediction equal to its reference is perfect however each of them is written; one moved by 2 mm is refused."""
    folder = tmp_path_factory.mktemp("files")
    label = 2 * np.random.default_rng(seed).integers(0, 3, grid.shape)
    label.flat[0] = 2
    plain = [Storage(s.suffix, s.dtype, s.big_endian, s.nifti2, s.slope, s.intercept, "both") for s in (storage, other)]
    for kind, of_kind in zip(("predictions", "references"), plain, strict=True):
        (folder / kind).mkdir()
        write(folder / kind / "case", label, grid, of_kind)
    table = evaluate_folders(folder / "predictions", folder / "references", folder / "out", workers=1)
    assert (table["dice"] == 1).all()
    assert (table["hd95_mm"] == 0).all()
    voxel_ml = abs(np.linalg.det(grid.affine[:3, :3])) / 1000
    of_two = table[table["region"] == "label_2"]
    assert of_two["reference_ml"].item() == pytest.approx((label == 2).sum() * voxel_ml, rel=1e-4)


def test_grids_are_told_apart_in_every_format(tmp_path):
    grid, moved = make_grid((4, 5, 6), "LPS"), make_grid((4, 5, 6), "LPS", origin=(0, 2, 0))
    for suffix in (".nii.gz", ".mha", ".nrrd"):
        folder = tmp_path / suffix
        for kind, of_kind in (("predictions", moved), ("references", grid)):
            (folder / kind).mkdir(parents=True)
            write(folder / kind / "case", np.full((4, 5, 6), 2), of_kind, Storage(suffix))
        with pytest.raises(DataError, match=r"case.* lie up to 2 mm apart"):
            evaluate_folders(folder / "predictions", folder / "references", folder / "out", workers=1)
