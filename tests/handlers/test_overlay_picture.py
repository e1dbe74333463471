# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator

from segan_monai.handlers import OverlayPicture
from segan_monai.handlers.overlay_picture import to_ras


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
    handler.attach(engine)
    engine.run()
    return handler


def test_the_slice_with_most_reference_is_kept_and_cropped(tmp_path):
    (kept,) = run(tmp_path / "overlay.png", [case("a", 10)]).slices
    assert kept.dice == 1
    assert kept.image.shape == (2, 38, 30)  # rows 1 to 38, columns 4 to 33: the content and a margin of 4
    assert kept.reference[0].sum() == kept.prediction[0].sum() == 100


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (5, 3)])
def test_worst_median_and_best_are_drawn(tmp_path, count, rows):
    handler = run(tmp_path / "overlay.png", [case(str(index), 2 * index + 1) for index in range(count)])
    assert len(handler.slices) == count
    height, width = imread(tmp_path / "overlay.png").shape[:2]
    assert height == pytest.approx(120 * (3.6 * rows + 0.5), abs=2)
    assert width > 600
