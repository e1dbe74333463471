# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai report``: writes the report of a run as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(exists=True, file_okay=False, help="output_dir of a training or evaluation run.")
    ],
    file: Annotated[
        Path | None, typer.Option(dir_okay=False, help="HTML file to write; default: report.html in the first folder.")
    ] = None,
) -> None:
    """Write settings, progress and results of a run as one HTML page that opens offline.

    Training and evaluation write the report when they end. Use this command to update it, or while a run is active.

    Example: segan-monai report runs/evaluation
    """
    from segan_monai.report import write_report

    typer.echo(f"written: {write_report(run_dirs, file)}")
