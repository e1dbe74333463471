# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
import torch
from ignite.engine import Engine

from segan_monai.engines.accumulation import split
from segan_monai.engines.reference_samples import ReferenceSamples


@pytest.mark.parametrize(
    ("uniform", "parts", "expected"),
    [
        ([True, False, True, True], 1, [[0, 2, 3]]),
        ([True, False, True, True], 3, [[0], [2], [3]]),
        ([False, False, True, True], 4, [[2], [3], [2], [3]]),
        ([True, True, True, False], 2, [[0, 1], [2, 0]]),
        ([False, False, False], 2, None),
        (None, 2, None),
    ],
)
def test_parts_share_out_the_samples_that_were_drawn_without_regard_to_their_label(uniform, parts, expected):
    references = ReferenceSamples()
    rows = references.choose(None if uniform is None else torch.tensor(uniform), parts)
    assert references.found == (uniform is None or any(uniform))
    of_parts = None if rows is None else [part.tensors[0].tolist() for part in split([rows], parts)]
    assert of_parts == expected


@pytest.mark.parametrize(("lacking", "warned"), [(2, False), (3, True)])
def test_an_epoch_with_few_references_is_named_once(lacking, warned, caplog):
    references = ReferenceSamples()
    engine = Engine(lambda _, batch: references.choose(torch.tensor([batch]), 1))
    references.attach(engine)
    with caplog.at_level(logging.WARNING):
        engine.run([False] * lacking + [True] * (4 - lacking), max_epochs=2)
    assert len(caplog.messages) == warned
    if warned:
        assert "saw unlabelled images in 1 of 4 iterations of epoch 1." in caplog.text
        assert "Raise batch_size, or lower foreground_probability." in caplog.text


def test_epochs_before_the_critic_joins_do_not_count(caplog):
    references = ReferenceSamples()
    engine = Engine(lambda engine, batch: None)
    references.attach(engine)
    engine.run([0], max_epochs=2)
    assert not caplog.messages
