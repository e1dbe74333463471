# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai phantoms``: writes a simulated data set in a BraTS or Decathlon layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def phantoms(
    output_dir: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder that receives the data set.")],
    cases: Annotated[int, typer.Option(min=1, help="Number of simulated subjects.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 0,
    spacing: Annotated[float, typer.Option(help="Voxel size in mm, from 1 (as in BraTS) to 8.")] = 1.0,
    layout: Annotated[str, typer.Option(help="brats2015, brats2018, brats2021, brats2023 or msd.")] = "brats2021",
    mass_effect: Annotated[bool, typer.Option(help="Tumours displace the tissue around them.")] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cases simulated in parallel; default: the CPU cores, at most 4.")
    ] = None,
) -> None:
    """Simulate tumours in the MNI152 brain, to try the software without patient images.

    Example: segan-monai phantoms phantoms_2mm --cases 20 --spacing 2 --layout brats2021
    """
    from segan_monai.simulation.phantom_files import write_phantoms

    written = write_phantoms(output_dir, cases, seed, spacing, layout, mass_effect, workers)
    typer.echo(f"{len(written)} simulated phantoms (layout {layout}, no patients) written to {output_dir}")
