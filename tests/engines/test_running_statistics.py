# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import nn

from segan_monai.engines.running_statistics import RunningStatistics


def test_statistics_are_restored_by_name_and_others_stay():
    first, second = (RunningStatistics({"network": nn.BatchNorm1d(2), "critic": nn.BatchNorm1d(1)}) for _ in "ab")
    first.networks["network"](torch.tensor([[1.0, 4.0], [3.0, 8.0]]))  # means 2 and 6, momentum 0.1
    state = first.state_dict()
    assert set(state) == {f"{net}.{name}" for net in ("network", "critic") for name in ("running_mean", "running_var")}
    del state["critic.running_mean"]
    second.networks["critic"].running_mean.fill_(7)
    second.load_state_dict(state)
    torch.testing.assert_close(second.networks["network"].running_mean, torch.tensor([0.2, 0.6]))
    assert second.networks["critic"].running_mean == 7
