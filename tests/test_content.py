# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from segan_monai.content import content_box


@pytest.mark.parametrize(
    ("margin", "box"), [(0, [(2, 4), (0, 1), (4, 6)]), (1, [(1, 5), (0, 2), (3, 6)]), (9, [(0, 7), (0, 3), (0, 6)])]
)
def test_the_margin_ends_at_the_image(margin, box):
    used = torch.zeros(7, 3, 6, dtype=torch.bool)
    used[2, 0, 5] = used[3, 0, 4] = True
    assert content_box(used, margin) == tuple(slice(*ends) for ends in box)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2)])
def test_any_number_of_axes(shape):
    used = torch.zeros(shape, dtype=torch.bool)
    assert content_box(used, 2) is None
    used[(1,) * len(shape)] = True
    assert content_box(used) == (slice(1, 2),) * len(shape)
