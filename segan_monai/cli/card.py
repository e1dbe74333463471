# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai card``: writes the model card of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segan_monai.cli.run_options import BundleOrRun


def card(
    bundle: BundleOrRun,
    evaluation: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Output folder of an evaluation, for the results.")
    ] = None,
    file: Annotated[Path, typer.Option("--file", "-o", dir_okay=False, help="Markdown file to write.")] = Path(
        "model_card.md"
    ),
) -> None:
    """Write a model card with the fields of MONAI's model zoo and the topics of CLAIM 2024.

    It is filled from metadata.json, data_license.txt, model.json, split.json, run.json and summary.json. What they do
    not say is marked as blank, to be filled in by you.

    Example: segan-monai card hippocampus --evaluation OUT/evaluation -o model_card.md
    """
    from segan_monai.bundles_by_name import find_bundle_or_run
    from segan_monai.files import write_text
    from segan_monai.member_weights import weight_files
    from segan_monai.report.card import BLANK, model_card
    from segan_monai.trained import settings_file

    folder, run = find_bundle_or_run(bundle)
    training = run or folder / "models"
    weights = weight_files(None, training)[0]
    for needed in (weights, settings_file(weights)):
        if not needed.is_file():
            typer.echo(f"{training} has no {needed.name}: fields that follow from it are blank", err=True)
    text = model_card(folder, training, evaluation)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    typer.echo(f"written: {file}; {text.count(BLANK) - 1} fields are to be filled in")
