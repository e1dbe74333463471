# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The first step of every run: check it, make its folder, seed it."""

from __future__ import annotations

import logging
import os
import sys

import torch
from monai.utils import set_determinism

from segan_monai.check import check_cases_before_run, check_configs_before_run, refuse_wrong_values
from segan_monai.check.configs import JSON_LITERALS
from segan_monai.processes import device_of_process, process_rank
from segan_monai.run.command_line import check_overrides, parser_of_this_run, set_literals
from segan_monai.run.failures import say_what_to_do
from segan_monai.run.folder import keep_record, log_to, make_output_folder, set_aside, write_record


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
        ConfigError: an override names no key of the config (the message names the nearest keys), or the output folder
            cannot be written; a key has a value that it does not take; with `check`, a config that cannot run.
        DataError: with `check`, cases that cannot be used.
    """
    sys.excepthook = say_what_to_do
    parser = parser_of_this_run()
    config = {key: value for key, value in parser.config.items() if not key.startswith("_")} if parser else {}
    check_overrides(sys.argv)
    if parser is not None:
        config.update(set_literals(parser))
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
    if check and parser is not None:
        check_configs_before_run(parser)
    folder = make_output_folder(output_dir)
    if resume is False:
        set_aside(folder)
    elif resume:
        keep_record(folder)
    set_determinism(seed)
    write_record(folder, seed, config)
    log_to(folder)
    if check and parser is not None:
        check_cases_before_run(parser)
