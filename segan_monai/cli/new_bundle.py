# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""`segan-monai new-bundle`: a bundle for a data set of one's own."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer


def new_bundle(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the bundle and its folder; ends in _segmentation.")],
    method: Annotated[str, typer.Option(help="segan, adversarial-normalization or lsnet.")],
    data: Annotated[Path, typer.Option(help="Folder in the decathlon's or in nnU-Net's raw format.")],
    output_dir: Annotated[Path, typer.Option(file_okay=False, help="Gets the bundle's folder.")] = Path(),
    processes: Annotated[
        int | None, typer.Option(min=1, help="That read cases; by default the processor cores, at most 8.")
    ] = None,
) -> None:
    """Look at a labelled data set and write a bundle for it: JSON only, trains at once.

    Measures channels, labels, voxels and intensities, chooses settings by rules, and writes each with its reason to
    the bundle's docs/README.md and fingerprint.json.

    Example: segan-monai new-bundle liver_segmentation --method segan --data Dataset003_Liver
    """
    from segan_monai.new_bundle import new_bundle as write_bundle
    from segan_monai.new_bundle.document import format_choices

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    folder, found, chosen = write_bundle(name, method, data, output_dir, processes or min(cores, 8))
    typer.echo(format_choices(found, chosen))
    typer.echo(f"written: {folder}")
    typer.echo(f"next:    {_run_command('training', folder / 'configs' / 'train.json')}")
    typer.echo(f"         {_run_command('evaluating', folder / 'configs' / 'evaluate.json')}")


def _run_command(run_id: str, config: Path) -> str:
    """A command to paste into a shell."""
    from segan_monai.command_line import file_argument

    words = ["python", "-m", "monai.bundle", "run", run_id, "--config_file", file_argument(config)]
    return shlex.join(words)
