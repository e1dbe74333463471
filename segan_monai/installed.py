# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Describes what is installed: bundles, weights, versions, optional packages and devices."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segan_monai._version import __version__
from segan_monai.bundles_by_name import BUNDLES, bundle_names
from segan_monai.files import sha256_of
from segan_monai.json_files import read_json_object
from segan_monai.optional import EXTRAS

LICENSE = "Apache-2.0"
"""Licence of the package and of the bundles' configs."""
_PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "scipy", "nibabel", "SimpleITK")


def describe_installation() -> dict[str, Any]:
    """Return everything that ``segan-monai info --json`` prints.

    Returns:
        ``version``, ``license``, ``versions`` (package to version, None if it is not installed), ``extras`` (name to
        whether all of its packages are installed), ``devices`` (see ``describe_devices``) and ``bundles`` (see
        ``describe_bundle``).
    """
    return {
        "version": __version__,
        "license": LICENSE,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "extras": {extra: all(find_spec(name) is not None for name in names) for extra, names in EXTRAS.items()},
        "devices": describe_devices(),
        "bundles": [describe_bundle(BUNDLES / name) for name in bundle_names()],
    }


def describe_bundle(folder: Path) -> dict[str, Any]:
    """Return what a bundle segments, and which weights it includes.

    Args:
        folder: folder of the bundle.

    Returns:
        ``bundle`` (name of the folder), ``name``, ``task``, ``version``, ``folder``, ``input``, ``classes``,
        ``license`` (of the configs), ``data_license`` (file about the data, None if there is none) and ``weights``: a
        list of ``file`` (relative to the folder), ``bytes``, ``sha256`` and ``license`` (None if the metadata has
        none).

    Raises:
        DataError: The metadata cannot be read.
    """
    metadata = read_json_object(folder / "configs" / "metadata.json")
    output = metadata["network_data_format"]["outputs"]["pred"]
    classes = metadata.get("segments") or [name for name in output["channel_def"].values() if name != "background"]
    data_license = folder / "docs" / "data_license.txt"
    return {
        "bundle": folder.resolve().name,
        "name": metadata.get("name", folder.resolve().name),
        "task": metadata["task"],
        "version": metadata["version"],
        "folder": str(folder),
        "input": metadata.get("image_classes"),
        "classes": list(classes),
        "license": LICENSE,
        "data_license": str(data_license) if data_license.is_file() else None,
        "weights": [
            {
                "file": file.relative_to(folder).as_posix(),
                "bytes": file.stat().st_size,
                "sha256": sha256_of(file),
                "license": metadata.get("weights_license"),
            }
            for file in sorted((folder / "models").rglob("*.pt"))
        ],
    }


def describe_devices() -> list[dict[str, Any]]:
    """Return the devices that networks can run on: ``device`` (value of the key ``device``) and ``name``.

    GPUs come with ``memory_mib``, the CPU with ``threads`` of PyTorch.
    """
    import torch

    devices: list[dict[str, Any]] = [
        {
            "device": f"cuda:{index}",
            "name": torch.cuda.get_device_name(index),
            "memory_mib": torch.cuda.get_device_properties(index).total_memory >> 20,
        }
        for index in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Apple GPU"})
    cpu = {"device": "cpu", "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    return [*devices, cpu]


def format_installation(found: dict[str, Any]) -> str:
    """Format the result of ``describe_installation`` as text."""
    lines = [f"segan-monai {found['version']}, {found['license']}"]
    lines.append("  " + ", ".join(f"{name} {number or 'not installed'}" for name, number in found["versions"].items()))
    extras = (f"{name}{'' if there else ' (not installed)'}" for name, there in found["extras"].items())
    lines += ["", f"extras:  {', '.join(extras)}"]
    for number, device in enumerate(found["devices"]):
        size = f"{device['memory_mib']} MiB" if "memory_mib" in device else f"{device.get('threads', 1)} threads"
        lines.append(f"{'' if number else 'devices:':<8} {device['device']}: {device['name']}, {size}")
    for bundle in found["bundles"]:
        lines += ["", f"{bundle['bundle']} {bundle['version']}: {bundle['task']}", f"  input:   {bundle['input']}"]
        lines.append(f"  classes: {', '.join(bundle['classes'])}")
        for weights in bundle["weights"]:
            size = f"{weights['bytes'] / 1e6:.1f} MB"
            lines.append(f"  weights: {weights['file']}, {size}, {weights['license'] or 'licence unknown'}")
        if not bundle["weights"]:
            lines.append("  weights: none; train your own")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
