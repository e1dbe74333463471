# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Downloads from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from monai.apps import DecathlonDataset

from segan_monai.errors import DataError, OutputError
from segan_monai.prepare import download_archive, download_hippocampus


@pytest.fixture
def server(tmp_path):
    """A folder, and the URL at which it is served; what is asked for is in `requests`."""
    folder = tmp_path / "site"
    folder.mkdir()
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            requests.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()
        thread.join()


def pack(folder, name="Task99_Tiny", inside="Task99_Tiny/dataset.json"):
    """A tar file with one file in it, and its MD5."""
    (folder / "content").write_text(json.dumps({"training": []}), encoding="utf-8")
    with tarfile.open(folder / f"{name}.tar", "w") as tar:
        tar.add(folder / "content", inside)
    return hashlib.md5((folder / f"{name}.tar").read_bytes()).hexdigest()


def test_download_compares_the_checksum_unpacks_and_is_not_repeated(server, tmp_path):
    folder, url, requests = server
    md5 = pack(folder)
    result = download_archive(f"{url}/Task99_Tiny.tar", md5, tmp_path / "new" / "data", "Task99_Tiny")
    assert json.loads((result / "dataset.json").read_text(encoding="utf-8")) == {"training": []}
    assert sorted(path.name for path in result.parent.iterdir()) == ["Task99_Tiny", "Task99_Tiny.tar"]
    asked = len(requests)
    assert download_archive(f"{url}/Task99_Tiny.tar", md5, result.parent, "Task99_Tiny") == result
    (result / "dataset.json").unlink()
    result.rmdir()
    download_archive(f"{url}/Task99_Tiny.tar", md5, result.parent, "Task99_Tiny")
    assert (result / "dataset.json").is_file()
    assert len(requests) == asked, "the archive was there"


def test_wrong_checksum_is_refused_and_nothing_is_kept(server, tmp_path):
    folder, url, _ = server
    pack(folder)
    out = tmp_path / "out"
    with pytest.raises(
        DataError, match=rf"{url}/Task99_Tiny\.tar was refused: the download does not have the MD5 0123.*By hand"
    ):
        download_archive(f"{url}/Task99_Tiny.tar", "0123", out, "Task99_Tiny")
    assert not list(out.iterdir())


def test_damaged_archive_from_before_is_put_aside(server, tmp_path):
    folder, url, _ = server
    md5 = pack(folder)
    out = tmp_path / "out"
    out.mkdir()
    (out / "Task99_Tiny.tar").write_bytes(b"half")
    assert (download_archive(f"{url}/Task99_Tiny.tar", md5, out, "Task99_Tiny") / "dataset.json").is_file()
    assert (out / "Task99_Tiny.tar.damaged").read_bytes() == b"half"


def test_server_that_does_not_answer_or_has_no_such_file(server, tmp_path):
    _, url, _ = server
    for address, why in (("http://127.0.0.1:9/Task.tar", "refused"), (f"{url}/Task.tar", "File not found")):
        with pytest.raises(DataError, match=rf"{address} cannot be reached \(.*{why}.*By hand: download {address}"):
            download_archive(address, "0123", tmp_path / "out", "Task")


def test_archive_that_would_write_elsewhere_is_refused(server, tmp_path):
    folder, url, _ = server
    md5 = pack(folder, inside="../evil.json")
    with pytest.raises(DataError, match="OutsideDestinationError"):
        download_archive(f"{url}/Task99_Tiny.tar", md5, tmp_path / "out", "Task99_Tiny")
    assert not list(tmp_path.rglob("evil.json"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Task99_Tiny.tar"]


def test_archive_of_something_else_and_folder_of_something_else(server, tmp_path):
    folder, url, _ = server
    md5 = pack(folder, inside="Other/dataset.json")
    with pytest.raises(DataError, match=r"holds Other, but no Task99_Tiny/dataset\.json"):
        download_archive(f"{url}/Task99_Tiny.tar", md5, tmp_path / "out", "Task99_Tiny")
    (tmp_path / "full/Task99_Tiny").mkdir(parents=True)
    with pytest.raises(DataError, match=r"exists and has no dataset\.json"):
        download_archive(f"{url}/Task99_Tiny.tar", md5, tmp_path / "full", "Task99_Tiny")
    with pytest.raises(OutputError, match="cannot be written"):
        download_archive(f"{url}/Task99_Tiny.tar", md5, folder / "content", "Task99_Tiny")


def test_the_hippocampus_is_the_one_of_monai(server, tmp_path, monkeypatch):
    folder, url, requests = server
    name = "Task04_Hippocampus"
    md5 = pack(folder, name, f"{name}/dataset.json")
    monkeypatch.setitem(DecathlonDataset.resource, name, f"{url}/{name}.tar")
    monkeypatch.setitem(DecathlonDataset.md5, name, md5)
    assert download_hippocampus(tmp_path) == tmp_path / name
    assert requests == [f"/{name}.tar"]
