# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import torch
from ignite.engine import Engine
from torch import nn

from segan_monai.handlers import PatchReport
from segan_monai.handlers.patch_report import dice_of_patches


def test_pooled_and_mean_dice_by_hand():
    # voxels in both, in the prediction, in the reference; the second region is in the second patch alone
    counts = torch.tensor([[[1, 2, 2], [0, 0, 0]], [[3, 3, 5], [0, 0, 4]]])
    found = dice_of_patches(counts, ["a", "b"])
    assert found["a"] == {"dice": round(8 / 12, 4), "dice_mean": round((0.5 + 0.75) / 2, 4), "patches": 2}
    assert found["b"] == {"dice": 0.0, "dice_mean": 0.0, "patches": 1}
    assert dice_of_patches(counts[:1], ["a", "b"])["b"] == {"dice": None, "dice_mean": None, "patches": 0}


class Threshold(nn.Module):
    """Class 1 above one half, class 2 above 1.5."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(9.0))

    def forward(self, image):
        return torch.cat([0 * image, (image - 0.5) * self.weight, (2 * image - 2) * self.weight], dim=1)


def patch(values, labels, domain):
    shape = (1, 2, 2, 1)
    return {
        "image": torch.tensor(values).reshape(shape),
        "label": torch.tensor(labels).reshape(shape),
        "domain": domain,
    }


def test_patches_are_segmented_and_scored_by_domain(tmp_path, caplog):
    dataset = [
        [patch([0.0, 1.0, 1.0, 2.0], [0, 1, 2, 2], "x"), patch([0.0, 0.0, 1.0, 2.0], [0, 1, 1, 2], "x")],
        {"case": "broken", "error": "cannot be read"},
        [patch([2.0, 2.0, 2.0, 2.0], [2, 2, 2, 1], "y")],
    ]
    report = PatchReport(tmp_path / "out", dataset, Threshold(), ["one", "two"], ["x", "y", "z"], batch_size=1)
    engine = Engine(lambda engine, batch: None)
    report.attach(engine)
    engine.run([0])
    found = json.loads((tmp_path / "out" / "patches.json").read_text(encoding="utf-8"))
    assert found["patches"] == 3
    # one: predicted 2, 1, 0; true 1, 2, 1; both 1, 1, 0
    assert found["regions"]["one"] == {
        "dice": round(4 / 7, 4),
        "dice_mean": round((2 / 3 + 2 / 3) / 3, 4),
        "patches": 3,
    }
    assert found["domains"]["y"] == {
        "patches": 1,
        "regions": {
            "one": {"dice": 0.0, "dice_mean": 0.0, "patches": 1},
            "two": {"dice": round(6 / 7, 4), "dice_mean": round(6 / 7, 4), "patches": 1},
        },
    }
    assert set(found["domains"]) == {"x", "y"}
    assert "case broken has no patches: cannot be read" in caplog.text
