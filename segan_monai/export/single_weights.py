# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The file of weights that is exported: that of one network."""

from __future__ import annotations

from pathlib import Path

from segan_monai.errors import ConfigError
from segan_monai.member_weights import StrPath, network_files


def single_weights(weights: StrPath | None, ckpt_dir: StrPath) -> Path:
    """Return the file of weights of an export, which has one network.

    Args:
        weights: file of weights, or folder that contains ``model.pt``; None for that of ``ckpt_dir``.
        ckpt_dir: see ``network_files``.

    Returns:
        The file, which need not exist; loading it says what to do.

    Raises:
        ConfigError: they are those of an ensemble.
    """
    path = Path(ckpt_dir) if weights is None else Path(weights).expanduser()
    if path.is_dir() or weights is None:
        files = [str(file) for file in network_files(path)]
    else:
        listed = "," in str(weights) and not path.exists()
        files = [name.strip(" '\"[]") for name in str(weights).split(",")] if listed else [str(path)]
    if len(files) == 1:
        return Path(files[0])
    raise ConfigError(
        f"{', '.join(files)}: {len(files)} files of weights, an ensemble; expected one, because an exported file has "
        f"one network. Export each member, such as --weights {files[0]}, and average the probabilities of their "
        "results, not their logits."
    )
