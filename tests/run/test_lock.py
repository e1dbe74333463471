# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""One process per output folder: who is refused, what a killed process leaves, and when a folder is free again."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import multiprocessing
import os
import signal
import sys

import pytest
from monai.bundle import ConfigParser

from segan_monai.errors import ConfigError
from segan_monai.parts import Part
from segan_monai.run import lock
from segan_monai.run.lock import (
    LOCK_FILE,
    FolderInUseError,
    output_folder,
    output_folder_of_run,
    refuse_beside_part,
    refuse_running_parts,
)

FORK = multiprocessing.get_context("fork")  # a process that has imported everything


def hold_and_wait(folder, pipe, with_child):
    """Take the folder, perhaps leave a child that was forked meanwhile, as a loader process is, and wait."""
    with output_folder(folder):
        child = os.fork() if with_child else -1
        if child:
            pipe.send(child)
        signal.pause()


@contextlib.contextmanager
def holder(folder, with_child=False):
    """A process that holds the folder."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold_and_wait, args=(folder, there, with_child))
    process.start()
    child = here.recv()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        if with_child:
            os.kill(child, signal.SIGKILL)


def refused(folder):
    """Whether a process other than this one is."""
    process = FORK.Process(target=try_to_hold, args=(folder,))
    process.start()
    process.join()
    return {0: False, 3: True}[process.exitcode]


def try_to_hold(folder):
    gc.collect()
    try:
        with output_folder(folder):
            pass
    except FolderInUseError:
        sys.exit(3)


def test_another_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    with holder(tmp_path) as other:
        expected = rf"{tmp_path} is in use by process {other.pid} on .+, started 20.+: .+ another output folder"
        with pytest.raises(FolderInUseError, match=expected), output_folder(tmp_path):
            pass
        with output_folder(tmp_path / "beside"):
            pass


@pytest.mark.parametrize("with_child", [False, True])
def test_a_killed_process_leaves_no_lock_though_its_child_lives_on(tmp_path, with_child):
    with holder(tmp_path, with_child) as other:
        other.kill()
        other.join()
        assert (tmp_path / LOCK_FILE).is_file(), "nobody was there to remove it"
        with output_folder(tmp_path):
            assert json.loads((tmp_path / LOCK_FILE).read_text(encoding="utf-8"))["pid"] == os.getpid()
        assert not list(tmp_path.iterdir())


def test_a_process_does_not_refuse_itself(tmp_path):
    with output_folder(tmp_path):
        with output_folder(tmp_path / ".." / tmp_path.name):
            pass
        assert refused(tmp_path), "the inner block did not release what the outer one holds"
    assert not refused(tmp_path)


def test_a_run_holds_its_folder_as_long_as_its_config_exists(tmp_path):
    first, second = ConfigParser({}), ConfigParser({})
    for run in (first, first, second):  # federated learning starts a run twice
        output_folder_of_run(tmp_path, run)
    del first, run
    gc.collect()
    assert refused(tmp_path)
    del second
    gc.collect()
    assert not refused(tmp_path)


def test_a_forked_process_neither_has_nor_ends_the_lock_of_its_parent(tmp_path):
    with output_folder(tmp_path):
        for _ in range(2):
            assert refused(tmp_path)
            assert (tmp_path / LOCK_FILE).is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot remove an open file")
def test_a_run_that_takes_a_folder_in_the_moment_of_its_release_keeps_it(tmp_path, monkeypatch):
    """The file is removed before its descriptor is closed, so another run can create and lock a new one in between."""
    close, held = os.close, contextlib.ExitStack()

    def taken_meanwhile(descriptor):
        monkeypatch.undo()
        close(descriptor)
        held.enter_context(holder(tmp_path))

    with held:
        with output_folder(tmp_path):
            monkeypatch.setattr(lock.os, "close", taken_meanwhile)
        assert (tmp_path / LOCK_FILE).is_file()
        assert refused(tmp_path)


def test_a_damaged_file_names_nobody(tmp_path):
    with holder(tmp_path):
        (tmp_path / LOCK_FILE).write_text("{", encoding="utf-8")
        with (
            pytest.raises(FolderInUseError, match=r"is in use by another process\. Two runs"),
            output_folder(tmp_path),
        ):
            pass


@pytest.mark.parametrize("other", ["", "parts/1_of_3", "parts/2_of_12"])
def test_a_part_does_not_start_beside_the_whole_or_another_division(tmp_path, other):
    with holder(tmp_path / other) as process:
        expected = rf"part 1/2 cannot start beside other work in {tmp_path}: .+ is in use by process {process.pid} on"
        for _ in range(2):
            with output_folder(tmp_path / "parts" / "1_of_2"), pytest.raises(FolderInUseError, match=expected):
                refuse_beside_part(tmp_path, Part(1, 2))
        assert refused(tmp_path / other), "the lock of the other is as before"


def test_parts_of_a_division_and_what_killed_processes_left_refuse_nobody(tmp_path):
    for name in ("", "parts/1_of_3"):
        with holder(tmp_path / name) as process:
            process.kill()
            process.join()
        assert (tmp_path / name / LOCK_FILE).is_file()
    with holder(tmp_path / "parts" / "2_of_2"), output_folder(tmp_path / "parts" / "1_of_2"):
        refuse_beside_part(tmp_path, Part(1, 2))
        assert refused(tmp_path / "parts" / "1_of_2"), "the check has released nothing"
    with output_folder(tmp_path):
        refuse_running_parts(tmp_path)
        assert refused(tmp_path)


def test_a_part_may_check_the_folder_that_its_process_holds(tmp_path):
    with output_folder(tmp_path), output_folder(tmp_path / "parts" / "1_of_2"):
        refuse_beside_part(tmp_path, Part(1, 2))
        assert refused(tmp_path)


@pytest.mark.parametrize("where", ["open", "_lock"])
def test_a_file_that_another_machine_removes_is_made_again(tmp_path, monkeypatch, caplog, where):
    """``ESTALE`` on NFS."""
    module = lock.os if where == "open" else lock
    real = getattr(module, where)
    left = [2]

    def stale(*args):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(module, where, stale)
        lock_of_folder = lock.FolderLock(tmp_path)
    assert (left, caplog.text) == ([0], "")
    assert refused(tmp_path)
    lock_of_folder.release()


def test_a_folder_that_another_machine_removed_is_an_error(tmp_path, monkeypatch):
    def stale(*args):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(lock, "_lock", stale)
    with pytest.raises(ConfigError, match=r"cannot be written \(Stale file handle\)"), output_folder(tmp_path):
        pass


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def no_locks(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", no_locks)
    with output_folder(tmp_path):
        assert f"{tmp_path}: the file system does not support locks (No locks available)" in caplog.text


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output_dir .*file/out cannot be written \(Not a directory\)"):
        output_folder_of_run(tmp_path / "file" / "out", None)
