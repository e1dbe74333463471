# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Ensembles of L-SNets: every RoI that a member finds is segmented by all members."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segan_monai.networks.lsnet import LSNet


class MeanSegmentor(nn.Module):
    """Segmentors whose probabilities are averaged within a RoI.

    Args:
        segmentors: networks of one architecture, RoIs (N, C, h, w) to logits (N, K, h, w).
    """

    least = 1e-6  # of a mean probability and of 1 minus it

    def __init__(self, segmentors: Sequence[nn.Module]) -> None:
        super().__init__()
        self.segmentors = nn.ModuleList(segmentors)

    def forward(self, roi: Tensor) -> Tensor:
        """Map RoIs to the logits of the mean probability; NaN where an output is NaN or infinite."""
        total = torch.zeros([], device=roi.device)
        for segmentor in self.segmentors:
            logits = segmentor(roi).float()
            total = total + logits.sigmoid() + (logits - logits)
        return torch.logit(total / len(self.segmentors), eps=self.least)


def with_all_segmentors(members: Sequence[LSNet]) -> list[LSNet]:
    """Return networks that find RoIs as one member each, and segment them as the mean of all members [ours].

    The mean of what members predict alone misses an object that half of them do not find. Where it is merged by
    maximum, as RoIs of one network are, an object is segmented if any localizer finds it, and the segmentors of all
    members decide on its mask.

    Args:
        members: networks of one architecture.

    Returns:
        One network per member, which share the members' weights.
    """
    segmentor = MeanSegmentor([member.segmentor for member in members])
    views = []
    for member in members:
        view = copy.copy(member)
        view._modules = {**member._modules, "segmentor": segmentor}
        views.append(view)
    return views
