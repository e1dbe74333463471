# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""File lock that allows one run per output folder at a time."""

from __future__ import annotations

import contextlib
import errno
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
from segan_monai.parts import PARTS, Part

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

LOCK_FILE = ".running.json"
# the locked byte is far beyond the text, because on Windows other processes cannot read locked bytes
_LOCKED_BYTE = 1 << 30
_TRIES = 100  # to lock a file that another holder removes at the same moment


class FolderInUseError(UserError):
    """Output folder in use by another process.

    Attributes:
        folder: the folder.
    """

    folder = Path()


class FolderLock:
    """Lock on an output folder, held until it is released or garbage-collected, or the process ends.

    The operating system releases the lock when the process ends in any way, so a killed run leaves no lock; the file
    that it leaves is not locked. The lock is a POSIX record lock (``fcntl.lockf``) and not ``flock``, as in the package
    filelock: forked data loader processes would inherit a ``flock`` and keep it after a run is killed.

    Args:
        folder: existing, writable folder.

    Raises:
        FolderInUseError: Another process holds the lock. The message names the folder, the process and the remedy.
        OSError: The folder is not writable.
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
        """Open and lock the file, and try again if its previous holder removed it in between."""
        for left in reversed(range(_TRIES)):
            try:
                descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
                if self._lock_if_there(descriptor):
                    return descriptor
            except OSError as error:
                if error.errno != errno.ESTALE or not left:  # NFS: the file was removed by another machine
                    raise
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _lock_if_there(self, descriptor: int) -> bool:
        """Lock the open file; return whether its path still leads to it, else close it."""
        keep = False
        try:
            _lock(descriptor)
            keep = os.path.samestat(os.fstat(descriptor), self.file.stat())
        except (BlockingIOError, PermissionError) as error:
            raise _refusal(self.file) from error
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno == errno.ESTALE:
                raise
            keep = True
            logger.warning(  # some network file systems
                "%s: the file system does not support locks (%s), so a second run in this folder is not prevented",
                self.file.parent,
                error.strerror,
            )
        finally:
            if not keep:
                os.close(descriptor)
        return keep


def _lock(descriptor: int, shared: bool = False) -> None:
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1)
    os.lseek(descriptor, 0, os.SEEK_SET)


def _release(descriptor: int, file: Path, process: int) -> None:
    """Remove the file while it is locked, then unlock it. Do nothing in processes forked from the holder."""
    if os.getpid() != process:
        return
    with contextlib.suppress(OSError):
        file.unlink()
    with contextlib.suppress(OSError):
        os.close(descriptor)
        if sys.platform == "win32":  # cannot remove an open file; elsewhere, another run may have made a new one by now
            file.unlink(missing_ok=True)


def _refusal(file: Path, before: str = "") -> FolderInUseError:
    error = FolderInUseError(before + _in_use(file))
    error.folder = file.parent
    return error


def _in_use(file: Path) -> str:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        who = "process {pid} on {host}, started {started}: {command}".format(**holder)
    except (OSError, ValueError, KeyError, TypeError):  # the holder has not written it yet
        who = "another process"
    return (
        f"{file.parent} is in use by {who}. Two runs in one folder would mix their files. Wait until it ends, stop it, "
        "or choose another output folder."
    )


_held: weakref.WeakValueDictionary[str, FolderLock] = weakref.WeakValueDictionary()
_locks_of_runs: weakref.WeakKeyDictionary[Any, FolderLock] = weakref.WeakKeyDictionary()
_locks_of_process: list[FolderLock] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)  # a child process does not hold its parent's locks


def _hold(output_dir: str | os.PathLike[str]) -> FolderLock:
    """Create and lock a folder, or return the lock that this process already holds."""
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
            f"output_dir {folder} cannot be written ({error.strerror}); expected a writable folder or a path where one "
            "can be created. Pass --output_dir with a folder that you can write to and that has free space."
        ) from error


def release_output_folders() -> None:
    """Release all locks of this process before it exits without cleanup."""
    for lock in list(_held.values()):
        lock.release()


@contextlib.contextmanager
def output_folder(output_dir: str | os.PathLike[str]) -> Iterator[Path]:
    """Create an output folder and lock it for the duration of the block.

    Raises:
        FolderInUseError: Another process uses the folder.
        ConfigError: The folder cannot be created or written.
    """
    lock = _hold(output_dir)
    try:
        yield Path(output_dir)
    finally:
        del lock  # releases it, unless this process also holds it elsewhere


def refuse_running_parts(output_dir: str | os.PathLike[str]) -> None:
    """Check that no part of the work in an output folder is running.

    Raises:
        FolderInUseError: A part is running.
    """
    for folder in _folders_of_parts(output_dir):
        _refuse_if_in_use(folder)


def refuse_beside_part(output_dir: str | os.PathLike[str], part: Part) -> None:
    """Check that neither all of the work in an output folder nor a part of another division, such as 1/3, is running.

    Call it when the part holds its own folder: of two that start at the same time, at least one then sees the other.

    Args:
        output_dir: folder that all parts share.
        part: part that is to start, such as 1/2.

    Raises:
        FolderInUseError: A process does work that this part would repeat.
    """
    others = (folder for folder in _folders_of_parts(output_dir) if folder.name.partition("_of_")[2] != f"{part.parts}")
    for folder in (Path(output_dir), *others):
        _refuse_if_in_use(folder, f"part {part.number}/{part.parts} cannot start beside other work in {output_dir}: ")


def _folders_of_parts(output_dir: str | os.PathLike[str]) -> list[Path]:
    return sorted((Path(output_dir) / PARTS).glob("*_of_*"))


def _refuse_if_in_use(folder: Path, before: str = "") -> None:
    """Check that no other process holds a folder, by a shared lock: several may check at the same time.

    The file stays as it is. Nothing is checked if it cannot be read or locked.
    """
    if str(folder.resolve()) in _held:  # to close the file would release the lock of this process
        return
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return
    try:
        _lock(descriptor, shared=True)
    except (BlockingIOError, PermissionError) as error:
        raise _refusal(folder / LOCK_FILE, before) from error
    except OSError:
        return
    finally:
        os.close(descriptor)


def output_folder_of_run(output_dir: str | os.PathLike[str], run: Any) -> Path:
    """Create the output folder of a run and lock it for the lifetime of the run's config.

    A process may start a run several times in the same folder, as in MONAI Label and federated learning.

    Args:
        output_dir: the folder.
        run: parser of the run's config; if None, the folder stays locked until the process ends.

    Raises:
        FolderInUseError: Another process uses the folder.
        ConfigError: The folder cannot be created or written.
    """
    lock = _hold(output_dir)
    if run is None:
        _locks_of_process.append(lock)
    else:
        _locks_of_runs[run] = lock
    return Path(output_dir)
