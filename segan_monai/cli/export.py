# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""`segan-monai export`: a bundle's network for programs without MONAI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segan_monai.settings import parse_settings


def export(
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help="torchscript, onnx or torch-export.")],
    bundle: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of the bundle.")],
    output: Annotated[Path, typer.Option(dir_okay=False, help="File to write: .ts, .onnx or .pt2.")],
    weights: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Weights; by default models/model.pt of the bundle.")
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, dir_okay=False, help="Overlay that the network was trained with; may be given again."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Key of inference.json that the network was trained with."),
    ] = None,
) -> None:
    """Write the trained network as TorchScript, ONNX or torch.export file.

    An ONNX file also carries how volumes are prepared for it and what its label values are: run_onnx.py beside this
    package's segan_monai/export needs no more to make label maps of NIfTI images, without torch.

    Example: segan-monai export onnx bundles/hippocampus_mri_segan_segmentation --output hippocampus.onnx
    """
    from segan_monai.export import ExportedBundle

    exported = ExportedBundle(bundle, weights, config or (), parse_settings(settings or []))
    typer.echo(f"written: {exported.export(kind, output)}")
