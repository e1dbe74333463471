# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The commands ``segan-monai fit-quality-critic`` and ``quality``: how good a label map is, whatever has made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from segan_monai.cli.quality import Evaluations
from segan_monai.cli.run_options import BackgroundLabels, Overlays, output_dir_option


def fit_quality_critic(
    evaluations: Evaluations,
    output_dir: Annotated[
        list[Path],
        output_dir_option("Folder with the weights of a training, model.pt; receives quality_critic. May be repeated."),
    ],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each of the six networks.")] = 600,
    size: Annotated[
        int, typer.Option(min=16, help="Rows and columns to which slices are resized; a multiple of 16.")
    ] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of initialization, sampling and corruptions.")] = 0,
) -> None:
    """Train a critic that estimates the Dice of any label map from image and mask.

    It learns from the predictions of cases that no network was trained on, and from corrupted labels. The command
    segan-monai quality then uses it.

    Example: segan-monai fit-quality-critic OUT/bundle/seed_0_fold_*/out_of_fold -o OUT/bundle/seed_0_fold_0/training
    """
    from segan_monai.errors import ConfigError
    from segan_monai.member_weights import weight_files
    from segan_monai.quality import read_evaluations, without_order
    from segan_monai.quality_critic import Critic, fit_critic, read_cases, write_critic
    from segan_monai.quality_critic.fit import GROUPS

    for folder in output_dir:
        if not weight_files(None, folder)[0].is_file():
            raise ConfigError(f"{folder} has no model.pt; expected the folder of the weights of a training.")
    if size % 16:
        raise ConfigError(f"--size {size}; expected a multiple of 16, such as 64 or 96.")
    settings, evaluated = read_evaluations(evaluations)
    cases = read_cases(evaluations, evaluated, GROUPS, size)
    regions = list(settings["regions"])
    fitted = fit_critic(cases, regions, steps, seed)
    measured = {}
    typer.echo("measured on masks of the same cases, each by a network that was trained without its patient:")
    typer.echo("region               masks        cases  coverage   AURC  Spearman    MAE  flagged")
    for kind, held_out in (("predictions", fitted.predictions), ("corrupted", fitted.corrupted)):
        measured[kind] = {region: found.measures() for region, found in held_out.items()}
        for region, found in measured[kind].items():
            typer.echo(
                f"{region:20} {kind:11}  {found['cases']:5}  {found['coverage']:8.3f}  {found['aurc']:.3f}  "
                f"{found['spearman']:8.3f}  {found['mae']:.3f}  {found['flagged']:7.3f}"
            )
    for text in without_order(measured["predictions"]):
        typer.echo(f"WARNING: {text}", err=True)
    critic = Critic(fitted.network, fitted.model, regions, size)
    record = {"cases": len(cases), "steps": steps, "seed": seed, "measured": measured}
    channels = int(cases[0].stack.image.shape[1])
    for folder in output_dir:
        typer.echo(f"written: {write_critic(folder, critic, channels, settings, record)}")


def quality(
    bundle: Annotated[
        str, typer.Option("--bundle", metavar="RUN", help="Folder of a training with quality_critic, or a bundle.")
    ],
    images: Annotated[
        Path, typer.Option("--images", metavar="DIR", exists=True, help="Folder of images, as for predict.")
    ],
    label_maps: Annotated[
        Path,
        typer.Option(
            "--label-maps", metavar="DIR", exists=True, file_okay=False, help="Label maps, <case>_seg or <case>."
        ),
    ],
    output_dir: Annotated[
        Path | None,
        output_dir_option("Folder for quality.csv; default: RUN_quality."),
    ] = None,
    overlay: Overlays = None,
    regions: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Values of the regions in the label maps, such as 'WT=1,2,4;TC=1,4;ET=4', or a label convention. "
            "Default: the values that predict writes.",
        ),
    ] = None,
    background_labels: BackgroundLabels = None,
) -> None:
    """Estimate how good label maps are, without references, whatever has made them.

    Writes quality.csv: case, region, expected Dice, a lower bound, and a flag with its reason.

    Example: segan-monai quality --bundle OUT/bundle/seed_0_fold_0/training --images IMAGES --label-maps LABEL_MAPS
    """
    from segan_monai.cli.evaluate import parse_values
    from segan_monai.errors import user_error_in
    from segan_monai.quality_critic import estimate_label_map, match_label_maps, parsed, read_critic, require_volumes

    parser, weights_dir, output = _parsed(bundle, images, output_dir, overlay or ())
    cases = parsed(parser, "cases")
    require_volumes(parser, cases, bundle)
    settings = parser.get_parsed_content("quality_settings")
    critic = read_critic(weights_dir, settings)
    values = _values(parser, critic.regions, regions)
    background = () if background_labels is None else parse_values(background_labels)
    modalities = list(parser.get_parsed_content("modalities"))
    preprocessing = parser.get_parsed_content("preprocessing")
    pairs, lacking = match_label_maps(cases, label_maps)
    for text in lacking:
        typer.echo(f"segan-monai: {text}", err=True)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    failed = 0
    for case, file in pairs:
        try:
            found[case["case"]] = estimate_label_map(critic, case, file, preprocessing, modalities, values, background)
        except Exception as error:  # MONAI wraps those of the preprocessing
            if (cause := user_error_in(error)) is None:
                raise
            failed += 1
            typer.echo(f"segan-monai: error: {case['case']}: {cause}", err=True)
    typer.echo(f"written: {_write(output, found)} ({len(found)} of {len(pairs)} label maps)")
    if failed:
        raise typer.Exit(1)


def _parsed(bundle: str, images: Path, output_dir: Path | None, overlays: Sequence[str] = ()) -> tuple[Any, Path, Path]:
    """Return the parsed inference config with the settings of the training, the folder of its weights, and the output.

    Raises:
        ConfigError: The bundle or run does not exist, or has no quality estimate.
    """
    from segan_monai.check.config_files import read_configs
    from segan_monai.cli.bundle_runs import run_arguments
    from segan_monai.errors import ConfigError
    from segan_monai.places import require_results_outside
    from segan_monai.run.folder import ESTIMATE, refuse_other_kind
    from segan_monai.trained import apply_settings_of_weights

    arguments = run_arguments("predict", bundle, images, output_dir, overlays, {})
    output = output_dir or Path(f"{Path(bundle).expanduser().resolve().name}_quality")
    require_results_outside(output, images, None)
    refuse_other_kind(output, {ESTIMATE})
    parser = read_configs(arguments)
    if "quality_settings" not in parser:
        raise ConfigError(f"{bundle} has no quality_settings in its inference.json; expected a bundle that estimates.")
    if "pad_small_images" in parser:
        parser["pad_small_images"] = True  # the critic takes no patches, so no image is too small
    apply_settings_of_weights(parser, arguments)
    return parser, Path(parser.get_parsed_content("ckpt_dir")), output


def _values(parser: Any, names: list[str], regions: str | None) -> Mapping[str, Any]:
    """Return the values of each region in the label maps.

    Raises:
        ConfigError: The names of ``--regions`` are not those of the critic.
    """
    from segan_monai.cli.evaluate import parse_regions
    from segan_monai.errors import ConfigError
    from segan_monai.transforms.regions import merged_regions

    if regions is None:
        return merged_regions(parser.get_parsed_content("label_regions"), parser.get("output_labels", "consecutive"))
    given = parse_regions(regions)
    if set(given) != set(names):
        raise ConfigError(f"--regions names {', '.join(given)}; expected the critic's regions {', '.join(names)}.")
    return {name: given[name] for name in names}


def _write(folder: Path, found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Path:
    """Write ``quality.csv``, and return the file.

    Raises:
        OutputError: It cannot be written.
    """
    import pandas as pd

    from segan_monai.files import whole_file, writing

    columns = ["case", "region", "expected_dice", "lower_bound", "flag"]
    rows = [{"case": c, "region": r, **line} for c, regions in found.items() for r, line in regions.items()]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    file = folder / "quality.csv"
    with whole_file(file) as temporary:
        pd.DataFrame(rows, columns=columns).to_csv(temporary, index=False)
    return file
