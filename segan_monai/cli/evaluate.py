# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai evaluate``: computes metrics for a folder of predicted label maps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from segan_monai.errors import ConfigError


def evaluate(
    predictions: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of predicted label maps, <case>_seg.nii.gz.")
    ],
    references: Annotated[
        Path,
        typer.Option(
            exists=True, file_okay=False, help="Folder of reference label maps; may be a data set with its images."
        ),
    ],
    output_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Folder that receives metrics.csv and summary.json.")
    ],
    regions: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Label convention, or text such as 'WT=1,2,4;TC=1,4;ET=4'. Default: one region per label value.",
        ),
    ] = None,
    prediction_regions: Annotated[
        str | None, typer.Option(metavar="SPEC", help="As --regions, for predictions with other label values.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cases evaluated in parallel; default: the CPU cores, at most 8.")
    ] = None,
) -> None:
    """Compute Dice, IoU, precision, sensitivity, HD95 and ASSD for every case and region.

    Example: segan-monai evaluate --predictions results --references BraTS2021 --output-dir report --regions brats2021
    """
    from segan_monai.metrics import evaluate_folders, format_table
    from segan_monai.run.lock import output_folder

    of_references = None if regions is None else parse_regions(regions)
    of_predictions = None if prediction_regions is None else parse_regions(prediction_regions)
    with output_folder(output_dir):
        table = evaluate_folders(predictions, references, output_dir, of_references, of_predictions, workers)
    typer.echo(format_table(table))
    typer.echo(f"written: {output_dir / 'metrics.csv'}, {output_dir / 'summary.json'}")


def parse_regions(text: str) -> dict[str, list[int]]:
    """Parse regions from the command line.

    Args:
        text: name of a label convention, or ``WT=1,2,4;TC=1,4;ET=4``.

    Returns:
        Label values of every region.

    Raises:
        ConfigError: The text is neither.
    """
    from segan_monai.data.conventions import LABEL_CONVENTIONS

    if text in LABEL_CONVENTIONS:
        return {region: list(values) for region, values in LABEL_CONVENTIONS[text].regions.items()}
    regions = {}
    for part in text.strip().strip(";").split(";"):
        match = re.fullmatch(r"\s*([^=,\s][^=,]*?)\s*=\s*(\d+(?:\s*,\s*\d+)*)\s*", part)
        if match is None or match[1] in regions:
            raise ConfigError(
                f"cannot parse '{part}' in the regions '{text}'; expected a label convention "
                f"({', '.join(LABEL_CONVENTIONS)}) or text such as 'WT=1,2,4;TC=1,4;ET=4', each name once"
            )
        regions[match[1]] = [int(value) for value in match[2].split(",")]
    return regions
