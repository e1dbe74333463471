# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What a run prints when it fails, and what the user can do about it."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

import torch

from segan_monai.errors import UserError, causes
from segan_monai.files import cannot_write
from segan_monai.run.lock import release_output_folders

NO_SPACE = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def say_what_to_do(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback, and as its last line the error that the user can mend, if there is one in the chain."""
    traceback.print_exception(kind, error, trace)
    text = what_to_do(error)
    if text:
        print(f"\nerror: {text}", file=sys.stderr)
        release_output_folders()
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
