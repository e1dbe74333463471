# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Norm layers by MONAI's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.layers.utils import get_norm_layer
from torch import nn

from segan_monai.errors import ConfigError


def norm_layer(norm: str | Sequence[Any], spatial_dims: int, channels: int) -> nn.Module:
    """Return a norm layer by its name in MONAI's factory ``Norm``.

    Args:
        norm: ``batch``, ``instance`` or another name, or a name with its arguments: ``["group", {"num_groups": 4}]``.
        spatial_dims: 2 or 3.
        channels: number of channels of the images.

    Raises:
        ConfigError: if the name or the arguments do not fit.

    Examples:
        >>> norm_layer(["group", {"num_groups": 4}], 2, 16).num_groups
        4
    """
    name = norm if isinstance(norm, str) else norm[0]
    if str(name).lower() == "syncbatch":
        raise ConfigError("norm is 'syncbatch'; expected 'batch', and sync_batch_norm true for several GPUs.")
    try:
        return get_norm_layer(norm, spatial_dims, channels)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"norm is {norm!r} for {channels} channels ({error}); expected a norm layer of MONAI with its arguments, "
            "such as 'batch', 'instance', or ['group', {'num_groups': 4}] for channels that are a multiple of 4."
        ) from error
