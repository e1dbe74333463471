# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Exception hook that ends a failed run with the remedy."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import torch

from segan_monai.errors import UserError, causes
from segan_monai.files import cannot_write
from segan_monai.run.lock import release_output_folders

NO_SPACE = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def say_what_to_do(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback, followed by the message of a known error in its chain, if any."""
    traceback.print_exception(kind, error, trace)
    text = what_to_do(error)
    if text:
        print(f"\nerror: {text}", file=sys.stderr)
        end_process()


def end_process() -> NoReturn:
    """End the process with status 1, although threads may still load cases."""
    release_output_folders()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # those threads would abort the interpreter with another message


def _loader_was_killed(error: BaseException) -> bool:
    """Return whether an error was caused by a killed data loader process.

    Torch reports most of these; otherwise the connection to the process breaks.
    """
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error)
    frames = traceback.walk_tb(error.__traceback__) if isinstance(error, ConnectionError | EOFError) else ()
    return any("multiprocessing" in Path(frame.f_code.co_filename).parts for frame, _ in frames)


def what_to_do(error: BaseException) -> str | None:
    """Return the message and remedy for an error: those of a ``UserError`` or a known system error, else None."""
    for link in causes(error):
        if isinstance(link, UserError):
            return str(link)
        if isinstance(link, OSError) and link.errno in NO_SPACE:
            return str(cannot_write(link.filename or "a result", link.strerror or str(link)))
        if isinstance(link, torch.OutOfMemoryError):
            return (
                f"the accelerator is out of memory ({str(link).splitlines()[0]}) Lower --batch_size or the size of "
                "slices or patches, or close other programs on the device; then resume with --resume true."
            )
        if _loader_was_killed(link):
            return (
                f"a data loader process was killed ({str(link).splitlines()[0]}), usually because the machine ran out "
                "of memory. Lower --num_workers or --cache_rate, then start again: training with --resume true, "
                "inference with the same command."
            )
    return None
