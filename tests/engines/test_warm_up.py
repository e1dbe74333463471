# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
import torch

from segan_monai.engines.warm_up import WarmUp

IMAGE = torch.tensor([0.0, 2.0, 0.0, 2.0])  # variance 1


def test_the_error_is_a_share_of_the_variance_whatever_the_unit(caplog):
    caplog.set_level(logging.INFO)
    for unit in (1, 1000):
        warm_up = WarmUp(9, error=0.051)
        warm_up.add(IMAGE * unit, (IMAGE + 0.1) * unit)
        warm_up.add(IMAGE * unit, (IMAGE + 0.3) * unit)
        assert [float(error) for error in warm_up.errors] == pytest.approx([0.01, 0.09], rel=1e-4)
        warm_up.end_epoch(4)
        assert warm_up.active(4)
        assert not warm_up.active(5)
    assert "ends after epoch 4: the normalizer's error is 0.05 of the variance" in caplog.text


def test_a_warm_up_that_does_not_reach_its_error_says_so(caplog):
    warm_up = WarmUp(2, error=0.05)
    for epoch in (1, 2):
        assert warm_up.active(epoch)
        warm_up.add(IMAGE, IMAGE + 1)
        warm_up.end_epoch(epoch)
    assert not warm_up.active(3)
    assert "error is still 1 of its input's variance (warm_up_error 0.05)" in caplog.text
    assert len(caplog.records) == 1


def test_resumed_in_the_middle_of_an_epoch_and_after_the_end():
    whole, first, second = (WarmUp(9, error=0.05) for _ in range(3))
    for warm_up in (whole, first):
        warm_up.add(IMAGE, IMAGE + 0.1)
    second.load_state_dict(first.state_dict())
    for warm_up in (whole, second):
        warm_up.add(IMAGE, IMAGE + 0.29)
        warm_up.end_epoch(3)
    assert whole.last == second.last == 3
    third = WarmUp(9, error=0.05)
    third.load_state_dict(second.state_dict())
    assert not third.active(4)
    assert WarmUp(3).state_dict() == {}, "as checkpoints of earlier versions"
