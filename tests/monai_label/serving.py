# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The server that scripts/monai_label.sh starts, and what is common to the tests that ask it."""

from __future__ import annotations

import os
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
    """Yield the address of a server and the folder of its app, and stop it at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = folder / "app"
    environment |= {"SEGAN_MONAI_LABEL_PORT": str(port), "SEGAN_MONAI_LABEL_APP": str(app)}
    command = ["bash", str(ROOT / "scripts" / "monai_label.sh"), *map(str, (bundle, studies, *overlays))]
    log = folder / "server.log"
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
        yield f"http://127.0.0.1:{port}", app
    finally:
        process.terminate()  # the script has become the server: this is its process
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
