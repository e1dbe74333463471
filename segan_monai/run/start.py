# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The first step of every run: check it, make its folder, seed it."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from segan_monai.check import (
    check_cases_before_run,
    check_configs_before_run,
    refuse_wrong_values,
    unknown_overrides,
)
from segan_monai.command_line import arguments_of_process, config_files, overrides_of
from segan_monai.console import escape_what_cannot_be_printed
from segan_monai.errors import UnknownKeyError
from segan_monai.places import require_results_outside
from segan_monai.processes import device_of_process, process_rank
from segan_monai.run.failures import say_what_to_do
from segan_monai.run.folder import keep_record, log_to, set_aside, write_record
from segan_monai.run.lock import output_folder_of_run
from segan_monai.run.parser import parser_of_this_run, set_typed_values
from segan_monai.typed import JSON_LITERALS


def start_run(output_dir: str, seed: int, resume: bool | None = None, check: bool = False) -> None:
    """Start a run: check the command line, make the output folder, write ``run.json``, seed every random generator.

    This is the first item of ``initialize`` in every config of this project. ``run.json`` records the command, the
    config after all overlays and overrides, seed, versions and hardware; ``log.txt`` receives the log. If `resume` is
    False, the files of an earlier run in the folder are moved to ``previous_1``, ``previous_2``..., so starting twice
    never loses a trained network. If a training is resumed, its earlier record is kept as
    ``run_before_resume_1.json``...

    Of the processes that `torchrun` starts, only the first writes; the others log warnings only. Each has a seed of its
    own, and ``cuda`` without a number means its own GPU. Federated learning starts the same run twice before it
    trains; then nothing is moved and nothing logged twice.

    Args:
        output_dir: folder for everything that the run writes.
        seed: of all random generators.
        resume: whether a training is resumed; None for runs that keep no state.
        check: check the config before anything is written, and split and headers before images are read: the quick
            part of ``segan-monai check``.

    Raises:
        ConfigError: an override names no key of the config (the message names the nearest keys), or a path has no
            value; a key has a value that it does not take; the output folder lies in the data set or cannot be
            written; with `check`, a config that cannot run.
        FolderInUseError: another process writes to the output folder.
        DataError: with `check`, cases that cannot be used.
    """
    sys.excepthook = say_what_to_do
    escape_what_cannot_be_printed()
    parser = parser_of_this_run()
    config: dict[str, Any] = {}
    if parser is not None:
        config, output_dir = _apply_command_line(parser, output_dir)
    resume = JSON_LITERALS.get(str(resume), resume)
    check = bool(JSON_LITERALS.get(str(check), check))
    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        torch.cuda.set_device(device_of_process())
    if parser is not None:
        refuse_wrong_values(parser)
    if process_rank() > 0:
        logging.disable(logging.INFO)
        set_determinism(seed + process_rank())  # each process draws patches and slices of its own
        return
    if parser is not None:
        if check:
            check_configs_before_run(parser)
        data = {key: parser.get_parsed_content(key) for key in ("dataset_dir", "datalist") if key in parser}
        require_results_outside(output_dir, **{"dataset_dir": None, **data})
    folder = output_folder_of_run(output_dir, parser)
    if resume is False:
        set_aside(folder)
    elif resume:
        keep_record(folder)
    set_determinism(seed)
    write_record(folder, seed, config)
    log_to(folder)
    if check and parser is not None:
        check_cases_before_run(parser)


def _apply_command_line(parser: ConfigParser, output_dir: str) -> tuple[dict[str, Any], str]:
    """Give the config the values that were typed, see `set_typed_values`; return it, and the output folder as typed."""
    config = {key: value for key, value in parser.config.items() if not key.startswith("_")}
    arguments = arguments_of_process()
    overrides = overrides_of(arguments)
    files = ConfigParser.load_config_files(config_files(arguments)) if arguments else None
    if files is not None and (unknown := unknown_overrides(arguments["config_file"], files, overrides)):
        raise UnknownKeyError(" ".join(unknown))
    as_read = parser.ref_resolver.resolved_content.get("output_dir")
    typed = set_typed_values(parser, files, overrides)
    config.update({name: value for name, value in typed.items() if name in config})
    if output_dir == as_read:  # the argument was resolved before the folder's name was put right
        output_dir = parser.get_parsed_content("output_dir")
    return config, output_dir
