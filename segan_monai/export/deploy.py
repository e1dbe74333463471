# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Application package template for MONAI Deploy, written from a trained bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from segan_monai._version import __version__
from segan_monai.errors import ConfigError
from segan_monai.export.formats import ExportedBundle
from segan_monai.files import write_text, writing
from segan_monai.json_files import read_json_object, write_json
from segan_monai.member_weights import DOMAINS, QUALITY
from segan_monai.trained import settings_file

_APP = """\
application:
  title: {title}
  version: {version}
  inputFormats: ["file"]
  outputFormats: ["file"]

resources:
  cpu: 1
  gpu: 1
  memory: 8Gi
  gpuMemory: 4Gi
"""
_REQUIREMENTS = f"""\
# The package segan-monai is in no index. Install it with the extra dicom from its wheel:
#   pip install "path/to/segan_monai-{__version__}-py3-none-any.whl[dicom]"
monai-deploy-app-sdk >= 4
"""


def write_application(exported: ExportedBundle, folder: str | Path) -> Path:
    """Write a folder that MONAI Deploy's App SDK runs and packages.

    ``app`` has the application (``segan_monai/export/map_app.py``), ``app.yaml``, ``requirements.txt`` and the rules by
    which series are selected. ``models`` has the bundle with its pages and licence, overlays and overrides merged into
    its config and into the settings of the training, and the weights with the files that belong to them.

    Args:
        exported: trained bundle for CT or MR.
        folder: receives ``app`` and ``models``; created. Must be empty or absent.

    Raises:
        ConfigError: The bundle segments photographs, the folder is not empty, or the weights do not fit.
        OutputError: A file cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty. Expected an empty or a new folder; give another --output.")
    selections = {"selections": _selections(exported.parser)}
    _ = exported.network  # raises an error if the weights cannot be loaded
    metadata = exported.parser["_meta_"]
    name = exported.bundle.resolve().name
    placed = folder / "models" / name
    with writing(folder):
        (folder / "app").mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("map_app.py"), folder / "app" / "__main__.py")
        title = json.dumps(str(metadata.get("name", name)))  # a JSON string is a YAML string
        about = _APP.format(title=title, version=json.dumps(str(metadata["version"])))
        for file, text in (("app.yaml", about), ("requirements.txt", _REQUIREMENTS), ("selections.json", selections)):
            _write(folder / "app" / file, text)
        shutil.copytree(exported.bundle / "configs", placed / "configs")
        if (docs := exported.bundle / "docs").is_dir():
            shutil.copytree(docs, placed / "docs")
        if (license_text := exported.bundle / "LICENSE").is_file():
            shutil.copy(license_text, placed)
        _write(placed / "configs" / "inference.json", _config(exported))
        (placed / "models").mkdir()
        shutil.copy(exported.weights, placed / "models" / "model.pt")
        if (settings := settings_file(exported.weights)).is_file():
            record = {**read_json_object(settings), "settings": exported.settings}  # they precede those of the config
            write_json(placed / "models" / "model.json", record)
        for name_beside in (QUALITY, DOMAINS):
            if (beside := exported.weights.with_name(name_beside)).is_file():
                shutil.copy(beside, placed / "models")
    return folder


def _selections(parser: ConfigParser) -> list[dict[str, Any]]:
    """Return a rule for each modality; with several, its name is looked for in the description of the series."""
    kind = str(parser["_meta_"]["network_data_format"]["inputs"]["image"].get("modality", "")).upper()
    if kind not in ("CT", "MR") or "modalities" not in parser:
        raise ConfigError(
            f"the bundle takes images of modality {kind or 'unknown'}. Expected CT or MR in network_data_format of its "
            "metadata.json, and the key modalities: DICOM studies of photographs are not supported."
        )
    modalities = parser.get_parsed_content("modalities")
    several = len(modalities) > 1
    return [
        {
            "name": name,
            "conditions": {
                "Modality": f"^{kind}$",
                "ImageType": ["!LOCALIZER"],
                **({"SeriesDescription": rf"\b{name}\b"} if several else {}),
            },
        }
        for name in modalities
    ]


def _config(exported: ExportedBundle) -> dict[str, Any]:
    config = ConfigParser.load_config_files(exported.files)
    of_the_run = {"bundle_root", "device"}
    config |= {key: value for key, value in exported.overrides.items() if key not in of_the_run}
    if "included_weights_dir" in config:
        config["included_weights_dir"] = "$@bundle_root + '/models'"  # where they are placed
    return config


def _write(file: Path, content: str | dict[str, Any]) -> None:
    text = content if isinstance(content, str) else json.dumps(content, indent=4) + "\n"
    write_text(file, text)
