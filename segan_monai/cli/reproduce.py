# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``segan-monai reproduce``: reruns the experiments of a published table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segan_monai.cli.run_options import PartOption, Ray, RayCpus, RayGpus, RayRetries
from segan_monai.errors import ConfigError, UserError

if TYPE_CHECKING:
    from segan_monai.parts import Part
    from segan_monai.reproduce import Cluster, Plan, Task


def reproduce(
    table: Annotated[
        str, typer.Argument(help="segan-vs-unet, lsnet-methods, ... (see docs/reproduce.md), or a prefix such as lsnet")
    ],
    dataset_dir: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of the data.")],
    output_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Folder that receives TABLE.md, TABLE.csv and all runs.")
    ],
    datalist: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Decathlon JSON that lists the cases; default: search DATASET_DIR."
        ),
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle to use instead of the table's own.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Run only this row; may be repeated.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of split and initialization, such as 0,1,2.")] = "0,1,2",
    folds: Annotated[
        str | None, typer.Option(help="Folds to hold out in turn for cross-validation, such as 0,1,2,3,4.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Numbers of labelled cases, such as 4,8; for tables with few labels.")
    ] = None,
    draws: Annotated[
        str | None, typer.Option(help="Seeds that choose the labelled cases, such as 0,1,2; as --labels.")
    ] = None,
    train_seconds: Annotated[
        float | None, typer.Option(min=1, help="Training time per row, instead of the bundle's epochs.")
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(help="Overlay for all rows, such as configs/cpu.json."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Key of train.json, for all rows that do not set it."),
    ] = None,
    part: PartOption = None,
    ray: Ray = None,
    ray_cpus: RayCpus = 1,
    ray_gpus: RayGpus = 0,
    ray_retries: RayRetries = 3,
) -> None:
    """Train and evaluate the rows of a published table, and print our results beside the published figures.

    Finished runs are kept, so an interrupted command resumes where it stopped.

    Example: segan-monai reproduce segan-components --dataset-dir Task04_Hippocampus --output-dir out
    --bundle hippocampus_mri_segan_segmentation --config configs/cpu.json --train-seconds 150
    """
    from segan_monai.bundles_by_name import find_overlay
    from segan_monai.parts import parse_part
    from segan_monai.places import require_results_outside
    from segan_monai.reproduce import (
        Plan,
        Task,
        check_overrides,
        check_rows,
        load_tables,
        parse_overrides,
        refuse_measured_time,
        run_row,
        tasks_of_part,
        with_labels,
    )
    from segan_monai.run.lock import output_folder, refuse_running_parts

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    few = [None if text is None else parse_numbers(text, name) for text, name in ((labels, "labels"), (draws, "draws"))]
    tables = [with_labels(found, *few) for found in load_tables(table, bundle)]
    if (part or ray) and any(found.labels and found.labels.chosen for found in tables):
        raise ConfigError(
            f"{'--part' if part else '--ray'} cannot divide '{table}': its later runs need those before. "
            "Give each machine other --draws and its own --output-dir."
        )
    overlays = [find_overlay(file) for file in config or []]
    numbers = parse_numbers(seeds, "seeds")
    parts: list[int | None] = [*parse_numbers(folds, "folds")] if folds else [None]
    own = parse_part(part)
    cluster = cluster_of(ray, ray_cpus, ray_gpus, ray_retries, train_seconds, part)
    require_results_outside(output_dir, dataset_dir, datalist)
    plans: list[tuple[Plan, list[Task]]] = []
    for chosen, names in zip(tables, check_rows(tables, row or []), strict=True):
        overrides = parse_overrides(settings or [], chosen)
        plan = Plan(chosen, dataset_dir, output_dir, datalist, overlays, overrides, train_seconds)
        check_overrides(plan)
        drawn = {name: chosen.labels.of_row(name) if chosen.labels else [None] for name in names}
        tasks = [
            Task(plan, name, seed, fold, labelled)
            for name in names
            for seed in numbers
            for fold in parts
            for labelled in drawn[name]
        ]
        plans.append((plan, tasks))

    def run(task: Task) -> dict[str, Any]:
        return run_row(task.plan, task.row, task.seed, task.fold, task.labels)

    if own is not None:
        refuse_measured_time(train_seconds, "--part")
        run_part(tasks_of_part([task for _, tasks in plans for task in tasks], own), run, own, output_dir)
        return
    failed = False
    with output_folder(output_dir):
        refuse_running_parts(output_dir)
        for plan, tasks in plans:
            failed = _run_table(plan, tasks, run, cluster) or failed
    if failed:
        raise typer.Exit(1)


def _run_table(
    plan: Plan, tasks: Sequence[Task], run: Callable[[Task], dict[str, Any]], cluster: Cluster | None
) -> bool:
    """Run a table and write it after each run; return whether a run failed."""
    from segan_monai.files import write_text
    from segan_monai.reproduce import RunFailedError, draw_curve, format_csv, format_markdown, run_tasks

    table = plan.table
    markdown, csv, curve = (plan.output_dir / f"{table.name}.{kind}" for kind in ("md", "csv", "svg"))
    results: dict[Task, dict[str, Any]] = {}
    errors: dict[str, str] = {}
    runs: list[dict[str, Any]] = []
    for task, outcome in run_tasks(tasks, run, table.name, cluster=cluster):
        if isinstance(outcome, RunFailedError):
            errors[task.row] = f"{errors[task.row]} {outcome}" if task.row in errors else str(outcome)
            typer.echo(f"segan-monai: error: {outcome}", err=True)
        else:
            results[task] = outcome
        runs = [results[task] for task in tasks if task in results]
        if runs:
            write_text(markdown, format_markdown(plan, runs, errors))
            write_text(csv, format_csv(runs))
            if table.labels:
                write_text(curve, draw_curve(table, runs))
    if runs:
        typer.echo(format_markdown(plan, runs, errors))
        typer.echo(format_csv(runs))
        typer.echo(f"written: {markdown}, {csv}" + (f", {curve}" if table.labels else ""))
    return bool(errors)


def run_part(tasks: Sequence[Task], run: Callable[[Task], Any], part: Part, output_dir: Path) -> None:
    """Run the tasks of a part; one that fails or is refused is named, and the others go on.

    Args:
        tasks: tasks of the part.
        run: function that runs a task.
        part: the part.
        output_dir: folder that all parts share.

    Raises:
        typer.Exit: A task failed.
        FolderInUseError: Another process runs this part, all of the work, or a part of another division.
    """
    from segan_monai.reproduce import run_tasks
    from segan_monai.run.lock import output_folder, refuse_beside_part

    def attempt(task: Task) -> Any:
        try:
            return run(task)
        except UserError as error:
            return error

    failed = 0
    with output_folder(part.folder(output_dir)):
        refuse_beside_part(output_dir, part)
        for _, outcome in run_tasks(tasks, attempt, f"part {part.number}/{part.parts}"):
            if isinstance(outcome, UserError):
                failed += 1
                typer.echo(f"segan-monai: error: {outcome}", err=True)
    typer.echo(
        f"part {part.number}/{part.parts}: {len(tasks) - failed} of {len(tasks)} runs finished. When all parts have "
        "ended, the same command without --part gathers the results."
    )
    if failed:
        raise typer.Exit(1)


def cluster_of(
    address: str | None, cpus: float, gpus: float, retries: int, train_seconds: float | None, part: str | None
) -> Cluster | None:
    """Connect to the cluster of ``--ray``; return None without that option.

    Raises:
        ConfigError: The options exclude each other, or no cluster answers.
    """
    from segan_monai.reproduce import Cluster, refuse_measured_time

    if address is None:
        return None
    if part is not None:
        raise ConfigError("--ray and --part exclude each other: Ray divides the runs among the machines itself.")
    refuse_measured_time(train_seconds, "--ray")
    cluster = Cluster(address, cpus, gpus, retries)
    cluster.connect()
    return cluster


def parse_numbers(text: str, what: str) -> list[int]:
    """Parse numbers such as ``0,1,2``.

    Args:
        text: distinct integers, separated by commas.
        what: name of the numbers, for the error message.

    Raises:
        ConfigError: The text has another form.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError(f"cannot parse the {what} '{text}'; expected distinct whole numbers, such as 0,1,2.")
    return [int(part) for part in parts]
