# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai evaluate``: scores a bundle's network, or a folder of predicted label maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from segan_monai.cli.bundle_runs import run_arguments, run_bundle
from segan_monai.cli.check import check_arguments
from segan_monai.cli.run_options import BackgroundLabels, CheckOnly, OutputDir, Overlays, Verbose
from segan_monai.errors import ConfigError


def evaluate(
    context: typer.Context,
    bundle: Annotated[
        str | None,
        typer.Argument(metavar="BUNDLE", help="As for predict: name or folder of a bundle, or folder of a training."),
    ] = None,
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Folder of labelled images.")] = None,
    output_dir: OutputDir = None,
    regions: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Label convention, or text such as 'WT=1,2,4;TC=1,4;ET=4'. Default: the bundle's regions, or one "
            "region per label value.",
        ),
    ] = None,
    overlay: Overlays = None,
    check_only: CheckOnly = False,
    verbose: Verbose = False,
    predictions: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of predicted label maps, <case>_seg.nii.gz."),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Folder of reference label maps; may be a data set with its images."
        ),
    ] = None,
    prediction_regions: Annotated[
        str | None, typer.Option(metavar="SPEC", help="As --regions, for predictions with other label values.")
    ] = None,
    ignore_label: Annotated[
        int | None, typer.Option(min=1, help="Value of voxels whose label is unknown, which count in no metric.")
    ] = None,
    background_labels: BackgroundLabels = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cases evaluated in parallel; default: the CPU cores, at most 8.")
    ] = None,
) -> None:
    """Compute Dice, IoU, precision, sensitivity, HD95 and ASSD for every case and region.

    With BUNDLE and DATA, segment the held-out cases first; every key of the bundle's evaluate.json is an option. With
    --predictions, --references and --output-dir, compare label maps of any program.

    Example: segan-monai evaluate hippocampus Task04_Hippocampus --subset all

    Example: segan-monai evaluate --predictions results --references BraTS2021 --output-dir report --regions brats2021
    """
    keys: dict[str, str | None] = context.obj
    of_label_maps = {"predictions": predictions, "references": references}
    only_of_label_maps = {**of_label_maps, "prediction-regions": prediction_regions, "workers": workers}
    if bundle is not None:
        if mixed := [f"--{name}" for name, value in only_of_label_maps.items() if value is not None]:
            raise typer.BadParameter(f"{mixed[0]} compares label maps; give either it, or BUNDLE and DATA.")
        if data is None:
            raise typer.BadParameter("missing DATA after BUNDLE.")
        keys = keys if regions is None else {**keys, "regions": regions}
        keys = keys if ignore_label is None else {**keys, "ignore_label": str(ignore_label)}
        if background_labels is not None:
            keys = {**keys, "background_labels": str(parse_values(background_labels))}
        arguments = run_arguments("evaluate", bundle, data, output_dir, overlay or (), keys)
        if check_only:
            check_arguments(arguments)
            return
        run_bundle(arguments, verbose)
        return
    needed = {**of_label_maps, "output-dir": output_dir}
    for name in keys:
        if meant := get_close_matches(name, [*needed, *only_of_label_maps], n=1):
            raise typer.BadParameter(f"no such option: --{name}. Did you mean --{meant[0]}?")
    if missing := [f"--{name}" for name, value in needed.items() if value is None]:
        raise typer.BadParameter(
            f"give BUNDLE and DATA, or --predictions, --references and --output-dir ({missing[0]} is missing)."
        )
    if keys or overlay or check_only:
        name = next(iter(keys), "overlay" if overlay else "check-only")
        raise typer.BadParameter(f"no such option: --{name} for label maps.")
    assert predictions is not None
    assert references is not None
    assert output_dir is not None
    background = () if background_labels is None else parse_values(background_labels)
    _evaluate_label_maps(
        predictions, references, output_dir, regions, prediction_regions, workers, ignore_label, background
    )


def _evaluate_label_maps(
    predictions: Path,
    references: Path,
    output_dir: Path,
    regions: str | None,
    prediction_regions: str | None,
    workers: int | None,
    ignore_label: int | None,
    background_labels: Sequence[int],
) -> None:
    from segan_monai.ensembles import refuse_trained_cases
    from segan_monai.metrics import evaluate_folders, find_label_maps, format_table
    from segan_monai.run.folder import COMPARISON, refuse_other_kind
    from segan_monai.run.lock import output_folder

    of_references = None if regions is None else parse_regions(regions)
    of_predictions = None if prediction_regions is None else parse_regions(prediction_regions)
    refuse_trained_cases(predictions, find_label_maps(predictions).keys())
    with output_folder(output_dir):
        refuse_other_kind(output_dir, {COMPARISON})
        table = evaluate_folders(
            predictions,
            references,
            output_dir,
            of_references,
            of_predictions,
            workers,
            ignore_label,
            background_labels,
        )
    typer.echo(format_table(table))
    typer.echo(f"written: {output_dir / 'metrics.csv'}, {output_dir / 'summary.json'}")


def parse_values(text: str) -> list[int]:
    """Parse label values from the command line, such as ``3,4`` or ``[3, 4]``.

    Raises:
        ConfigError: The text has anything but positive whole numbers.
    """
    values = text.strip().removeprefix("[").removesuffix("]").split(",")
    if not all(re.fullmatch(r"\s*0*[1-9]\d*\s*", value) for value in values):
        raise ConfigError(f"--background-labels {text}: expected label values above 0, such as 3,4.")
    return [int(value) for value in values]


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
