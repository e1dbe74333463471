# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks and weight loading."""

from segan_monai.networks.domain_discriminator import DomainDiscriminator
from segan_monai.networks.ensemble import NetworkEnsemble, load_members, network_of_weights
from segan_monai.networks.exclusive_segmentor import ExclusiveClassSegmentor
from segan_monai.networks.initial_weights import with_initial_weights
from segan_monai.networks.localization import CoarseLocalizer, LocalizationNet, RoIs
from segan_monai.networks.lsnet import LSNet
from segan_monai.networks.normalizer import NormalizerSegmentor, kaiming_initialize
from segan_monai.networks.resnet_pyramid import FCNDecoder, ResNetEncoderLevels, ResNetPyramid, ResNetSegmentor
from segan_monai.networks.roi_recalibration import (
    box_edges,
    crop_affine,
    inverse_affine,
    merge_rois,
    roi_affine,
    sample_affine,
)
from segan_monai.networks.segan import SegANSegmentor, SegANSegmentors
from segan_monai.networks.segan_critic import SegANCritic, SegANCritics
from segan_monai.networks.weights import load_weights, read_checkpoint

__all__ = [
    "CoarseLocalizer",
    "DomainDiscriminator",
    "ExclusiveClassSegmentor",
    "FCNDecoder",
    "LSNet",
    "LocalizationNet",
    "NetworkEnsemble",
    "NormalizerSegmentor",
    "ResNetEncoderLevels",
    "ResNetPyramid",
    "ResNetSegmentor",
    "RoIs",
    "SegANCritic",
    "SegANCritics",
    "SegANSegmentor",
    "SegANSegmentors",
    "box_edges",
    "crop_affine",
    "inverse_affine",
    "kaiming_initialize",
    "load_members",
    "load_weights",
    "merge_rois",
    "network_of_weights",
    "read_checkpoint",
    "roi_affine",
    "sample_affine",
    "with_initial_weights",
]
