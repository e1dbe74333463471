# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks, and weights from files."""

from segan_monai.networks.domain_discriminator import DomainDiscriminator
from segan_monai.networks.exclusive_segmentor import ExclusiveClassSegmentor
from segan_monai.networks.normalizer import NormalizerSegmentor, kaiming_initialize
from segan_monai.networks.segan import SegANCritic, SegANCritics, SegANSegmentor, SegANSegmentors
from segan_monai.networks.weights import load_weights, read_checkpoint

__all__ = [
    "DomainDiscriminator",
    "ExclusiveClassSegmentor",
    "NormalizerSegmentor",
    "SegANCritic",
    "SegANCritics",
    "SegANSegmentor",
    "SegANSegmentors",
    "kaiming_initialize",
    "load_weights",
    "read_checkpoint",
]
