# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""First step of every run: checks, output folder, seed."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from segan_monai.check import (
    check_cases_before_run,
    check_configs_before_run,
    check_overlay_files,
    lacks_its_data,
    refuse_wrong_values,
    run_id_of,
    unknown_overrides,
)
from segan_monai.command_line import arguments_of_process, config_files, overrides_of
from segan_monai.console import escape_what_cannot_be_printed
from segan_monai.deferred import defer_writes
from segan_monai.earlier_runs import nothing_to_resume, was_trained_in
from segan_monai.errors import UnknownKeyError
from segan_monai.parts import parse_part
from segan_monai.places import require_outside_package, require_results_outside
from segan_monai.processes import device_of_process, process_rank
from segan_monai.run.failures import say_what_to_do
from segan_monai.run.folder import keep_record, log_to, refuse_other_kind, set_aside, write_record
from segan_monai.run.lock import output_folder_of_run, refuse_beside_part, refuse_running_parts
from segan_monai.run.parser import parser_of_this_run, set_typed_values
from segan_monai.trained import apply_settings_of_weights
from segan_monai.typed import JSON_LITERALS

logger = logging.getLogger(__name__)


def start_run(
    output_dir: str, seed: int, resume: bool | None = None, check: bool = False, part: str | None = None
) -> None:
    """Check the command line, create the output folder, write ``run.json`` and seed all random generators.

    A run that loads weights takes the settings of their training from ``model.json`` beside them.

    This is the first item of ``initialize`` in every config of this project. The output folder receives:

    - ``run.json``: command, config after all overlays and overrides, seed, versions and hardware;
    - ``log.txt``: the log;
    - ``previous_1``, ``previous_2``...: if ``resume`` is False, the files of earlier training runs in the folder, so
      that a second start never loses a trained network;
    - ``run_before_resume_1.json``...: if ``resume`` is True, the earlier records of the run.

    A folder with an earlier training run stays as it is until the trainer starts, see ``segan_monai.deferred``. A start
    that fails before that changes nothing there.

    Under ``torchrun``, only rank 0 writes, and the other ranks log warnings only. Each rank has a different seed, and
    ``cuda`` without an index is its own GPU. Federated learning starts a run twice before it trains; the second start
    moves no files and does not duplicate the log.

    A run from Python without its data writes nothing and ends here: ``monai.bundle.load`` starts one for the network
    alone. Its trainer or evaluator says that the data are missing.

    A part of an inference has a subfolder of its own for these files, such as ``parts/2_of_4``, which is locked instead
    of the output folder.

    Args:
        output_dir: folder for all output of the run.
        seed: seed of all random generators.
        resume: whether to resume training; None for runs that keep no state.
        check: run the quick part of ``segan-monai check``: configs before anything is written, then split and headers
            before images are read.
        part: part of the cases, such as ``2/4``; None for all.

    Raises:
        ConfigError: The run id is none of the config, or an override does not match a config key (the message suggests
            the nearest ones); a path has no value, or a value is invalid or not the one that the weights were trained
            with. The output folder is in the data set or the installed package, not writable, or that of a run of
            another kind, or there is no run to resume in it. With ``check``, the config cannot run.
        FolderInUseError: Another process uses the output folder, or does work that this part would repeat.
        DataError: With ``check``, cases cannot be used.
    """
    sys.excepthook = say_what_to_do
    escape_what_cannot_be_printed()
    parser = parser_of_this_run()
    config: dict[str, Any] = {}
    if parser is not None:
        config, output_dir = _apply_command_line(parser, output_dir)
        config |= apply_settings_of_weights(parser, arguments_of_process())
    resume = JSON_LITERALS.get(str(resume), resume)
    check = bool(JSON_LITERALS.get(str(check), check))
    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        torch.cuda.set_device(device_of_process())
    warnings = [] if parser is None else refuse_wrong_values(parser)
    if process_rank() > 0:
        logging.disable(logging.INFO)
        set_determinism(seed + process_rank())  # each process samples different patches and slices
        return
    if parser is not None:
        if check:
            check_configs_before_run(parser)
        require_outside_package("output_dir", output_dir)
        data = {key: parser.get_parsed_content(key) for key in ("dataset_dir", "datalist") if key in parser}
        require_results_outside(output_dir, **{"dataset_dir": None, **data})
        if not arguments_of_process() and lacks_its_data(parser):
            return
    own = parse_part(part)
    folder = output_folder_of_run(own.folder(output_dir) if own else output_dir, parser)
    if own is None:
        refuse_running_parts(folder)
    else:
        refuse_beside_part(output_dir, own)
    refuse_other_kind(folder, config)
    if resume and not (folder / "last.pt").is_file():
        raise nothing_to_resume(folder)
    if resume is not None and was_trained_in(folder):
        defer_writes(folder, partial(keep_record if resume else set_aside, folder))
    set_determinism(seed)
    bundle = ""
    if parser is not None and "bundle_root" in parser:
        bundle = Path(parser.get_parsed_content("bundle_root")).resolve().name
    write_record(folder, seed, config, bundle)
    log_to(folder)
    for warning in warnings:
        logger.warning("%s", warning)
    if check and parser is not None:
        check_cases_before_run(parser)


def _apply_command_line(parser: ConfigParser, output_dir: str) -> tuple[dict[str, Any], str]:
    """Restore the typed values in the config, see ``set_typed_values``; return the config and the output folder."""
    config = {key: value for key, value in parser.config.items() if not key.startswith("_")}
    arguments = arguments_of_process()
    overrides = overrides_of(arguments)
    files = ConfigParser.load_config_files(config_files(arguments)) if arguments else None
    if files is not None and (unknown := unknown_overrides(arguments["config_file"], files, overrides)):
        raise UnknownKeyError(" ".join(unknown))
    if arguments:
        check_overlay_files(config_files(arguments))
        run_id_of(parser, str(arguments.get("run_id") or "run"))
    as_read = parser.ref_resolver.resolved_content.get("output_dir")
    typed = set_typed_values(parser, files, overrides)
    config.update({name: value for name, value in typed.items() if name in config})
    if output_dir == as_read:  # the argument was resolved before the folder's name was corrected
        output_dir = parser.get_parsed_content("output_dir")
    return config, output_dir
