# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""An empty Orthanc on the loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
PLUGINS = "/usr/share/orthanc/plugins"
needs_orthanc = pytest.mark.skipif(ORTHANC is None, reason="Orthanc: apt-get install orthanc orthanc-dicomweb")
KNOWN = "SEGAN_MONAI"
"""Title from which the node takes requests."""


class Server(NamedTuple):
    """Addresses of a server: of DICOMweb, and of the DICOM node."""

    web: str
    node: str


def free_port() -> int:
    """Return a port of the loopback that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def orthanc(folder: Path) -> Iterator[Server]:
    """Yield a server that stores in a folder, and stop it at the end."""
    port, dicom_port = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [PLUGINS],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "DicomPort": dicom_port,
        # unlike DICOMweb, the node listens on all addresses: it answers to one title on the loopback
        "DicomModalities": {"known": [KNOWN, "127.0.0.1", 104]},
        "DicomCheckModalityHost": True,
        **{f"DicomAlwaysAllow{what}": False for what in ("Echo", "Store", "Find", "Get", "Move")},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([ORTHANC, folder / "orthanc.json"], stdout=log, stderr=log)
    try:
        server = Server(f"http://127.0.0.1:{port}/dicom-web", f"dicom://127.0.0.1:{dicom_port}/ORTHANC")
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(f"{server.web}/studies", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail((folder / "log.txt").read_text())
                time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(30)
