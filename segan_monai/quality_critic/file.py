# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""``quality_critic/``: the network ``critic.pt`` and plain values ``critic.json`` beside weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segan_monai.errors import ConfigError
from segan_monai.files import sha256_of, whole_file
from segan_monai.json_files import write_json
from segan_monai.member_weights import QUALITY_CRITIC
from segan_monai.networks import read_checkpoint
from segan_monai.quality import QualityModel
from segan_monai.quality.file import read_fit, require_settings
from segan_monai.quality_critic.network import CriticNetwork

VERSION = 1
OF_IMAGES = (
    *("modalities", "spacing_mm", "intensity_window", "skull_stripped", "test_crop_size", "hu_window", "regions"),
    *("zero_is_background", "intensity", "intensity_unit", "simulation"),
)
"""Settings of an inference on which image and regions depend; the others may differ, since any mask will do."""
_AGAIN = "Fit it again with segan-monai fit-quality-critic."


@dataclass(frozen=True)
class Critic:
    """A fitted critic.

    Attributes:
        network: a ``CriticNetwork``.
        model: from its signals to expected Dice, lower bound and flag.
        regions: names of the K regions.
        size: rows and columns of the stacks.
    """

    network: nn.Module
    model: QualityModel
    regions: list[str]
    size: int


def write_critic(
    weights_dir: Path, critic: Critic, channels: int, settings: Mapping[str, Any], fit: Mapping[str, Any]
) -> Path:
    """Write a critic beside weights, and return its folder.

    Args:
        weights_dir: folder of ``model.pt``.
        critic: the critic.
        channels: C of the images.
        settings: settings of the inference whose results the critic was fitted to.
        fit: what the fit says of itself: cases, measures.

    Raises:
        OutputError: A file cannot be written.
    """
    folder = weights_dir / QUALITY_CRITIC
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "critic.pt") as temporary:
        torch.save(critic.network.state_dict(), temporary)
    content = {
        "version": VERSION,
        "critic_sha256": sha256_of(folder / "critic.pt"),
        "channels": channels,
        "regions": critic.regions,
        "size": critic.size,
        "settings": of_images(settings),
        "model": critic.model.record(),
        "fit": dict(fit),
    }
    write_json(folder / "critic.json", content, indent=1, allow_nan=False)
    return folder


def read_critic(weights_dir: Path, settings: Mapping[str, Any]) -> Critic:
    """Read the critic beside weights, for a run with the given settings.

    Args:
        weights_dir: folder of ``model.pt``.
        settings: settings of the run, with the names of ``write_critic``.

    Raises:
        ConfigError: There is no critic; a file is damaged, or of another version; or the settings differ.
    """
    file = weights_dir / QUALITY_CRITIC / "critic.json"
    missing = (
        f"{file} does not exist; expected a quality critic beside the weights. Fit it: segan-monai "
        f"fit-quality-critic FOLDS/*/seed_0_fold_*/out_of_fold -o {weights_dir}"
    )
    content = read_fit(file, VERSION, missing, _AGAIN)
    weights = file.with_name("critic.pt")
    if not weights.is_file() or content.get("critic_sha256") != sha256_of(weights):
        raise ConfigError(
            f"{weights} is missing or not the file of {file.name}; expected SHA-256 {content.get('critic_sha256')}. "
            f"Copy the whole folder again. {_AGAIN}"
        )
    require_settings(content["settings"], of_images(settings), str(file), _AGAIN)
    try:
        network = CriticNetwork(content["channels"], len(content["regions"]))
        network.load_state_dict(read_checkpoint(weights))
        model = QualityModel.of_record(content["model"])
        return Critic(network.eval(), model, list(content["regions"]), int(content["size"]))
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{file} is not complete ({type(error).__name__}: {error}). {_AGAIN}") from error


def of_images(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings on which image and regions depend."""
    return {key: settings[key] for key in OF_IMAGES if key in settings}
