# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Transforms between files, volumes, slices, regions and label maps."""

from __future__ import annotations

from segan_monai.transforms.augment_batch import AugmentBatch
from segan_monai.transforms.case_loader import CaseLoader
from segan_monai.transforms.domains import DomainIndexd, ForDomaind
from segan_monai.transforms.each_modality import EachModalityd
from segan_monai.transforms.foreground_intensity import ScaleForegroundd, scale_foreground
from segan_monai.transforms.head_intensity import ScaleHeadd, scale_head
from segan_monai.transforms.input_grid_writer import InputGridWriter
from segan_monai.transforms.isolated_spacing import IsolatedSpacingd
from segan_monai.transforms.known_labels import HideUnknownd, check_ignore_label, known_voxels
from segan_monai.transforms.load_case import LoadCased
from segan_monai.transforms.load_ct import LoadCTd
from segan_monai.transforms.load_photograph import LoadPhotographd, read_mask, read_photograph
from segan_monai.transforms.rand_contrast import RandContrastCurve, RandContrastCurved, map_intensities
from segan_monai.transforms.rand_foreground_patches import RandForegroundPatchesd
from segan_monai.transforms.rand_patches import PatchFitsd, RandTissuePatchesd, TissueCentresd, tissue_centres
from segan_monai.transforms.rand_slices import RandSlicesd, SlicesWithContentd, cut_slice
from segan_monai.transforms.region_rules import RegionRulesd
from segan_monai.transforms.regions import (
    LabelToRegionsd,
    RegionsToLabelMapd,
    label_to_regions,
    merged_regions,
    regions_to_label_map,
)
from segan_monai.transforms.resize_slices import ResizeSlicesd, resize_planes
from segan_monai.transforms.save_case import SaveCased
from segan_monai.transforms.save_probabilities import SaveProbabilitiesd, region_file_name
from segan_monai.transforms.split_normalized import SplitNormalizedd
from segan_monai.transforms.strong_change import RandStrongChange
from segan_monai.transforms.tissue_labels import RelabelCased, StripByLabeld

__all__ = [
    "AugmentBatch",
    "CaseLoader",
    "DomainIndexd",
    "EachModalityd",
    "ForDomaind",
    "HideUnknownd",
    "InputGridWriter",
    "IsolatedSpacingd",
    "LabelToRegionsd",
    "LoadCTd",
    "LoadCased",
    "LoadPhotographd",
    "PatchFitsd",
    "RandContrastCurve",
    "RandContrastCurved",
    "RandForegroundPatchesd",
    "RandSlicesd",
    "RandStrongChange",
    "RandTissuePatchesd",
    "RegionRulesd",
    "RegionsToLabelMapd",
    "RelabelCased",
    "ResizeSlicesd",
    "SaveCased",
    "SaveProbabilitiesd",
    "ScaleForegroundd",
    "ScaleHeadd",
    "SlicesWithContentd",
    "SplitNormalizedd",
    "StripByLabeld",
    "TissueCentresd",
    "check_ignore_label",
    "cut_slice",
    "known_voxels",
    "label_to_regions",
    "map_intensities",
    "merged_regions",
    "read_mask",
    "read_photograph",
    "region_file_name",
    "regions_to_label_map",
    "resize_planes",
    "scale_foreground",
    "scale_head",
    "tissue_centres",
]
