# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai new-bundle``: creates a bundle for the user's data set."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer


def new_bundle(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the bundle and its folder; ends in _segmentation.")
    ],
    method: Annotated[str, typer.Option(help="segan, adversarial-normalization or lsnet.")],
    data: Annotated[Path, typer.Option(help="Folder of BraTS, or in Decathlon or nnU-Net raw format.")],
    modalities: Annotated[
        str | None, typer.Option(help="Channels to use, such as t1c,flair; default: all that every case has.")
    ] = None,
    regions: Annotated[
        str | None, typer.Option(help="Label values of each region: 'tumour=1;core=1,4', or a convention.")
    ] = None,
    output_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Folder that receives the bundle's folder.")
    ] = Path(),
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes that read cases; default: the CPU cores, at most 8.")
    ] = None,
) -> None:
    """Analyse a labelled data set and write a bundle for it, which consists of JSON and is ready to train.

    Measures channels, labels, voxels and intensities, and chooses settings by rules. The bundle's docs/README.md and
    fingerprint.json list each setting with its reason.

    Example: segan-monai new-bundle liver_segmentation --method segan --data Dataset003_Liver
    """
    from segan_monai.cli.evaluate import parse_regions
    from segan_monai.command_line import file_argument
    from segan_monai.new_bundle import new_bundle as write_bundle
    from segan_monai.new_bundle.document import format_choices

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    folder, found, chosen = write_bundle(
        name,
        method,
        data,
        output_dir,
        processes or min(cores, 8),
        None if modalities is None else [word.strip() for word in modalities.split(",") if word.strip()],
        None if regions is None else parse_regions(regions),
    )
    typer.echo(format_choices(found, chosen))
    typer.echo(f"written: {folder}")
    run = f"{name}_training"
    typer.echo(f"next:    {shlex.join(['segan-monai', 'train', file_argument(folder), str(data), '-o', run])}")
    typer.echo(f"         {shlex.join(['segan-monai', 'evaluate', run, str(data)])}")
