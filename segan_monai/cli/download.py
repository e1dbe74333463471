# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""`segan-monai download`: data sets that may be handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

download = typer.Typer(help="Download a data set that may be handed on, and compare its checksum.")


@download.callback()
def _data_sets() -> None:
    """Download a data set that may be handed on, and compare its checksum."""


@download.command()
def hippocampus(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Gets the folder Task04_Hippocampus.")],
) -> None:
    """Task04_Hippocampus of the Medical Segmentation Decathlon: 260 labelled T1 volumes, 28 MB, CC BY-SA 4.0.

    Example: segan-monai download hippocampus .
    """
    from segan_monai.prepare import download_hippocampus

    typer.echo(f"ready: {download_hippocampus(folder)}")
