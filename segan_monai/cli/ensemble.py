# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai ensemble``: averages the probability maps of several predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segan_monai.cli.run_options import output_dir_option


def ensemble(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            exists=True,
            file_okay=False,
            help="Output folders of predict or evaluate, with --save_probabilities regions (or true).",
        ),
    ],
    output_dir: Annotated[Path, output_dir_option("Receives the label maps.")],
    region_rules: Annotated[
        str | None,
        typer.Option(
            "--region-rules",
            "--region_rules",
            metavar="JSON",
            help='Post-processing of the mean, such as \'{"lesion": {"smallest_voxels": 10}}\'.',
        ),
    ] = None,
    output_labels: Annotated[
        str,
        typer.Option("--output-labels", "--output_labels", help="Voxel values: consecutive, or dataset for its own."),
    ] = "consecutive",
    save_probabilities: Annotated[
        bool,
        typer.Option("--save-probabilities", "--save_probabilities", help="Also write a mean map per region."),
    ] = False,
) -> None:
    """Average the probabilities that several networks predicted for the same images, and write label maps.

    The networks may differ in everything but their regions, such as a 2-D and a 3-D network. For networks of the same
    settings, such as folds, predict --weights FOLD_0,FOLD_1 does this in one run.

    Example: segan-monai ensemble OUT/2d OUT/3d -o OUT/ensemble
    """
    import json

    from segan_monai.ensembles import RECORD, average_predictions
    from segan_monai.errors import ConfigError
    from segan_monai.run.lock import output_folder

    try:
        rules = None if region_rules is None else json.loads(region_rules)
    except ValueError as error:
        raise ConfigError(f"--region-rules is not valid JSON ({error}); found {region_rules!r}.") from error
    if rules is not None and not isinstance(rules, dict):
        raise ConfigError(f"--region-rules is {region_rules}; expected an object of rules by region.")
    with output_folder(output_dir):
        cases = average_predictions(
            predictions, output_dir, rules, output_labels, "regions" if save_probabilities else False
        )
    typer.echo(f"{len(cases)} cases, mean of {len(predictions)} predictions; written:")
    typer.echo(f"  {output_dir}/*_seg.nii.gz: label maps")
    if save_probabilities:
        typer.echo(f"  {output_dir}/*_probability_*.nii.gz: mean probability of each region")
    typer.echo(f"  {output_dir / RECORD}: members and cases")
