# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator

from segan_monai.handlers import EvaluationReport, OverlayPicture
from segan_monai.pictures.overlay_picture import MOST_CASES, ShownCase, chosen_cases, chosen_slices, to_ras
from segan_monai.report import load_previews


def test_volumes_are_turned_to_right_anterior_superior():
    # The first voxel axis runs inferior, 4 mm a voxel; the second right, 2 mm; the third posterior, 3 mm.
    affine = torch.tensor([[0.0, 2, 0, 0], [0, 0, -3, 0], [-4, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    volume = torch.zeros(1, 5, 6, 7)
    volume[0, 0, 5, 6] = 1  # most superior, most right, most posterior
    turned, spacing = to_ras(MetaTensor(volume, affine=affine))
    assert turned.shape == (1, 6, 7, 5)
    assert np.argwhere(turned[0]).tolist() == [[5, 0, 4]]
    assert spacing.tolist() == [2, 3, 4]


def case(name, overlap):
    image, label = torch.zeros(2, 40, 40, 5), torch.zeros(1, 40, 40, 5)
    image[:, 5:35, 8:30] = torch.rand(2, 30, 22, 5)
    label[:, 10:20, 10:20, 3] = 1
    prediction = torch.zeros(1, 40, 40, 5)
    prediction[:, 10 : 10 + overlap, 10:20, 3] = 2
    volumes = {"image": image, "label": label, "prediction": prediction}
    return {"case": name, **{key: MetaTensor(volume, affine=torch.eye(4)) for key, volume in volumes.items()}}


def run(file, cases):
    handler = OverlayPicture(file, {"lesion": [1]}, {"lesion": [2]}, ["T1", "FLAIR"])
    engine = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(cases, batch_size=1),
        torch.nn.Identity(),
        prepare_batch=lambda batch, *args, **kwargs: (batch["prediction"], batch["label"]),
    )
    EvaluationReport(file.parent, {"lesion": [1]}, {"lesion": [2]}, ignore_label=255).attach(engine)
    handler.attach(engine)
    engine.run()
    return handler


def test_the_slice_with_most_reference_is_kept_and_cropped(tmp_path):
    (kept,) = run(tmp_path / "overlay.png", [case("a", 10)]).slices
    assert kept.dice == 1
    assert kept.image.shape == (
        2,
        38,
        30,
        4,
    )  # slices 1 to 4; rows 1 to 38, columns 4 to 33: the content and a margin of 4
    assert kept.reference[0].sum() == kept.prediction[0].sum() == 100


def test_unknown_voxels_and_unlabelled_regions_do_not_count(tmp_path):
    unknown, unlabelled, partly = (case(name, 20) for name in ("unknown", "unlabelled", "partly"))
    unknown["label"][:, 20:30, 10:20, 3] = 255  # where the prediction exceeds the reference
    unlabelled["labelled_regions"], partly["labelled_regions"] = [], ["lesion"]
    regions = {"lesion": [1], "oedema": [2]}
    report = EvaluationReport(tmp_path, regions, {"lesion": [2], "oedema": [1]}, ignore_label=255)
    picture = OverlayPicture(tmp_path / "overlay.png", regions, {"lesion": [2], "oedema": [1]}, ["T1", "FLAIR"])
    for one in (unknown, unlabelled, partly):
        engine = SimpleNamespace(state=SimpleNamespace(batch=[one], output=[{"pred": one["prediction"]}]))
        report.collect(engine)
        picture.collect(engine)
    # of 100 and 200 voxels, 100 in common; no oedema in either
    assert [(kept.case, kept.dice) for kept in picture.slices] == [("unknown", 1.0), ("partly", pytest.approx(2 / 3))]


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (5, 3)])
def test_worst_median_and_best_are_drawn(tmp_path, count, rows):
    handler = run(tmp_path / "overlay.png", [case(str(index), 2 * index + 1) for index in range(count)])
    assert len(handler.slices) == count
    previews = load_previews(tmp_path / "previews.npz")
    assert [preview.case for preview in previews.values()] == (
        ["0", "2", "4"] if count == 5 else [str(i) for i in range(count)]
    )
    height, width = imread(tmp_path / "overlay.png").shape[:2]
    assert height == pytest.approx(120 * (3.6 * rows + 0.5), abs=2)
    assert width > 600


def test_previews_lie_as_radiologists_see_them(tmp_path):
    run(tmp_path / "overlay.png", [case("a", 3)])
    (preview,) = load_previews(tmp_path / "previews.npz").values()
    assert (preview.image.shape, preview.reference.shape) == ((4, 2, 30, 38), (4, 1, 30, 38))
    assert preview.middle == 2  # of slices 1 to 4 the one with the lesion
    # Rows 10 to 19 of x, right of the patient last, lie 9 to 18 from the crop's end at 38, seen from the left.
    rows, columns = np.nonzero(preview.reference[2, 0])
    assert (columns.min(), columns.max()) == (37 - (19 - 1), 37 - (10 - 1))
    assert (rows.min(), rows.max()) == (29 - (19 - 4), 29 - (10 - 4))
    assert preview.prediction[2, 0].sum() == 30


def test_slices_with_an_object_are_shown_evenly_thinned():
    area = np.zeros(100)
    area[10:80] = 1
    slices = chosen_slices(area, 41, most=10)
    assert (slices[0], slices[-1], len(slices)) == (8, 81, 10)
    assert 41 in slices
    assert chosen_slices(np.zeros(5), 2) == [0, 1, 2, 3, 4]
    assert chosen_slices(np.ones(1), 0) == [0]


def test_memory_is_bounded_and_worst_median_and_best_stay(tmp_path):
    handler = OverlayPicture(tmp_path / "p.png", {"a": [1]}, {"a": [1]}, ["T1"])
    scores = np.random.default_rng(0).permutation(101) / 100
    for dice in scores:
        handler.keep(ShownCase(f"{dice:.2f}", float(dice), np.zeros((1, 2, 2, 1)), [], [], 1.0))
    assert len(handler.slices) == MOST_CASES
    found = {role: shown.dice for role, shown in chosen_cases(handler.slices, handler.scores).items()}
    assert (found["worst"], found["best"]) == (0, 1)
    assert found["median"] == pytest.approx(0.5, abs=0.05)
