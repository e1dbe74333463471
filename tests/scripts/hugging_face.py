# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A local server that answers as the Hugging Face Hub does, for one repository with one tag."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_repository(folder: Path, repository: str, tag: str) -> Iterator[str]:
    """The address of a hub whose repository ``OWNER/NAME`` has the files of a folder; ends the server afterwards."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    api, resolved = f"/api/models/{repository}", f"/{repository}/resolve/{COMMIT}/"
    info = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
    tree = [
        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]
    answers = {
        f"{api}/refs": {"branches": [], "converts": [], "tags": [_reference(tag)]},
        f"{api}/revision/{tag}": info,
        f"{api}/tree/{COMMIT}": tree,
    }

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            name = path.removeprefix(resolved)
            if path in answers:
                content = json.dumps(answers[path]).encode()
            elif path.startswith(resolved) and name in files:
                content = files[name]
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _reference(tag: str) -> dict[str, str]:
    return {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": COMMIT}
