# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Files of checkpoints and network weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from segan_monai.bundles_by_name import CONFIGS
from segan_monai.errors import ConfigError
from segan_monai.files import whole_file
from segan_monai.finite import is_finite


def _of_overlays(folder: Path) -> str:
    """Return a sentence on weights that a bundle includes for an overlay, in a folder of its name; empty for none."""
    configs = (folder.parent / "configs", CONFIGS)
    names = [
        path.name
        for path in sorted(folder.glob("*"))
        if any((of / f"{path.name}.json").is_file() for of in configs)
        and ((path / "model.pt").is_file() or any(path.glob("fold_*/model.pt")))
    ]
    return f" {folder} has weights for other inputs: add --overlay {' or --overlay '.join(names)}." if names else ""


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU without executing any code in it.

    Raises:
        ConfigError: if the file is missing, is not a checkpoint, or contains anything but a dictionary of tensors and
            plain values.
    """
    if not Path(file).is_file():
        trained = Path(file).parent.parent / "output" / "training"  # where a bundle's training writes by default
        here = f", such as --ckpt_dir {trained}" if (trained / "model.pt").is_file() else ""
        raise ConfigError(
            f"{file}: no such file; expected trained weights. Train first (run training), or set --ckpt_dir to the "
            f"folder that contains model.pt{here}.{_of_overlays(Path(file).parent)}"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        if isinstance(content, dict):
            return content
        reason = f"it contains a {type(content).__name__}"
        cause = None
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, KeyError, IndexError, struct.error, ...
        reason = (str(error) or type(error).__name__).splitlines()[0]
        cause = error
    raise ConfigError(
        f"{file}: cannot be read as a checkpoint of tensors and plain values ({reason}). The file is truncated, "
        "damaged or written by another program; copy it again or retrain."
    ) from cause


def save_atomically(content: Any, file: Path) -> None:
    """Save a checkpoint to a temporary file and rename it, so that a failed save keeps the previous one.

    Raises:
        OutputError: The file cannot be written.
    """
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)


def read_weights(file: str | Path) -> dict[str, torch.Tensor]:
    """Return the state dictionary of a file, which has it at the top level or under the key ``model``.

    Raises:
        ConfigError: if the file cannot be read or contains anything else.
    """
    content = read_checkpoint(file)
    weights = content.get("model", content)
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ConfigError(
            f"{file}: contains {', '.join(map(str, list(content)[:5])) or 'nothing'}; expected network weights by "
            "name, such as those in model.pt (last.pt is for --resume true)."
        )
    return weights


def require_finite_weights(weights: dict[str, torch.Tensor], file: str | Path) -> None:
    """Raise ConfigError if a weight of a file is NaN or infinite."""
    if bad := [name for name, value in weights.items() if not is_finite(value)]:
        raise ConfigError(
            f"{file}: weight '{bad[0]}' is NaN or infinite ({len(bad)} of {len(weights)} weights are); expected finite "
            "numbers. The file is damaged or comes from a diverged training run: copy it again, or use the weights of "
            "another run."
        )


def load_weights(network: nn.Module, file: str | Path) -> nn.Module:
    """Load weights from a file into a network; if any weight does not fit, none is loaded.

    Args:
        network: network that receives the weights, in place.
        file: see ``read_weights``.

    Returns:
        The same network.

    Raises:
        ConfigError: if the file cannot be read, belongs to another architecture, or contains a NaN or infinite weight.
            The message names the first weight concerned.
    """
    weights = read_weights(file)
    own = network.state_dict()
    differences = [
        f"{name} is {'absent' if name not in weights else tuple(weights[name].shape)} in the file and "
        f"{'absent' if name not in own else tuple(own[name].shape)} in the network"
        for name in sorted(own.keys() | weights.keys())
        if name not in weights or name not in own or weights[name].shape != own[name].shape
    ]
    if differences:
        raise ConfigError(
            f"{file}: weights of another architecture: {len(differences)} of {len(own)} weights differ, first: "
            f"{differences[0]}. Use the config file, overlays and overrides (base_channels, num_levels, modalities, "
            "regions) of the training run; its run.json lists them."
        )
    require_finite_weights(weights, file)
    network.load_state_dict(weights)
    return network
