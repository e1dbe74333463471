# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The OHIF viewer in front of a DICOMweb server, on one address of the loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

CONFIG = {
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "defaultDataSourceName": "orthanc",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "orthanc",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "orthanc",
                **dict.fromkeys(("wadoUriRoot", "qidoRoot", "wadoRoot"), "/dicom-web"),
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "omitQuotationForMultipartRequest": True,
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}


@contextmanager
def ohif(dist: Path, web: str) -> Iterator[str]:
    """Yield the address of the viewer.

    Args:
        dist: folder ``dist`` of the npm package ``@ohif/app``.
        web: DICOMweb root of the server, to which requests below ``/dicom-web`` are passed on.
    """

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(dist))

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

        def end_headers(self) -> None:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith("/dicom-web"):
                accept, host = self.headers.get("Accept", "*/*"), self.headers["Host"]
                target = web.removesuffix("/dicom-web") + self.path
                answer = requests.get(target, headers={"Accept": accept, "Host": host}, timeout=60)
                self.send(answer.content, answer.headers["Content-Type"], answer.status_code)
            elif path == "/app-config.js":
                self.send(f"window.config = {json.dumps(CONFIG)};".encode(), "text/javascript")
            elif Path(self.translate_path(path)).is_file():
                super().do_GET()
            else:  # a page of the viewer
                self.send((dist / "index.html").read_bytes(), "text/html")

        def send(self, content: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
