# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image

from segan_monai.handlers import EvaluationReport, PhotographPicture
from segan_monai.transforms import LoadPhotographd

SKIN = (230, 180, 160)
CYAN = (0, 1, 1)


@pytest.fixture
def case(tmp_path):
    """A photograph of 1200 x 800 with a lesion in its upper left, found but for its left half."""
    Image.new("RGB", (1200, 800), SKIN).save(tmp_path / "a.jpg")
    mask = np.zeros((800, 1200), np.uint8)
    mask[100:300, 200:600] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    prediction = torch.zeros(1, 1200, 800)
    prediction[:, 400:600, 100:300] = 1
    files = {"case": "a", "image": str(tmp_path / "a.jpg"), "label": str(tmp_path / "a.png")}
    loaded = LoadPhotographd(size=(32, 32), resize_masks=False)(files)
    return {**loaded, "prediction": MetaTensor(prediction, affine=loaded["label"].affine)}


def test_outlines_are_where_the_lesion_is(case, tmp_path):
    handler = PhotographPicture(tmp_path / "overlay.png", {"lesion": [255]}, {"lesion": [1]})
    engine = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader([case], batch_size=1),
        torch.nn.Identity(),
        prepare_batch=lambda batch, *args, **kwargs: (batch["prediction"], batch["label"]),
    )
    EvaluationReport(tmp_path, {"lesion": [255]}, {"lesion": [1]}).attach(engine)
    handler.attach(engine)
    engine.run()
    (kept,) = handler.slices
    assert kept.dice == pytest.approx(2 / 3)
    assert kept.image.shape == (640, 427, 3)
    assert kept.reference[0].sum() == pytest.approx(2 * kept.prediction[0].sum(), rel=0.02)
    picture = imread(tmp_path / "overlay.png")[..., :3]
    skin = np.argwhere(np.abs(picture - np.array(SKIN) / 255).max(-1) < 0.05)
    (top, left), (bottom, right) = skin.min(0), skin.max(0)
    assert (right - left) / (bottom - top) == pytest.approx(1.5, rel=0.02)
    outlines = np.argwhere(np.abs(picture[:bottom] - np.array(CYAN)).max(-1) < 0.3)
    found = (outlines - (top, left)) / (bottom - top, right - left)
    assert found.min(0) == pytest.approx([100 / 800, 200 / 1200], abs=0.02)
    assert found.max(0) == pytest.approx([300 / 800, 600 / 1200], abs=0.02)
