# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command `segan-monai`: parse, call, print. Exit status 0, 1 for an error, 2 for wrong usage."""

from __future__ import annotations

import sys

import typer

import segan_monai
from segan_monai.cli.check import check
from segan_monai.cli.download import download
from segan_monai.cli.evaluate import evaluate
from segan_monai.cli.export import export
from segan_monai.cli.new_bundle import new_bundle
from segan_monai.cli.phantoms import phantoms
from segan_monai.cli.prepare import prepare
from segan_monai.cli.report import report
from segan_monai.cli.reproduce import reproduce
from segan_monai.cli.verify import verify
from segan_monai.errors import UserError

app = typer.Typer(
    help="Adversarial segmentation of medical images with MONAI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(check)
app.command()(evaluate)
app.command()(new_bundle)
app.command()(phantoms)
app.command()(report)
app.command()(reproduce)
app.command()(verify)
app.command()(export)
app.add_typer(prepare, name="prepare")
app.add_typer(download, name="download")


@app.callback()
def _commands() -> None:
    """Load the components, which configs name, unless only help is asked for."""
    if not {"-h", "--help"} & set(sys.argv):
        segan_monai.register_components()


def main() -> None:
    """Entry point: a user's error is one readable line on standard error, not a traceback."""
    try:
        app()
    except UserError as error:
        print(f"segan-monai: error: {error}", file=sys.stderr)
        sys.exit(1)
