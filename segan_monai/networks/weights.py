# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Weights from files, with errors that say which file and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.finite import is_finite


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; code inside it is never run.

    Raises:
        ConfigError: if the file is missing, is no checkpoint, or holds something else than names of tensors and plain
            values.
    """
    if not Path(file).is_file():
        raise ConfigError(
            f"{file}: no such file; expected trained weights. Train first (run training), or point --ckpt_dir at the "
            "folder that holds model.pt."
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        if isinstance(content, dict):
            return content
        reason = f"it holds a {type(content).__name__}"
        cause = None
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, KeyError, IndexError, struct.error, ...
        reason = (str(error) or type(error).__name__).splitlines()[0]
        cause = error
    raise ConfigError(
        f"{file}: cannot be read as a checkpoint of tensors and plain values ({reason}). The file is truncated, "
        "damaged or made by another program; copy it again or train anew."
    ) from cause


def load_weights(network: nn.Module, file: str | Path) -> nn.Module:
    """Load the weights of a file into a network, all of them or none.

    Args:
        network: gets the weights.
        file: a state dictionary, plain or under the key ``model``.

    Returns:
        The network.

    Raises:
        ConfigError: if the file cannot be read, was made by another architecture, or holds a weight that is NaN or
            infinite: names what differs, or the weight.
    """
    content = read_checkpoint(file)
    weights = content.get("model", content)
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ConfigError(
            f"{file}: holds {', '.join(map(str, list(content)[:5])) or 'nothing'}; expected the weights of a network "
            "by their names. Point --ckpt_dir at the folder of model.pt (last.pt is for --resume true)."
        )
    own = network.state_dict()
    differences = [
        f"{name} is {'absent' if name not in weights else tuple(weights[name].shape)} in the file and "
        f"{'absent' if name not in own else tuple(own[name].shape)} in the network"
        for name in sorted(own.keys() | weights.keys())
        if name not in weights or name not in own or weights[name].shape != own[name].shape
    ]
    if differences:
        raise ConfigError(
            f"{file}: made by another architecture: {len(differences)} of {len(own)} weights differ, first: "
            f"{differences[0]}. Use the config file, overlays and overrides (base_channels, num_levels, modalities, "
            "regions) that the network was trained with; run.json of its run lists them."
        )
    if bad := [name for name, value in weights.items() if not is_finite(value)]:
        raise ConfigError(
            f"{file}: weight '{bad[0]}' is NaN or infinite ({len(bad)} of {len(weights)} weights are); expected finite "
            "numbers. The file is damaged or comes from a training that diverged: copy it again, or use the weights of "
            "another training."
        )
    network.load_state_dict(weights)
    return network
