# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from segan_monai.inferers import NormalizingWindowInferer, VolumeSliceInferer, VolumeWindowInferer
from segan_monai.inferers.memory import with_less_memory


class Limited(nn.Module):
    """Has memory for so many slices at a time."""

    def __init__(self, at_most):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))
        self.at_most = at_most
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.at_most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return x * self.weight

    segment_and_normalize = forward


def test_slices_are_taken_fewer_at_a_time_until_they_fit(caplog):
    volume, network = torch.rand(1, 1, 8, 8, 10), Limited(at_most=3)
    with caplog.at_level(logging.WARNING):
        found = VolumeSliceInferer(batch_size=10)(volume, network)
    torch.testing.assert_close(found, 3 * volume)
    assert network.sizes == [10, 5, 2, 2, 2, 2, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory on cpu: trying again with 5 slices at a time",
        "out of memory on cpu: trying again with 2 slices at a time",
    ]


@pytest.mark.parametrize("kind", [NormalizingWindowInferer, VolumeWindowInferer])
def test_windows_are_taken_fewer_at_a_time_until_they_fit(kind):
    volume, network = torch.rand(1, 1, 8, 8, 16), Limited(at_most=1)
    inferer = kind(roi_size=(8, 8, 8), sw_batch_size=4, overlap=0.0)
    torch.testing.assert_close(inferer(volume, network), 3 * volume)
    assert network.sizes == [2, 2, 1, 1]
    assert inferer.sw_batch_size == 4, "the next volume may be smaller"


def test_a_slice_that_fits_nowhere_is_an_error():
    with pytest.raises(torch.OutOfMemoryError, match=r"20.00 GiB"):
        VolumeSliceInferer(batch_size=2)(torch.rand(1, 1, 8, 8, 2), Limited(at_most=0))


def test_after_one_at_a_time_comes_the_cpu(caplog):
    tried = []

    def apply(size, device):
        tried.append((size, device.type))
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.ones(1)

    with caplog.at_level(logging.WARNING):
        assert with_less_memory(apply, 4, torch.device("cuda")) == 1
    assert tried == [(4, "cuda"), (2, "cuda"), (1, "cuda"), (4, "cpu")]
    assert caplog.records[-1].getMessage() == (
        "out of memory with a single one of the slices: trying again on the CPU, which is slower"
    )
