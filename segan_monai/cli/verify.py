# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""`segan-monai verify`: the model zoo's checks of a bundle, and more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segan_monai.settings import parse_settings


def verify(
    bundle: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of the bundle.")],
    dataset_dir: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Labelled data instead of generated ones (decathlon layout)."),
    ] = None,
    check: Annotated[list[str] | None, typer.Option(help="Only this check; may be given again.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Key of the bundle's configs, instead of the small default."),
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep what the checks write here; by default it is removed.")
    ] = None,
) -> None:
    """Check metadata and files, train two epochs, resume, evaluate, infer and export, all on small generated data.

    Prints a line a check: ok, skipped or FAILED. Exit status 1 if any failed.

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
