# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from segan_monai.transforms import SplitNormalizedd


def test_the_last_channels_are_the_image():
    both = torch.rand(6, 3, 3, 3)
    found = SplitNormalizedd("pred", num_channels=2)({"pred": both})
    assert torch.equal(found["pred"], both[:4])
    assert torch.equal(found["normalized"], both[4:])
