# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cases whose images are their predictions, and an evaluator for them."""

from __future__ import annotations

import torch
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator

REGIONS = {"outer": [1, 2], "inner": [2]}


# 2 x 0.5 x 1 mm, third axis flipped, first two exchanged
AFFINE = torch.tensor([[0, 0.5, 0, 3], [2, 0, 0, -4], [0, 0, -1, 9], [0, 0, 0, 1]], dtype=torch.float64)


def box(shift=0):
    values = torch.zeros(1, 10, 9, 8)
    values[:, 1 + shift : 6 + shift, 2:7, 2:6] = 1
    values[:, 2 + shift : 4 + shift, 3:6, 3:5] = 2
    return MetaTensor(values, affine=AFFINE)


def evaluator(cases, batch_size=2):
    """The network hands on its image, so the image is the prediction."""
    loader = DataLoader(cases, batch_size=batch_size)
    return SupervisedEvaluator(torch.device("cpu"), loader, torch.nn.Identity(), decollate=True)


CASES = [
    {"case": "c", "image": box(1), "label": box()},
    {"case": "a", "image": box(), "label": box()},
    {"case": "b", "image": box() * 0, "label": box()},
]
