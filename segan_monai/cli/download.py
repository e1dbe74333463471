# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai download``: downloads redistributable data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

download = typer.Typer(help="Download a redistributable data set and verify its checksum.")


@download.callback()
def _data_sets() -> None:
    """Download a redistributable data set and verify its checksum."""


@download.command()
def hippocampus(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that receives Task04_Hippocampus.")],
) -> None:
    """Download Task04_Hippocampus of the Medical Segmentation Decathlon: 260 labelled T1 volumes, 28 MB, CC BY-SA 4.0.

    Example: segan-monai download hippocampus .
    """
    from segan_monai.prepare import download_hippocampus

    typer.echo(f"ready: {download_hippocampus(folder)}")
