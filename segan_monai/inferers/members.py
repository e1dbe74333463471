# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Inference of ensembles by inferers that return tensors with metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from torch import Tensor

from segan_monai.networks.ensemble import combine_members


def infer_members(apply: Callable[[Any], Tensor], inputs: Tensor, network: Any, plain_channels: int = 0) -> Tensor:
    """Return ``combine_members`` with the metadata of the inputs.

    Args:
        apply: maps a member to what an inferer returns for it (B, K, ...).
        inputs: images (B, C, ...).
        network: an ensemble.
        plain_channels: see ``combine_members``.
    """

    def plain(member: Any) -> Tensor:
        output = apply(member)
        return output.as_tensor() if isinstance(output, MetaTensor) else output

    combined = combine_members(plain, network, plain_channels)
    return convert_to_dst_type(combined, inputs, dtype=combined.dtype, device=combined.device)[0]
