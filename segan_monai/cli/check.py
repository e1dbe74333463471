# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai check``: checks a ``monai.bundle run`` command line before it is run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

import segan_monai


def check(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Configs and headers only: seconds.")] = False,
    audit: Annotated[
        bool, typer.Option("--audit", help="List the code that the configs would run, without running it.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes that read cases; default: the CPU cores, at most 8.")
    ] = None,
) -> None:
    """Check configs, data and memory of a training, evaluation or inference run before you start it.

    Takes the arguments of python -m monai.bundle run; train, evaluate and predict have the option --check-only instead.
    Writes check.json to the folder check in output_dir. Unchanged cases are not read again. The exit status is 1 if
    there are errors; warnings do not count.

    Example: segan-monai check training --config_file "['configs/train.json']" --dataset_dir Task04_Hippocampus
    """
    from segan_monai.check import audit_config, format_audit, read_arguments

    arguments = read_arguments(context.args)
    if audit:
        typer.echo(format_audit(audit_config(arguments)))
        return
    check_arguments(arguments, quick, processes)


def check_arguments(arguments: Mapping[str, Any], quick: bool = False, processes: int | None = None) -> None:
    """Check a run and print the table of rules; see ``segan_monai.check.check_command_line``.

    Raises:
        typer.Exit: There are errors.
    """
    segan_monai.register_components()
    from segan_monai.check import check_command_line
    from segan_monai.command_line import given_arguments

    with _quiet(), given_arguments(arguments):
        report, folder = check_command_line(arguments, quick, processes)
    typer.echo(report.table())
    if folder is not None:
        typer.echo(f"written: {folder / 'check.json'}")
    if report.errors:
        raise typer.Exit(1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings and log lines inside the block, because the table contains them."""
    names = ("segan_monai", "monai.bundle.scripts")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
