# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from segan_monai.finite import NonFiniteOutputError
from segan_monai.inferers import Agreement, VolumeSliceInferer
from segan_monai.quality import QualitySignalsd


@pytest.fixture
def inferer_and_step():
    agreement = Agreement()
    step = QualitySignalsd("pred", agreement, ["a", "b"], ["T1"], {})
    return VolumeSliceInferer(axis=[2, 0], agreement=agreement), step


def signals(inferer, step, image, network, regions=2):
    """Signals of a case, as a run takes them."""
    with torch.no_grad():
        prediction = inferer(image[None], network)[0].sigmoid()
    return step({"pred": prediction[:regions], "image": image})["quality_signals"]


def test_the_signals_of_a_case_are_those_of_it_alone(inferer_and_step):
    torch.manual_seed(0)
    network = nn.Conv2d(1, 2, 3, padding=1)
    nn.init.normal_(network.weight, std=2.0)
    broken, image = torch.rand(1, 6, 7, 8), torch.rand(1, 6, 7, 8)
    broken[0, 3, 3, 5] = torch.nan
    alone = Agreement()
    other = VolumeSliceInferer(axis=[2, 0], agreement=alone)
    expected = signals(other, QualitySignalsd("pred", alone, ["a", "b"], ["T1"], {}), image, network)
    assert 0 < expected["regions"]["a"]["agreement_axes"] < 1
    with pytest.raises(NonFiniteOutputError):
        signals(*inferer_and_step, broken, network)
    assert signals(*inferer_and_step, image, network) == expected
    with pytest.raises(ValueError, match="have 1 channels; expected one of each of 2 regions"):  # in the step itself
        signals(*inferer_and_step, 1 - image, network, regions=1)
    assert signals(*inferer_and_step, image, network) == expected
