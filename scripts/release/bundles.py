# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Bundles as the hubs take them: a zip per bundle, ``large_files.yml`` and a model card."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

TEXTS = {".json", ".md", ".txt", ".conf", ".yml"}
LICENSES = {"CC-BY-SA-4.0": "cc-by-sa-4.0", "CC-BY-3.0": "cc-by-3.0", "Apache-2.0": "apache-2.0"}
"""Identifiers of Hugging Face by SPDX identifier."""


def bundle_files(bundle: Path) -> list[Path]:
    """Return the files of a bundle that are under version control, relative to its folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=bundle, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    return sorted(Path(name) for name in listed.stdout.split("\0") if name)


def read_metadata(bundle: Path) -> dict[str, Any]:
    """Return ``metadata.json`` of a bundle."""
    return json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))


def zip_name(bundle: Path) -> str:
    """Return the name of a bundle's zip, as MONAI's hubs expect it: ``NAME_vVERSION.zip``."""
    return f"{bundle.name}_v{read_metadata(bundle)['version']}.zip"


def write_zip(bundle: Path, target: Path, summary: Mapping[str, Any] | None = None) -> Path:
    """Write the zip of a bundle: one folder with the bundle's name, and its model card as ``README.md``.

    The same files give the same zip, byte for byte.

    Args:
        bundle: folder of the bundle, in a checkout.
        target: folder that receives the zip.
        summary: ``summary.json`` of an evaluation of the included weights, for the model card.

    Returns:
        The zip.
    """
    file = target / zip_name(bundle)
    contents = {name.as_posix(): (bundle / name).read_bytes() for name in bundle_files(bundle)}
    contents.setdefault("README.md", model_card(bundle, summary).encode())
    with ZipFile(file, "w") as archive:
        for name, content in sorted(contents.items()):
            entry = ZipInfo(f"{bundle.name}/{name}", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return file


def large_files(bundle: Path, url: str) -> str:
    """Return ``large_files.yml`` of MONAI's model zoo, which names the weights instead of including them.

    Args:
        bundle: folder of the bundle.
        url: address of the folder that has the bundle's files, such as
            ``https://huggingface.co/OWNER/NAME/resolve/0.1.0``.
    """
    lines = ["large_files:"]
    for name in bundle_files(bundle):
        if name.suffix == ".pt":
            digest = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
            lines += [f'  - path: "{name.as_posix()}"', f'    url: "{url.rstrip("/")}/{name.as_posix()}"']
            lines += [f'    hash_val: "{digest}"', '    hash_type: "sha256"']
    return "\n".join(lines) + "\n" if len(lines) > 1 else "large_files: []\n"


def model_card(bundle: Path, summary: Mapping[str, Any] | None = None) -> str:
    """Return the model card of a bundle for Hugging Face.

    Args:
        bundle: folder of the bundle.
        summary: ``summary.json`` of an evaluation of the included weights; None for no figures.
    """
    metadata = read_metadata(bundle)
    weights = [name for name in bundle_files(bundle) if name.suffix == ".pt"]
    license_id = metadata.get("weights_license", "Apache-2.0") if weights else "Apache-2.0"
    head = {
        "license": LICENSES[license_id],
        "library_name": "monai",
        "pipeline_tag": "image-segmentation",
        "tags": ["monai", "medical", "adversarial-segmentation"],
    }
    lines = ["---", *(_yaml(key, value) for key, value in head.items()), "---", "", f"# {metadata['name']}", ""]
    lines += [f"{metadata['description']}.", "", f"**{metadata['intended_use']}**", "", "| | |", "|---|---|"]
    facts = {
        "task": metadata["task"],
        "input": metadata["image_classes"],
        "output": metadata["pred_classes"],
        "data": metadata["data_source"],
        "weights": ", ".join(f"`{name.as_posix()}`" for name in weights) or "none: train your own",
        "licence": f"weights {license_id}, configs Apache-2.0" if weights else "configs Apache-2.0",
        "version": f"{metadata['version']}, for MONAI {metadata['monai_version']}",
    }
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "## Use", "", "```bash", f"segan-monai predict {bundle.name} -i IMAGES -o OUT", "```", ""]
    if summary is not None:
        lines += [
            "## Evaluation",
            "",
            "| region | cases | Dice | HD95 in mm, median | failures |",
            "|---|---|---|---|---|",
        ]
        for region, found in summary["regions"].items():
            distance = (found.get("hd95_mm") or {}).get("median")
            lines.append(
                f"| {region} | {found['cases']} | {found['dice']['mean']:.3f} | "
                f"{'unknown' if distance is None else f'{distance:.2f}'} | {found['failures']} |"
            )
        lines.append("")
    lines += ["## References", "", *(f"- {reference}" for reference in metadata["references"])]
    return "\n".join(lines) + "\n"


def _yaml(key: str, value: str | list[str]) -> str:
    return f"{key}: {value}" if isinstance(value, str) else "\n".join([f"{key}:", *(f"  - {item}" for item in value)])
