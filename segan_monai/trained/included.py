# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The folder of the weights that a bundle includes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from segan_monai.typed import config_values


def included_weights_dir(config: Mapping[str, Any], bundle: str | Path) -> Path:
    """Return the folder of the weights that a bundle includes: ``included_weights_dir`` of a config, or ``models``.

    Args:
        config: content of a config of the bundle, with overlays merged.
        bundle: folder of the bundle.
    """
    if "included_weights_dir" not in config:
        return Path(bundle) / "models"
    parser = ConfigParser({**config, **config_values({"bundle_root": str(bundle)})})
    return Path(parser.get_parsed_content("included_weights_dir"))
