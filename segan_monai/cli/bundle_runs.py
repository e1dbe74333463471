# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs of bundles started by ``train``, ``evaluate``, ``predict`` and ``dicom``, as by ``monai.bundle run``."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

import segan_monai
from segan_monai.bundles_by_name import BUNDLES, CONFIGS, find_bundle_or_run, find_overlay
from segan_monai.cli.config_keys import CONFIG_FILES
from segan_monai.errors import ConfigError

RUN_IDS = {"train": "training", "evaluate": "evaluating", "predict": "inference", "dicom": "inference"}
"""Run id of each command."""


def run_arguments(
    command: str, bundle: str, data: Path, output: Path | None, overlays: Sequence[str], keys: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return the arguments of ``monai.bundle run`` for one of the short commands.

    Args:
        command: a key of ``RUN_IDS``.
        bundle: bundle as typed; for ``evaluate`` and ``predict`` also the folder of a training run, whose weights and
            split are then used.
        data: data set, or image.
        output: output folder; default: one named after bundle and run in the current folder.
        overlays: names or files, see ``find_overlay``.
        keys: texts of config keys as typed, see ``key_value``.

    Returns:
        Arguments in the form of ``segan_monai.command_line.read_arguments``.

    Raises:
        ConfigError: The bundle or an overlay does not exist; the run has no weights; a key is an option of MONAI or has
            no value.
    """
    folder, run = find_bundle_or_run(bundle)
    if run and command == "train":
        if not (run / "run.json").is_file():
            raise ConfigError(
                f"{bundle} is a folder of weights; train takes a bundle. To begin a training with them: segan-monai "
                f"train {folder.name} {data} --initial_weights {bundle}"
            )
        raise ConfigError(
            f"{bundle} is the folder of a run; train takes a bundle. To resume the run, type its bundle and data, and "
            f"add --output-dir {bundle} --resume true."
        )
    file = folder / "configs" / CONFIG_FILES[command]
    if not file.is_file():
        raise ConfigError(f"{folder} cannot {command}: it has no configs/{CONFIG_FILES[command]}.")
    if run and not (run / "model.pt").is_file():
        raise ConfigError(f"{bundle} has no trained weights (model.pt); expected the output folder of a training.")
    config_files = [str(file), *(str(find_overlay(overlay, folder)) for overlay in overlays)]
    name = (run or folder).resolve().name
    output = output or Path(f"{name}_{RUN_IDS[command].replace('evaluating', 'evaluation')}")
    places = {"bundle_root": str(folder.resolve()), "dataset_dir": str(data), "output_dir": str(output)}
    if command == "train" or run:
        places["ckpt_dir"] = str(run or output)
    from segan_monai.cli.key_values import key_value  # imports PyTorch

    values = {key: key_value(key, text) for key, text in keys.items()}
    return {"run_id": RUN_IDS[command], "config_file": config_files, **places, **values}


def run_bundle(arguments: Mapping[str, Any], verbose: bool = False) -> None:
    """Start a run in this process, as ``monai.bundle run`` does.

    A user error ends the process with one line on stderr and status 1; other errors are raised.

    Args:
        arguments: see ``run_arguments``.
        verbose: print the traceback of a user error and the messages of MONAI.
    """
    from monai.bundle import ConfigWorkflow

    from segan_monai.check.config_files import check_overlay_files
    from segan_monai.command_line import given_arguments, overrides_of
    from segan_monai.run.failures import end_process, what_to_do
    from segan_monai.typed import config_values

    files = arguments["config_file"]
    foreign = [file for file in files if not _is_of_package(file)]
    if foreign:
        typer.echo(
            f"note: a config can run any code, so use only those that you trust; segan-monai check --audit lists the "
            f"code of {', '.join(foreign)}.",
            err=True,
        )
    segan_monai.register_components()
    try:
        with given_arguments(arguments):
            with _quiet(verbose):
                check_overlay_files(files)
                overrides = config_values(overrides_of(arguments))
                workflow = ConfigWorkflow(config_file=files, run_id=arguments["run_id"], **overrides)
            workflow.initialize()
            workflow.run()
            workflow.finalize()
    except Exception as error:
        text = what_to_do(error)
        if text is None:
            raise
        if verbose:
            traceback.print_exc()
        print(f"segan-monai: error: {text}", file=sys.stderr)
        end_process()


def _is_of_package(file: str) -> bool:
    path = Path(file).resolve()
    return path.is_relative_to(BUNDLES) or path.is_relative_to(CONFIGS)


@contextlib.contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Suppress what MONAI says of the places of config files, unless ``verbose``."""
    logger = logging.getLogger("monai.bundle.workflows")
    level = logger.level
    logger.setLevel(level if verbose else logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
