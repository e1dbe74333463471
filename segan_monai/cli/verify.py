# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai verify``: runs the model zoo's checks and further checks of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segan_monai.settings import parse_settings


def verify(
    bundle: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of the bundle.")],
    dataset_dir: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Labelled data in a layout that the bundle reads; default: generated data.",
        ),
    ] = None,
    check: Annotated[list[str] | None, typer.Option(help="Run only this check; may be repeated.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Key of the bundle's configs; the defaults are small."),
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder that keeps the files of the checks; default: a temporary folder."),
    ] = None,
) -> None:
    """Check metadata and files, train two epochs, resume, evaluate, infer and export on small generated data.

    Prints one line per check: ok, skipped or FAILED. The exit status is 1 if any check failed.

    Example: segan-monai verify bundles/hippocampus_mri_segan_segmentation
    """
    from segan_monai.verify import format_checks, run_checks

    results = []
    for result in run_checks(bundle, parse_settings(settings or []), dataset_dir, work_dir, check or ()):
        results.append(result)
        typer.echo(f"{result.name}: {result.result}", err=True)
    typer.echo(format_checks(results))
    if any(result.result == "FAILED" for result in results):
        raise typer.Exit(1)
