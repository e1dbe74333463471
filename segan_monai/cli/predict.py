# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai predict``: segments images with a bundle's network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segan_monai.cli.bundle_runs import run_arguments, run_bundle
from segan_monai.cli.check import check_arguments
from segan_monai.cli.run_options import BundleOrRun, CheckOnly, OutputDir, Overlays, Verbose


def predict(
    context: typer.Context,
    bundle: BundleOrRun,
    images: Annotated[Path, typer.Option("--input", "-i", metavar="PATH", help="Image, or folder of images.")],
    output_dir: OutputDir = None,
    overlay: Overlays = None,
    check_only: CheckOnly = False,
    verbose: Verbose = False,
) -> None:
    """Segment images: write one label map per case, on the image's own grid.

    Every key of the bundle's inference.json is an option: segan-monai predict BUNDLE --help lists them. Give the output
    folder of a training as BUNDLE to use its weights.

    Example: segan-monai predict hippocampus -i IMAGES -o OUT
    """
    arguments = run_arguments("predict", bundle, images, output_dir, overlay or (), context.obj)
    if check_only:
        check_arguments(arguments)
        return
    run_bundle(arguments, verbose)
