# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what it was started with, where it writes, and what to say when it fails."""

from __future__ import annotations

import ast
import errno
import inspect
import json
import logging
import os
import platform
import shlex
import shutil
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from segan_monai.check import (
    check_cases_before_run,
    check_configs_before_run,
    read_literals,
    unknown_overrides,
)
from segan_monai.check.configs import JSON_LITERALS
from segan_monai.errors import ConfigError, UserError, causes
from segan_monai.files import cannot_write, whole_file
from segan_monai.processes import device_of_process, process_rank

logger = logging.getLogger(__name__)

PACKAGES = (
    "segan-monai",
    "torch",
    "monai",
    "pytorch-ignite",
    "numpy",
    "scipy",
    "nibabel",
    "SimpleITK",
    "itk-io",
    "pillow",
)
TRAINING_FILES = (
    "*.pt",
    "run*.json",
    "split.json",
    "history.csv",
    "mlflow_run.json",
    "skipped_cases.csv",
    "log.txt",
    "events.out.tfevents.*",
)
NO_SPACE = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def bundle_root(name: str) -> str:
    """Find a bundle's folder: that of the config on the command line, the current one, or ``bundles/<name>`` below it.

    A bundle may lie anywhere: ``--config_file DIR/configs/train.json`` with a metadata.json beside it says where. Where
    there is no command line, the model zoo starts in the bundle's folder, and in a checkout of this project one is
    usually at its top. From anywhere else, pass ``--bundle_root``.
    """
    for file in _config_files(sys.argv):
        folder = Path(file).parent
        if folder.name == "configs" and (folder / "metadata.json").is_file():
            return str(folder.parent)
    below = Path("bundles") / name
    return str(below) if not Path("configs/metadata.json").is_file() and below.is_dir() else "."


def start_run(output_dir: str, seed: int, resume: bool | None = None, check: bool = False) -> None:
    """Begin a run: check the command line, make the folder, write ``run.json``, seed every generator.

    It is the first item of ``initialize`` in every config of this project. ``run.json`` gets the command, the config
    after all overlays and overrides, seed, versions and hardware; ``log.txt`` gets what is logged. With `resume` set to
    False, the files of an earlier run in the folder are moved to ``previous_1``, ``previous_2``...: starting twice
    never costs days of training.

    Of several processes that `torchrun` starts, the first one writes, the others log warnings only; each is seeded
    apart, and ``cuda`` without a number means a GPU of its own. Federated learning starts
    the same run twice before it trains; nothing is moved and nothing logged twice then.

    When a training goes on, the record of the part before stays as ``run_before_resume_1.json``...

    Args:
        output_dir: folder for all that the run writes.
        seed: of all random generators.
        resume: whether a training goes on; None for runs that keep no state.
        check: look at the config before anything is written, and at split and headers before images are read: the
            quick part of ``segan-monai check``.

    Raises:
        ConfigError: for an override that names no key of the config (with the nearest ones), or an output folder that
            cannot be written; with `check`, for a config that cannot run.
        DataError: with `check`, for cases that cannot be used.
    """
    sys.excepthook = _say_what_to_do
    parser = _parser_of_this_run()
    config = {key: value for key, value in parser.config.items() if key != "_meta_"} if parser else {}
    _check_overrides(sys.argv)
    if parser is not None:
        config.update(_read_literals(parser))
    resume = JSON_LITERALS.get(str(resume), resume)
    check = bool(JSON_LITERALS.get(str(check), check))
    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        torch.cuda.set_device(device_of_process())
    if process_rank() > 0:
        logging.disable(logging.INFO)
        set_determinism(seed + process_rank())  # each process draws patches and slices of its own
        return
    if check and parser is not None:
        check_configs_before_run(parser)
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"output_dir {folder} cannot be written ({error.strerror}); expected a folder, or a place where one can be "
            "made. Pass --output_dir with a folder of yours that has free space."
        ) from error
    if resume is False:
        _set_aside(folder)
    elif resume and (folder / "run.json").is_file():
        number = 1 + sum(1 for _ in folder.glob("run_before_resume_*.json"))
        (folder / "run.json").rename(folder / f"run_before_resume_{number}.json")
    set_determinism(seed)
    record = {
        "command": shlex.join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": seed,
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            "platform": platform.platform(),
            "cpu_threads": torch.get_num_threads(),
            "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "config": config,
    }
    with whole_file(folder / "run.json") as file:
        file.write_text(json.dumps(record, indent=4, default=str) + "\n", encoding="utf-8")
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for earlier in [h for h in root.handlers if getattr(h, "baseFilename", None) == handler.baseFilename]:
        root.removeHandler(earlier)
        earlier.close()
    root.addHandler(handler)
    if check and parser is not None:
        check_cases_before_run(parser)


def run_settings() -> dict[str, Any]:
    """The keys of the config above ``initialize``, which a user may set, with the values that they have in this run.

    For an expression in the config itself: ``$segan_monai.run_settings()``. Functions are left out.
    """
    parser = _parser_of_this_run()
    if parser is None:
        raise ConfigError("run_settings() was called from Python; expected the expression of a config.")
    config: dict[str, Any] = parser.config  # type: ignore[assignment]
    names = [name for name in takewhile(lambda name: name != "initialize", config) if name not in ("imports", "_meta_")]
    values = {name: parser.get_parsed_content(name) for name in names}
    return {name: value for name, value in values.items() if not callable(value)}


def _parser_of_this_run() -> ConfigParser | None:
    """The parser whose config is being evaluated; it gives expressions no other way to itself than the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser
        frame = frame.f_back
    return None


def _read_literals(parser: ConfigParser) -> dict[str, Any]:
    """Make ``true``, ``false`` and ``null`` of the command line what they are in JSON.

    `monai.bundle` reads them as strings, and ``--amp false`` would be the true string "false". This runs as the first
    item of ``initialize``, before anything but the arguments of `start_run` has been resolved.
    """
    config: dict[str, Any] = parser.config  # type: ignore[assignment]
    found = read_literals(config)
    for key, value in found.items():
        config[key] = value
        parser.ref_resolver.items[key].update_config(value)
        parser.ref_resolver.resolved_content.pop(key, None)
    return found


def _given_on(argv: list[str]) -> dict[str, str]:
    """Options of a command line and their values, as text."""
    given = {}
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if argument.startswith("--"):
            name, equals, value = argument.removeprefix("--").partition("=")
            given[name] = value if equals else following
    return given


def _config_files(argv: list[str]) -> list[str]:
    """The config files of a command line, in order."""
    files = _given_on(argv).get("config_file", "")
    if not files.startswith(("[", "(")):
        return [file.strip() for file in files.split(",") if file.strip()]  # monai.bundle splits them too
    try:
        return [str(file) for file in ast.literal_eval(files)]
    except (ValueError, SyntaxError):  # monai.bundle has its own way to say so
        return []


def _check_overrides(argv: list[str]) -> None:
    """Refuse ``--key`` that the config files do not have; MONAI adds it silently and runs on with the old values."""
    given = _given_on(argv)
    if "config_file" not in given:
        return  # started from Python, not from the command line
    files = given["config_file"]
    config = ConfigParser.load_config_files(ast.literal_eval(files) if files.startswith(("[", "(")) else files)
    names = [name.replace("-", "_") for name in given]  # as fire does
    if unknown := unknown_overrides(files, config, names):
        raise ConfigError(" ".join(unknown))


def _set_aside(folder: Path) -> None:
    """Move the files of an earlier training, and nothing else that may lie in the folder, to one of their own."""
    earlier = sorted({file for pattern in TRAINING_FILES for file in folder.glob(pattern)})
    if not any(file.name in ("last.pt", "history.csv") for file in earlier):  # nothing was trained
        return
    aside = folder / f"previous_{1 + sum(1 for _ in folder.glob('previous_*'))}"
    aside.mkdir()
    for file in earlier:
        shutil.move(file, aside / file.name)
    logger.warning("%s held an earlier run; its files are now in %s (--resume true goes on with it)", folder, aside)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _say_what_to_do(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback, and as its last line the error that the user can mend, if there is one in the chain."""
    traceback.print_exception(kind, error, trace)
    text = what_to_do(error)
    if text:
        print(f"\nerror: {text}", file=sys.stderr)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # threads that still load other cases would abort the interpreter, with a message of their own


def _lost_a_loader(error: BaseException) -> bool:
    """Whether a loader process is gone: torch says so, or else what it was about to send ends in the middle."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error)
    frames = traceback.walk_tb(error.__traceback__) if isinstance(error, ConnectionError | EOFError) else ()
    return any("multiprocessing" in Path(frame.f_code.co_filename).parts for frame, _ in frames)


def what_to_do(error: BaseException) -> str | None:
    """What a user can do about an error: our own say it, of others some are known; None for the rest."""
    for link in causes(error):
        if isinstance(link, UserError):
            return str(link)
        if isinstance(link, OSError) and link.errno in NO_SPACE:
            return str(cannot_write(link.filename or "a result", link.strerror or str(link)))
        if isinstance(link, torch.OutOfMemoryError):
            return (
                f"the accelerator has not enough memory ({str(link).splitlines()[0]}) Lower --batch_size or the size "
                "of slices or patches, or close what else uses the device; then go on with --resume true."
            )
        if _lost_a_loader(link):
            return (
                f"a process that loads data was killed ({str(link).splitlines()[0]}), as a rule because the machine "
                "ran out of memory. Lower --num_workers or --cache_rate, then start again: training with --resume "
                "true, inference with the same command."
            )
    return None
