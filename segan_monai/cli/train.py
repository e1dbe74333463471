# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai train``: trains a bundle."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from segan_monai.cli.bundle_runs import run_arguments, run_bundle
from segan_monai.cli.check import check_arguments
from segan_monai.cli.run_options import Bundle, CheckOnly, OutputDir, Overlays, Verbose


def train(
    context: typer.Context,
    bundle: Bundle,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of labelled images.")],
    output_dir: OutputDir = None,
    overlay: Overlays = None,
    check_only: CheckOnly = False,
    verbose: Verbose = False,
) -> None:
    """Train a bundle's network. Every key of its train.json is an option: segan-monai train BUNDLE --help lists them.

    Lists are typed as t1c,flair and regions as 'lesion=1,2;core=2'. The weights, model.pt, are written to the output
    folder. Apply them with segan-monai predict OUTPUT_FOLDER.

    Example: segan-monai train hippocampus Task04_Hippocampus --epochs 100
    """
    arguments = run_arguments("train", bundle, data, output_dir, overlay or (), context.obj)
    if check_only:
        check_arguments(arguments)
        return
    run_bundle(arguments, verbose)
    if int(os.environ.get("RANK", "0")) == 0:
        for line in _next_commands(bundle, str(data), arguments["output_dir"]):
            typer.echo(line)


def _next_commands(bundle: str, data: str, run: str) -> list[str]:
    """Return lines with the commands that a user may want after a training."""
    from segan_monai.json_files import read_json_object
    from segan_monai.trained import is_of_pretraining, settings_file

    file = settings_file(Path(run) / "model.pt")
    if file.is_file() and is_of_pretraining(read_json_object(file)):
        return [f"next:    {shlex.join(['segan-monai', 'train', bundle, data, '--initial_weights', run, '-o', 'NEW'])}"]
    return [
        f"next:    {shlex.join(['segan-monai', 'evaluate', run, data])}",
        f"         {shlex.join(['segan-monai', 'predict', run, '-i', 'IMAGES', '-o', 'OUT'])}",
    ]
