# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai sweep``: searches for settings of a training."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from segan_monai.cli.run_options import Bundle, RayCpus, RayGpus, RayRetries, output_dir_option
from segan_monai.errors import ConfigError


def sweep(
    bundle: Bundle,
    data: Annotated[Path, typer.Argument(metavar="DATA", exists=True, help="Folder of labelled images.")],
    output_dir: Annotated[
        Path,
        output_dir_option("Folder that receives all trials, sweep.html, sweep.csv and best.json."),
    ],
    space: Annotated[
        Path, typer.Option(metavar="FILE", dir_okay=False, help="JSON file: a range or choices for each key.")
    ],
    trials: Annotated[int, typer.Option(min=1, help="Number of trainings.")] = 20,
    metric: Annotated[str, typer.Option(help="Name in history.csv that judges a training.")] = "validation/mean_dice",
    smallest: Annotated[bool, typer.Option("--smallest", help="Smaller values of the metric are better.")] = False,
    min_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs before a training may be stopped; default: a ninth of the epochs.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the search; that of the trainings is --set seed=0.")] = 0,
    datalist: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Decathlon JSON that lists the cases; default: search DATA."),
    ] = None,
    config: Annotated[list[Path] | None, typer.Option(help="Overlay for all trials, such as configs/cpu.json.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Key of train.json, for all trials.")
    ] = None,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="local for this machine, auto or HOST:PORT for a cluster.")
    ] = "local",
    ray_cpus: RayCpus = 1,
    ray_gpus: RayGpus = 0,
    ray_retries: RayRetries = 3,
) -> None:
    """Search for the best settings of a training by Ray Tune: Optuna proposes them, ASHA stops those that fall behind.

    Repeat the command to resume an interrupted sweep.

    Example: segan-monai sweep hippocampus Task04_Hippocampus -o SWEEP --space space.json --trials 30 --ray local
    """
    from segan_monai.bundles_by_name import find_bundle, find_overlay
    from segan_monai.json_files import read_json_object
    from segan_monai.places import require_results_outside
    from segan_monai.reproduce import Cluster
    from segan_monai.run.folder import command_to_paste
    from segan_monai.run.lock import output_folder
    from segan_monai.settings import parse_settings
    from segan_monai.sweep import Sweep, read_space, read_trials, run_sweep, write_results, write_sweep_page

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = find_bundle(bundle).resolve()
    keys = read_json_object(folder / "configs" / "train.json")
    overlays = [find_overlay(file, folder).resolve() for file in config or []]
    given = parse_settings(settings or [])
    of_overlays = {key: value for file in overlays for key, value in read_json_object(file).items()}
    epochs = {**keys, **of_overlays, **given}["epochs"]
    if not isinstance(epochs, int) or epochs < 1:
        raise ConfigError(f"epochs is {epochs!r}; expected a whole number of at least 1, such as --set epochs=100.")
    if min_epochs is not None and min_epochs > epochs:
        raise ConfigError(
            f"--min-epochs is {min_epochs}, but a training has {epochs} epochs. Expected at most {epochs}: lower "
            f"--min-epochs, or set more epochs, such as --set epochs={9 * min_epochs}."
        )
    found = read_space(space, [key for key in keys if key != "epochs"])
    require_results_outside(output_dir, data, datalist)
    search = Sweep(
        folder,
        data.resolve(),
        output_dir.resolve(),
        found,
        epochs,
        metric,
        not smallest,
        None if datalist is None else datalist.resolve(),
        tuple(overlays),
        given,
    )
    cluster = Cluster(ray, ray_cpus, ray_gpus, ray_retries)
    with output_folder(output_dir):
        lost = run_sweep(search, trials, cluster, min_epochs or max(1, epochs // 9), seed)
        results = read_trials(search.output_dir, metric, epochs, search.largest)
        written = write_results(search.output_dir, results, metric)
        page = write_sweep_page(search, results, command_to_paste(sys.argv))
    best = results[0]
    typer.echo(f"best: {metric} {best.value:.4f}, trial {best.name}: {best.settings}")
    typer.echo(f"written: {', '.join(map(str, [page, *written]))}")
    typer.echo(f"next:    {_command_of(bundle, data, [*(config or []), search.config_of(best.name)])}")
    failed = sum(trial.state == "failed" for trial in results)
    if failed:
        text = f"{failed} of {len(results)} trainings failed and are not repeated; {page} has their messages"
        typer.echo(f"segan-monai: error: {text}", err=True)
    if lost:
        text = f"{lost} trainings were lost too often; the same command resumes them"
        typer.echo(f"segan-monai: error: {text}", err=True)
    if failed or lost:
        raise typer.Exit(1)


def _command_of(bundle: str, data: Path, overlays: Sequence[Path]) -> str:
    """Return the command that repeats a training of a sweep, as typed in the current folder.

    Args:
        bundle: bundle as typed.
        data: data set as typed.
        overlays: overlays as typed, and last ``Sweep.config_of`` of the trial, which has the datalist and all settings.
    """
    words = ["segan-monai", "train", bundle, str(data)]
    words += [word for file in overlays for word in ("--overlay", str(file))]
    return shlex.join([*words, "--resume=false"])  # the trial may have been resumed
