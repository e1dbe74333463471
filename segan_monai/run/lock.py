# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""One run per output folder at a time."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import socket
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, UserError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

LOCK_FILE = ".running.json"
# the byte that is locked, far behind the text: Windows lets nobody else read what is locked
_LOCKED_BYTE = 1 << 30


class FolderInUseError(UserError):
    """Another process writes to the output folder."""


class FolderLock:
    """Holds an output folder against other processes, until it is released or collected, or the process ends.

    The operating system frees the lock when the process ends, however it ends, so a killed run leaves none behind. It
    is a POSIX record lock (`fcntl.lockf`), not `flock` as in the package filelock: processes that load data are forked,
    and would keep an inherited `flock` for as long as they outlive a killed run. A file that a killed run leaves is no
    lock.

    Args:
        folder: exists and can be written.

    Raises:
        FolderInUseError: another process has it: names the folder, that process and what to do.
        OSError: nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / LOCK_FILE
        descriptor = self._locked()
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": shlex.join(sys.argv),
        }
        os.ftruncate(descriptor, 0)
        os.write(descriptor, (json.dumps(holder, indent=4) + "\n").encode())
        self.release = weakref.finalize(self, _release, descriptor, self.file, os.getpid())

    def _locked(self) -> int:
        """Open the file and lock it; again where the holder has removed it in between."""
        while True:
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(descriptor)
            except (BlockingIOError, PermissionError) as error:
                os.close(descriptor)
                raise FolderInUseError(_in_use(self.file)) from error
            except OSError as error:  # some network file systems
                logger.warning(
                    "%s: its file system has no locks (%s), so nothing keeps a second run out of this folder",
                    self.file.parent,
                    error.strerror,
                )
                return descriptor
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), self.file.stat()):
                    return descriptor
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
    os.lseek(descriptor, 0, os.SEEK_SET)


def _release(descriptor: int, file: Path, process: int) -> None:
    """Remove the file while it is still locked, then let go; nothing in a process that was forked from the holder."""
    if os.getpid() != process:
        return
    with contextlib.suppress(OSError):
        file.unlink()
    with contextlib.suppress(OSError):
        os.close(descriptor)
        file.unlink(missing_ok=True)  # Windows removes no open file


def _in_use(file: Path) -> str:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        who = "process {pid} on {host}, started {started}: {command}".format(**holder)
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
        who = "another process"
    return (
        f"{file.parent} is being written by {who}. Two runs in one folder would mix their files. Wait until it ends, "
        "stop it, or give another output folder."
    )


_held: weakref.WeakValueDictionary[str, FolderLock] = weakref.WeakValueDictionary()
_of_run: weakref.WeakKeyDictionary[Any, FolderLock] = weakref.WeakKeyDictionary()
_until_the_end: list[FolderLock] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)  # what the parent holds, the child does not


def _hold(output_dir: str | os.PathLike[str]) -> FolderLock:
    """Make a folder and take its lock, or the one that this process has already."""
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = str(folder.resolve())
        lock = _held.get(name)
        if lock is None:
            lock = _held[name] = FolderLock(folder)
        return lock
    except OSError as error:
        raise ConfigError(
            f"output_dir {folder} cannot be written ({error.strerror}); expected a folder, or a place where one can be "
            "made. Pass --output_dir with a folder of yours that has free space."
        ) from error


def release_output_folders() -> None:
    """Release all locks of this process, which is about to end without cleaning up."""
    for lock in list(_held.values()):
        lock.release()


@contextlib.contextmanager
def output_folder(output_dir: str | os.PathLike[str]) -> Iterator[Path]:
    """Make an output folder and hold it against other processes inside the block.

    Raises:
        FolderInUseError: another process writes to it.
        ConfigError: it cannot be made or written.
    """
    lock = _hold(output_dir)
    try:
        yield Path(output_dir)
    finally:
        del lock  # releases it, unless this process holds it elsewhere too


def output_folder_of_run(output_dir: str | os.PathLike[str], run: Any) -> Path:
    """Make the output folder of a run and hold it for as long as the run's config exists.

    MONAI Label and federated learning start a run several times in one process, which does not refuse itself.

    Args:
        output_dir: the folder.
        run: the parser of the config; None holds the folder until the process ends.

    Raises:
        FolderInUseError: another process writes to it.
        ConfigError: it cannot be made or written.
    """
    lock = _hold(output_dir)
    if run is None:
        _until_the_end.append(lock)
    else:
        _of_run[run] = lock
    return Path(output_dir)
