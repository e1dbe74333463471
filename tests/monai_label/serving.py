# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The server that scripts/monai_label.sh starts, MONAI Label's own, and what is common to the tests that ask it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

ROOT = Path(__file__).parents[2]
START_SECONDS, ANSWER_SECONDS = 420, 240


def bounded_requests() -> Iterator[None]:
    """Limit every request: the client sets no limits of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_SECONDS)
    yield
    socket.setdefaulttimeout(before)


@contextmanager
def label_server(
    folder: Path, bundle: Path, studies: Path | str, *overlays: Path, **environment: str
) -> Iterator[tuple[str, Path]]:
    """Yield the address of the script's server and the folder of its app, and stop it at the end."""
    port, app = free_port(), folder / "app"
    environment |= {"SEGAN_MONAI_LABEL_PORT": str(port), "SEGAN_MONAI_LABEL_APP": str(app)}
    command = ["bash", str(ROOT / "scripts" / "monai_label.sh"), *map(str, (bundle, studies, *overlays))]
    with running(command, port, folder / "server.log", environment) as url:
        yield url, app


@contextmanager
def server_without_script(folder: Path, bundle: Path, studies: Path) -> Iterator[str]:
    """Yield the address of MONAI Label's own server with a plain copy of a bundle, and stop it at the end."""
    port = free_port()
    subprocess.run(["monailabel", "apps", "--download", "--name", "monaibundle", "--output", str(folder)], check=True)
    shutil.copytree(bundle, folder / "monaibundle" / "model" / bundle.name)
    command = ["monailabel", "start_server", "--app", str(folder / "monaibundle"), "--studies", str(studies)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--conf", "models", bundle.name]
    command += ["--conf", "zoo_source", "local", "--conf", "preload", "false", "--conf", "sam2", "false"]
    with running(command, port, folder / "server.log", {}) as url:
        yield url


def free_port() -> int:
    """Return the number of a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """Yield the address of a server once it listens, and stop it at the end."""
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=stream, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, log.read_text(encoding="utf-8")[-4000:]
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")[-4000:]
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # the command has become the server: this is its process
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
        say(f"server stopped, exit status {process.returncode}")
        if "Traceback" in (text := log.read_text(encoding="utf-8")):
            say(text[-4000:])


def say(*words: object) -> None:
    """Print at once, for the log of the tests."""
    print(" ".join(map(str, words)), flush=True)


def check_geometry(label_map: Path | str, image: Path | str) -> None:
    """Compare both as SimpleITK, which viewers use, sees them."""
    found, expected = sitk.ReadImage(str(label_map)), sitk.ReadImage(str(image))
    assert found.GetSize() == expected.GetSize()[:3]
    np.testing.assert_allclose(found.GetSpacing(), expected.GetSpacing()[:3], atol=1e-5)
    np.testing.assert_allclose(found.GetOrigin(), expected.GetOrigin()[:3], atol=1e-4)
    direction = np.reshape(expected.GetDirection(), (expected.GetDimension(),) * 2)[:3, :3]
    np.testing.assert_allclose(np.reshape(found.GetDirection(), (3, 3)), direction, atol=1e-5)
