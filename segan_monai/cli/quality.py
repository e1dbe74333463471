# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai fit-quality``: fits an estimate of quality to out-of-fold evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from segan_monai.cli.run_options import output_dir_option

Evaluations = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER...",
        exists=True,
        file_okay=False,
        help="Output folders of evaluations of held-out cases, such as OUT/*/seed_0_fold_*/out_of_fold of folds.",
    ),
]


def fit_quality(
    evaluations: Evaluations,
    output_dir: Annotated[
        list[Path],
        output_dir_option(
            "Folder with the weights that predict will use, model.pt; receives quality.json. May be repeated."
        ),
    ],
) -> None:
    """Fit how good a segmentation is to the signals and the Dice of cases that no network was trained on.

    Later runs of predict with the weights beside quality.json then write quality.csv for every case and region: the
    expected Dice, a bound that about 90 % of cases like those of the fit exceed, and a flag.

    Example: segan-monai fit-quality OUT/bundle/seed_0_fold_*/out_of_fold -o OUT/bundle/seed_0_fold_0/training
    """
    from segan_monai.errors import ConfigError
    from segan_monai.quality import fit_quality as fit
    from segan_monai.quality import held_out_estimates, read_evaluations, without_order, write_quality

    for folder in output_dir:
        if not (folder / "model.pt").is_file():
            raise ConfigError(f"{folder} has no model.pt; expected the folder of the weights that predict will use.")
    settings, cases = read_evaluations(evaluations)
    for folder in output_dir:
        _require_same_network(folder, settings)
    model = fit(cases)
    held_out = held_out_estimates(cases)
    measures = {region: found.measures() for region, found in held_out.items()}
    typer.echo("measured on the same cases, each by a model that was fitted without its patient:")
    typer.echo("region               cases  coverage   AURC  Spearman    MAE  flagged")
    for region, found in measures.items():
        typer.echo(
            f"{region:20} {found['cases']:5}  {found['coverage']:8.3f}  {found['aurc']:.3f}  {found['spearman']:8.3f}  "
            f"{found['mae']:.3f}  {found['flagged']:7.3f}"
        )
        for name, alone in held_out[region].single_signals().items():
            typer.echo(f"  {name:18} {'':5}  {'':8}  {alone['aurc']:.3f}  {alone['spearman']:8.3f}")
    for text in without_order(measures):
        typer.echo(f"WARNING: {text}", err=True)
    fit_record = {"cases": len(cases), "measured": measures}
    for folder in output_dir:
        typer.echo(f"written: {write_quality(folder / 'model.pt', model, settings, fit_record)}")


def _require_same_network(folder: Path, settings: Mapping[str, Any]) -> None:
    """Check that the weights in a folder segment what the evaluations did, by their ``model.json``, if there is one."""
    from segan_monai.errors import ConfigError
    from segan_monai.trained import read_trained_settings

    trained = read_trained_settings(folder / "model.pt")
    regions, evaluated = trained.get("regions"), settings.get("regions")
    if isinstance(regions, dict) and evaluated is not None and list(regions) != list(evaluated):
        raise ConfigError(
            f"the evaluations are of the regions {', '.join(evaluated)}, but the network in {folder} segments "
            f"{', '.join(regions)}. Fit to evaluations of that network, or of its other folds."
        )
    if trained and (rules := trained.get("region_rules")) != settings.get("region_rules"):
        typer.echo(
            f"WARNING: predict applies region_rules {rules} with {folder}, but the cases were evaluated with "
            f"{settings.get('region_rules')}, so it will not use this estimate. Evaluate each fold again (segan-monai "
            "evaluate FOLD/training DATA -o ...), and fit to these evaluations.",
            err=True,
        )
