# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai include``: copies the weights of trainings into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segan_monai.cli.run_options import output_dir_option


def include(
    trainings: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", exists=True, help="Output folders of trainings: one, or the members of an ensemble."
        ),
    ],
    output_dir: Annotated[
        Path, output_dir_option("The bundle's models, or the included_weights_dir of an overlay, such as models/NAME.")
    ],
    half: Annotated[
        bool,
        typer.Option("--half", help="Save float32 numbers as float16, in half the space."),
    ] = False,
    network: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            metavar="RUN",
            help="Training of a network for exports and MONAI Label, beside an ensemble; other runs take the ensemble.",
        ),
    ] = None,
) -> None:
    """Copy the weights of trainings into a bundle, with their model.json, split.json, quality.json and domains.json.

    One training becomes model.pt, with its quality_critic. Several become an ensemble, fold_0/model.pt,
    fold_1/model.pt and so on, which every run of the bundle then uses. With --network, they lie in the folder folds.

    Example: segan-monai include RUN/fold_0 RUN/fold_1 -o my_bundle/models --half
    """
    from segan_monai.export import include_weights

    for file in include_weights(trainings, output_dir, half, network):
        typer.echo(f"written: {file} ({file.stat().st_size / 1e6:.1f} MB)")
