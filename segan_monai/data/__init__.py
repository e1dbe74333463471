# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Cases of public and private data sets: folder layouts, label conventions, splits."""

from __future__ import annotations

from segan_monai.data.brats import brats_cases
from segan_monai.data.case_cache import CaseCache
from segan_monai.data.case_datasets import CaseCacheDataset, CaseDataset
from segan_monai.data.cases import find_cases
from segan_monai.data.conventions import (
    LABEL_CONVENTIONS,
    LabelConvention,
    modality_name,
    number_of_regions,
    resolve_regions,
)
from segan_monai.data.ct import ct_cases
from segan_monai.data.decathlon import decathlon_cases
from segan_monai.data.domains import find_domains, in_domains, split_domains
from segan_monai.data.iseg import iseg_cases
from segan_monai.data.isic import isic_cases
from segan_monai.data.mrbrains import mrbrains_cases
from segan_monai.data.nnunet import nnunet_cases
from segan_monai.data.nnunet_files import write_nnunet, write_nnunet_split
from segan_monai.data.split import split_cases
from segan_monai.data.split_file import read_split
from segan_monai.data.subset import held_out, patches_of_split
from segan_monai.data.tissue_patches import TissuePatchDataset
from segan_monai.data.unlabeled import labelled_training_cases
from segan_monai.simulation import make_phantom, write_phantoms  # kept for backward compatibility

__all__ = [
    "LABEL_CONVENTIONS",
    "CaseCache",
    "CaseCacheDataset",
    "CaseDataset",
    "LabelConvention",
    "TissuePatchDataset",
    "brats_cases",
    "ct_cases",
    "decathlon_cases",
    "find_cases",
    "find_domains",
    "held_out",
    "in_domains",
    "iseg_cases",
    "isic_cases",
    "labelled_training_cases",
    "make_phantom",
    "modality_name",
    "mrbrains_cases",
    "nnunet_cases",
    "number_of_regions",
    "patches_of_split",
    "read_split",
    "resolve_regions",
    "split_cases",
    "split_domains",
    "write_nnunet",
    "write_nnunet_split",
    "write_phantoms",
]
