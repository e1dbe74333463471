# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai folds``: cross-validates configurations of a bundle and chooses one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from segan_monai.cli.reproduce import cluster_of, parse_numbers, run_part
from segan_monai.cli.run_options import Bundle, PartOption, Ray, RayCpus, RayGpus, RayRetries, output_dir_option


def folds(
    bundle: Bundle,
    data: Annotated[Path, typer.Argument(metavar="DATA", exists=True, help="Folder of labelled images.")],
    output_dir: Annotated[
        Path,
        output_dir_option("Folder that receives all runs, folds.md, folds.csv and folds.json."),
    ],
    row: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=OVERLAY,...",
            help="Configuration to compare, cheapest first; NAME= is the bundle as it is. Default: that one alone.",
        ),
    ] = None,
    folds: Annotated[str | None, typer.Option(help="Folds to hold out in turn; default: all of the bundle.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of split and initialization, such as 0,1,2.")] = "0",
    datalist: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Decathlon JSON that lists the cases; default: search DATA."),
    ] = None,
    config: Annotated[
        list[Path] | None, typer.Option(help="Overlay for all configurations, such as configs/cpu.json.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Key of train.json, for all rows that do not set it."),
    ] = None,
    ensembles: Annotated[
        bool, typer.Option(help="Score ensembles of the configurations too: all pairs, and all together.")
    ] = True,
    region_rules: Annotated[
        bool, typer.Option(help="Choose the post-processing of the winner on all out-of-fold cases.")
    ] = True,
    train_seconds: Annotated[
        float | None, typer.Option(min=1, help="Training time per fold, instead of the bundle's epochs.")
    ] = None,
    part: PartOption = None,
    ray: Ray = None,
    ray_cpus: RayCpus = 1,
    ray_gpus: RayGpus = 0,
    ray_retries: RayRetries = 3,
) -> None:
    """Train all folds of one or more configurations, score every case out of fold, and choose the best.

    Finished folds are kept, so an interrupted command resumes where it stopped. A failed fold is named, and the others
    go on.

    Example: segan-monai folds hippocampus Task04_Hippocampus -o OUT --row 2-D=axial_slices --row 2.5-D=
    """
    from segan_monai.bundles_by_name import find_overlay
    from segan_monai.errors import ConfigError
    from segan_monai.folds import (
        FoldRun,
        can_save_maps,
        configurations,
        evaluation_keys,
        folds_of,
        run_fold,
        skipped_steps,
        write_results,
    )
    from segan_monai.parts import parse_part
    from segan_monai.places import require_results_outside
    from segan_monai.reproduce import (
        Plan,
        RunFailedError,
        Task,
        parse_overrides,
        refuse_measured_time,
        run_tasks,
        tasks_of_part,
    )
    from segan_monai.run.lock import output_folder, refuse_running_parts

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    table = configurations(bundle, row or [])
    overrides = parse_overrides(settings or [], table)
    plan = Plan(
        table, data, output_dir, datalist, [find_overlay(file) for file in config or []], overrides, train_seconds
    )
    of_bundle = folds_of(plan)
    parts = parse_numbers(folds, "folds") if folds else of_bundle
    if absent := sorted({*parts} - {*of_bundle}):
        raise ConfigError(
            f"--folds: there is no fold {', '.join(map(str, absent))}. Expected folds from {of_bundle[0]} to "
            f"{of_bundle[-1]}; --set folds=N sets their number."
        )
    numbers = parse_numbers(seeds, "seeds")
    cluster = cluster_of(ray, ray_cpus, ray_gpus, ray_retries, train_seconds, part)
    require_results_outside(output_dir, data, datalist)
    errors: dict[str, str] = {}
    ensembles = ensembles and len(table.rows) > 1
    skipped = skipped_steps(plan, ensembles, region_rules)
    ensembles = ensembles and can_save_maps(plan)
    region_rules = region_rules and can_save_maps(plan) and "region_rules" in evaluation_keys(plan)
    tasks = [Task(plan, name, seed, fold) for name in table.rows for seed in numbers for fold in parts]
    save_maps = ensembles or region_rules

    def run(task: Task) -> FoldRun:
        return run_fold(task.plan, task.row, task.seed, task.fold or 0, save_maps=save_maps)

    own = parse_part(part)
    if own is not None:
        refuse_measured_time(train_seconds, "--part")
        run_part(tasks_of_part(tasks, own), run, own, output_dir)
        return
    with output_folder(output_dir):
        refuse_running_parts(output_dir)
        results: dict[Task, FoldRun] = {}
        for task, outcome in run_tasks(tasks, run, "folds", "fold", cluster):
            if isinstance(outcome, RunFailedError):
                text = f"fold {task.fold}: {outcome}"
                errors[task.row] = f"{errors[task.row]} {text}" if task.row in errors else text
                typer.echo(f"segan-monai: error: {text}", err=True)
            else:
                results[task] = outcome
        runs = [results[task] for task in tasks if task in results]
        if not runs:
            raise typer.Exit(1)
        found = write_results(plan, runs, errors, ensembles, region_rules, skipped)
    typer.echo(found.text)
    names = ["folds.md", "folds.csv", *(["folds.json"] if found.record else [])]
    typer.echo(f"written: {', '.join(str(output_dir / name) for name in names)}")
    for command in found.record["predict"] if found.record else ():
        typer.echo(f"next:    {command}")
    if errors:
        raise typer.Exit(1)
