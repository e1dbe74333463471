# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""`segan-monai report`: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(exists=True, file_okay=False, help="output_dir of a training or an evaluation.")
    ],
    file: Annotated[
        Path | None, typer.Option(dir_okay=False, help="The page; by default report.html in the first folder.")
    ] = None,
) -> None:
    """Write what a run was, how it went and what it found as one HTML page that opens offline.

    Trainings and evaluations write it by themselves when they end; this writes it again, or for a run that goes on.

    Example: segan-monai report runs/evaluation
    """
    from segan_monai.report import write_report

    typer.echo(f"written: {write_report(run_dirs, file)}")
