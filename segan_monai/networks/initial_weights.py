# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainings that begin with the weights of another one."""

from __future__ import annotations

import logging
import os

from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.member_weights import initial_file
from segan_monai.networks.weights import read_weights, require_finite_weights

logger = logging.getLogger(__name__)

LEAST_SHARE = 0.5
"""Share of a network's weights that must fit; with less, the file is of another architecture."""


def with_initial_weights(
    network: nn.Module, initial_weights: str | os.PathLike[str] | None, resume: bool = False
) -> nn.Module:
    """Load the weights with which a training begins, where they fit.

    Weights of the same name and shape are loaded. The others, such as those of the last layer if the regions are
    others, stay as they are, and the log names them.

    Args:
        network: network that receives the weights, in place.
        initial_weights: see ``segan_monai.member_weights.initial_file``; None for none.
        resume: whether the run is resumed. Its checkpoint has all weights, so nothing is loaded here.

    Returns:
        The same network.

    Raises:
        ConfigError: The file is missing or damaged, contains a NaN or infinite weight, or less than half of the network
            fits.
    """
    if initial_weights is None or resume:
        return network
    file = initial_file(initial_weights)
    weights = read_weights(file)
    require_finite_weights(weights, file)
    own = network.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    others = [name for name in own if name not in fitting]
    share = sum(own[name].numel() for name in fitting) / sum(value.numel() for value in own.values())
    if share < LEAST_SHARE:
        name = others[0]
        in_file = tuple(weights[name].shape) if name in weights else "absent"
        raise ConfigError(
            f"initial_weights {file}: weights of another architecture: they fit {share:.0%} of the network, first "
            f"difference: {name} is {in_file} in the file and {tuple(own[name].shape)} in the network. Use the "
            f"settings of the network that {file.with_suffix('.json').name} beside the file lists (base_channels, "
            "num_levels, neighbours, ...)."
        )
    network.load_state_dict({**own, **fitting})
    listed = f"; not loaded: {', '.join(others[:5])}{', ...' if len(others) > 5 else ''}" if others else ""
    logger.info("initial weights: %d of the network's %d from %s%s", len(fitting), len(own), file, listed)
    return network
