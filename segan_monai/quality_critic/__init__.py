# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Estimates how good any label map is, from image and mask alone, by a critic that has seen right and wrong masks."""

from segan_monai.quality_critic.cases import CriticCase, parsed, read_cases, require_volumes
from segan_monai.quality_critic.corruptions import KINDS, corrupted
from segan_monai.quality_critic.file import Critic, read_critic, write_critic
from segan_monai.quality_critic.fit import FittedCritic, fit_critic
from segan_monai.quality_critic.label_maps import estimate_label_map, match_label_maps
from segan_monai.quality_critic.network import CriticNetwork, critic_signals
from segan_monai.quality_critic.stacks import Stack, stack_of

__all__ = [
    "KINDS",
    "Critic",
    "CriticCase",
    "CriticNetwork",
    "FittedCritic",
    "Stack",
    "corrupted",
    "critic_signals",
    "estimate_label_map",
    "fit_critic",
    "match_label_maps",
    "parsed",
    "read_cases",
    "read_critic",
    "require_volumes",
    "stack_of",
    "write_critic",
]
