# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""From a PACS and back: Orthanc with DICOMweb, started on the loopback (scripts/test_orthanc.sh).

A study is sent with STOW-RS, found and read by the command with QIDO-RS and WADO-RS, and its result stored and queried.
"""

from __future__ import annotations

import pytest

pytest.importorskip("highdicom", reason="pip install segan-monai[dicom]")

import json
import shutil
import socket
import subprocess
import time

import pydicom
import requests

from segan_monai.dicom.web import fetch_study, store_results
from segan_monai.errors import DataError, OutputError
from tests.dicom.conftest import run_dicom
from tests.dicom.studies import SECRETS, STUDY, image, write_series

ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
PLUGINS = "/usr/share/orthanc/plugins"
needs_orthanc = pytest.mark.skipif(ORTHANC is None, reason="Orthanc: apt-get install orthanc orthanc-dicomweb")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """DICOMweb root of an empty Orthanc."""
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [PLUGINS],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([ORTHANC, folder / "orthanc.json"], stdout=log, stderr=log)
    try:
        root = f"http://127.0.0.1:{port}/dicom-web"
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(f"{root}/studies", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail((folder / "log.txt").read_text())
                time.sleep(0.05)
        yield root
    finally:
        process.terminate()
        process.wait(30)


@needs_orthanc
@pytest.mark.slow
def test_from_the_server_and_back(server, place, tmp_path):
    from dicomweb_client.api import DICOMwebClient

    folder, study = place
    client = DICOMwebClient(server)
    client.store_instances([pydicom.dcmread(file) for file in sorted(study.iterdir())])
    url = f"{server}/studies/{STUDY}"
    done = run_dicom(folder, url, "-o", "served", "--series", "1", "--rtstruct", "--store")
    assert done.returncode == 0, done.stderr
    assert "stored: 2 of 2 on the server" in done.stdout
    assert not any(word in done.stdout + done.stderr for word in SECRETS)
    found = {one["00080060"]["Value"][0]: one["0020000E"]["Value"][0] for one in client.search_for_series(STUDY)}
    assert set(found) == {"MR", "SEG", "RTSTRUCT"}
    (stored,) = client.retrieve_series(STUDY, found["SEG"])
    (written,) = (folder / "served").glob("*_seg.dcm")
    assert stored.PixelData == pydicom.dcmread(written).PixelData
    assert [one.SegmentLabel for one in stored.SegmentSequence] == ["Anterior hippocampus", "Posterior hippocampus"]
    # the images that the result refers to are on the server
    referred = {
        str(one.ReferencedSOPInstanceUID) for one in stored.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    instances = client.search_for_instances(STUDY, stored.ReferencedSeriesSequence[0].SeriesInstanceUID)
    assert referred <= {one["00080018"]["Value"][0] for one in instances}

    with pytest.raises(DataError, match=r"studies/1\.2\.3 has no series of modality MR; found no series"):
        fetch_study(f"{server}/studies/1.2.3", "MR", tmp_path / "none")
    with pytest.raises(DataError, match=r"has no series of modality CT; found MR, RTSTRUCT, SEG\. Give another study"):
        fetch_study(url, "CT", tmp_path / "ct")


def test_no_server_and_no_study(tmp_path):
    address = f"http://127.0.0.1:{free_port()}/dicom-web/studies/1.2.3"
    with pytest.raises(DataError, match=r"1\.2\.3 cannot be read \(ConnectionError.*~/\.netrc"):
        fetch_study(address, None, tmp_path / "a")
    with pytest.raises(DataError, match=r"dicom-web is not the URL of a study\. Expected the server's DICOMweb root"):
        fetch_study("http://127.0.0.1/dicom-web", None, tmp_path / "b")
    (file,) = write_series(tmp_path / "study", image((6, 5, 1)))
    with pytest.raises(OutputError, match=r"the results were not stored \(ConnectionError.*in the output folder"):
        store_results(address, [file])
