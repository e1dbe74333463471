# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Programs in children of one process that has imported MONAI and run nothing.

An interpreter of its own spends seven seconds of CPU time on imports. That it starts is tested where nothing is
forked: tests/packaging/test_installed.py, tests/bundles/test_command_line.py, tests/check/test_values.py.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SECONDS = 600  # more than any program here takes; a bound, not a measure
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.preload"])


def run_python(
    *words: object, cwd: Path | str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run what ``python WORDS`` does: ``-m MODULE``, ``-c CODE`` or a file, each with its arguments.

    Args:
        *words: the words after ``python``.
        cwd: working folder (default: that of this process).
        env: the whole environment (default: that of this process). What an interpreter reads from it as it starts,
            such as PYTHONPATH, has no effect.

    Raises:
        subprocess.TimeoutExpired: it hangs.
    """
    texts = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        process = SERVER.Process(target=_child, args=(texts, str(cwd or Path.cwd()), dict(env or os.environ), files))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.join()
            raise subprocess.TimeoutExpired(texts, SECONDS)
        printed = [file.read_text(encoding="utf-8", errors="backslashreplace") for file in files]
    return subprocess.CompletedProcess(texts, process.exitcode, *printed)


def _child(words: list[str], cwd: str, environment: dict[str, str], files: list[Path]) -> None:
    for descriptor, file in enumerate(files, start=1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.setpgrp()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in a run that a shell starts
    become(words)


def become(words: Sequence[str]) -> None:
    """Do in this process what ``python WORDS`` does; an error ends it as it ends an interpreter."""
    first, *rest = words
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = list(words)
            sys.path.insert(0, str(Path(first).resolve().parent))
            runpy.run_path(first, run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None


def run_in_fork(
    command: Sequence[str], stdout, stderr: int = subprocess.STDOUT, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Stand in for ``subprocess.run`` of an interpreter in the trainings that ``reproduce`` starts."""
    done = run_python(*command[1:])
    stdout.write(done.stdout + done.stderr)
    return subprocess.CompletedProcess(list(command), done.returncode)
