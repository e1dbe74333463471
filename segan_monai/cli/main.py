# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai``. Exit status: 0 for success, 1 for an error, 2 for wrong usage."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import segan_monai
from segan_monai.cli.card import card
from segan_monai.cli.check import check
from segan_monai.cli.config_keys import CONFIG_FILES, KeysCommand
from segan_monai.cli.dicom import dicom
from segan_monai.cli.download import download
from segan_monai.cli.ensemble import ensemble
from segan_monai.cli.evaluate import evaluate
from segan_monai.cli.export import export
from segan_monai.cli.folds import folds
from segan_monai.cli.include import include
from segan_monai.cli.info import info
from segan_monai.cli.new_bundle import new_bundle
from segan_monai.cli.phantoms import phantoms
from segan_monai.cli.predict import predict
from segan_monai.cli.prepare import prepare
from segan_monai.cli.quality import fit_quality
from segan_monai.cli.quality_critic import fit_quality_critic, quality
from segan_monai.cli.report import report
from segan_monai.cli.reproduce import reproduce
from segan_monai.cli.sweep import sweep
from segan_monai.cli.train import train
from segan_monai.cli.verify import verify
from segan_monai.console import escape_what_cannot_be_printed
from segan_monai.errors import UserError
from segan_monai.typed import expand_home


class _Commands(TyperGroup):
    """Command group that expands ``~`` where the shell does not, as in ``--output-dir=~/results``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_with_home(word) for word in args])


def _with_home(word: str) -> str:
    option, equals, value = word.partition("=")
    if word.startswith("-") and value.startswith("~"):
        return f"{option}{equals}{expand_home(value)}"
    return expand_home(word)


app = typer.Typer(
    cls=_Commands,
    help="Adversarial segmentation of medical images with MONAI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=KeysCommand)(train)
app.command(cls=KeysCommand)(predict)
app.command(cls=KeysCommand)(evaluate)
app.command()(ensemble)
app.command(cls=KeysCommand)(dicom)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(check)
app.command()(card)
app.command()(folds)
app.command()(fit_quality)
app.command()(fit_quality_critic)
app.command()(include)
app.command()(info)
app.command()(new_bundle)
app.command()(phantoms)
app.command()(quality)
app.command()(report)
app.command()(reproduce)
app.command()(sweep)
app.command()(verify)
app.command()(export)
app.add_typer(prepare, name="prepare")
app.add_typer(download, name="download")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segan-monai {segan_monai.__version__}")
        raise typer.Exit


@app.callback()
def _commands(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Register the components that configs refer to, unless help is requested or the command does so itself."""
    if not {"-h", "--help"} & set(sys.argv) and context.invoked_subcommand not in CONFIG_FILES:
        segan_monai.register_components()


def main() -> None:
    """Run the command line; print a user error as one line on stderr instead of a traceback."""
    escape_what_cannot_be_printed()
    try:
        app()
    except UserError as error:
        print(f"segan-monai: error: {error}", file=sys.stderr)
        sys.exit(1)
