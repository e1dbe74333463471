# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Probability maps as files: all regions in one, or one compact NIfTI per region."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.utils import convert_to_dst_type

from segan_monai.errors import ConfigError
from segan_monai.transforms.input_grid_writer import InputGridWriter
from segan_monai.transforms.save_case import SaveCased

STEPS = 65535
"""Largest stored value of a compact map, which stands for the probability 1."""


class ProbabilityWriter(InputGridWriter):
    """``InputGridWriter`` of integers from 0 to ``STEPS``, with the header's ``scl_slope`` set to 1 / ``STEPS``."""

    scl_slope = 1 / STEPS


class SaveProbabilitiesd(SaveCased):
    """Save the probabilities of regions.

    - ``form=True``: one file ``<case>_probabilities.nii.gz`` in float32, whose last axis is the regions.
    - ``form="regions"``: one 3-D file ``<case>_probability_<region>.nii.gz`` per region, in uint16. NIfTI has no
      float16; these files are as large, and more exact: the stored integers times the header's ``scl_slope`` are the
      probabilities, to 1e-5. nibabel, ITK, SimpleITK, 3D Slicer and ITK-SNAP apply that factor by themselves.

    Args:
        keys: probabilities (K, H, W[, D]).
        output_dir: receives the files.
        regions: names of the K regions, in channel order. In file names, other signs than letters, digits, dots,
            hyphens and underscores become underscores.
        form: True or ``"regions"``.

    Raises:
        ConfigError: ``form`` is another value, or two regions have the same file name.
        OutputError: on call, if a file cannot be written.
    """

    def __init__(
        self, keys: KeysCollection, output_dir: str | os.PathLike[str], regions: Sequence[str], form: bool | str = True
    ) -> None:
        super().__init__(keys, output_dir=output_dir, output_postfix="probabilities", output_dtype=torch.float32)
        if form is not True and form != "regions":
            raise ConfigError(f"save_probabilities is {form!r}; expected true, false or 'regions'.")
        names = [f"probability_{region_file_name(region)}" for region in regions]
        if len(set(names)) < len(names):
            raise ConfigError(f"save_probabilities: regions {list(regions)} have the same file names; rename one.")
        settings: dict[str, Any] = {"output_dir": output_dir, "output_dtype": np.uint16, "writer": ProbabilityWriter}
        self.of_regions = [SaveCased("map", output_postfix=name, **settings) for name in names if form == "regions"]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Save the files, and append their paths to the list ``saved_files``."""
        if not self.of_regions:
            return super().__call__(data)
        case = dict(data)
        for key in self.key_iterator(case):
            maps = case[key]
            for index, save in enumerate(self.of_regions):
                written = save({"map": _integers(maps[index : index + 1])})["saved_files"]
                case["saved_files"] = [*case.get("saved_files", ()), *written]
        return case


def region_file_name(region: str) -> str:
    """Return the name of a region as part of a file name.

    Examples:
        >>> region_file_name("grey matter")
        'grey_matter'
    """
    return re.sub(r"[^\w.-]+", "_", region)


def _integers(probability: Any) -> Any:
    """Return a probability map (1, H, W[, D]) as integers from 0 to ``STEPS``, with its metadata."""
    scaled = probability.float().clamp(0, 1).mul(STEPS).round().to(torch.int32)
    return convert_to_dst_type(scaled, probability, dtype=torch.int32)[0]
