# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai export``: exports a bundle's network for programs without MONAI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segan_monai.cli.run_options import BundleOrRun
from segan_monai.errors import ConfigError
from segan_monai.settings import parse_settings


def export(
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help="torchscript, onnx, torch-export or map.")],
    bundle: BundleOrRun,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .ts, .onnx or .pt2; for map, a new folder.")
    ],
    weights: Annotated[
        Path | None, typer.Option(help="File of weights, or folder of a training; default: models of the bundle.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Overlay that the network was trained with; may be repeated."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Key of inference.json that the network was trained with."),
    ] = None,
) -> None:
    """Export the trained network to TorchScript, ONNX or torch.export.

    An ONNX file also contains the preprocessing settings and label values. With it, segan_monai/export/run_onnx.py
    segments NIfTI images without torch. The format map is an application package template for MONAI Deploy, which
    segments DICOM studies.

    Example: segan-monai export onnx hippocampus --output hippocampus.onnx
    """
    from segan_monai.bundles_by_name import find_bundle_or_run, find_overlay
    from segan_monai.export import ExportedBundle
    from segan_monai.export.deploy import write_application

    folder, run = find_bundle_or_run(bundle)
    overlays = [find_overlay(name, folder) for name in config or ()]
    exported = ExportedBundle(folder, weights or run, overlays, parse_settings(settings or []))
    if kind != "map" and output.is_dir():
        raise ConfigError(f"{output} is a folder. Expected a file to write with --output.")
    written = write_application(exported, output) if kind == "map" else exported.export(kind, output)
    typer.echo(f"written: {written}")
