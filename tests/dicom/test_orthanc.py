# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""From a PACS and back: Orthanc with DICOMweb, started on the loopback (scripts/test_orthanc.sh).

A study is sent, found and read by the command, and its result stored and queried: with STOW-RS, QIDO-RS and WADO-RS,
and again with C-STORE, C-FIND and C-GET.
"""

from __future__ import annotations

import pytest

pytest.importorskip("highdicom", reason="pip install segan-monai[dicom]")

import pydicom

from segan_monai.dicom import node
from segan_monai.dicom.web import fetch_study, store_results
from segan_monai.errors import DataError, OutputError
from tests.dicom.conftest import run_dicom
from tests.dicom.orthanc import free_port, needs_orthanc, orthanc
from tests.dicom.studies import SECRETS, STUDY, image, write_series


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with orthanc(tmp_path_factory.mktemp("orthanc")) as addresses:
        yield addresses


@needs_orthanc
@pytest.mark.slow
def test_from_the_server_and_back(server, place, tmp_path):
    from dicomweb_client.api import DICOMwebClient

    folder, study = place
    client = DICOMwebClient(server.web)
    client.store_instances([pydicom.dcmread(file) for file in sorted(study.iterdir())])
    url = f"{server.web}/studies/{STUDY}"
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
        fetch_study(f"{server.web}/studies/1.2.3", "MR", tmp_path / "none")
    with pytest.raises(DataError, match=r"has no series of modality CT; found MR, RTSTRUCT, SEG\. Give another study"):
        fetch_study(url, "CT", tmp_path / "ct")


@needs_orthanc
@pytest.mark.slow
def test_from_the_node_and_back(place, tmp_path):
    pytest.importorskip("pynetdicom", reason="pip install segan-monai[dicom]")
    folder, study = place
    files = sorted(study.iterdir())
    with orthanc(tmp_path) as server:
        url = f"{server.node}/studies/{STUDY}"
        node.store_results(url, files)  # sends any DICOM files
        node.fetch_study(url, "MR", tmp_path / "copy")
        copies = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, (tmp_path / "copy").iterdir())}
        assert len(copies) == len(files)
        for sent in map(pydicom.dcmread, files):
            assert copies[sent.SOPInstanceUID] == sent

        done = run_dicom(folder, url, "-o", "from_node", "--series", "1", "--rtstruct", "--store")
        assert done.returncode == 0, done.stderr
        assert "stored: 2 of 2 on the server" in done.stdout
        assert not any(word in done.stdout + done.stderr for word in SECRETS)
        (written,) = (folder / "from_node").glob("*_seg.dcm")
        (stored,) = _series_of_kind(server, "SEG")
        assert stored.PixelData == pydicom.dcmread(written).PixelData
        assert len(_series_of_kind(server, "RTSTRUCT")) == 1

        with pytest.raises(DataError, match=r"studies/1\.2\.3 has no series of modality MR; found no series"):
            node.fetch_study(f"{server.node}/studies/1.2.3", "MR", tmp_path / "none")
        stranger = url.replace("dicom://", "dicom://STRANGER@")
        with pytest.raises(DataError, match=r"ORTHANC.* rejected the association.*this computer by the title STRANGER"):
            node.fetch_study(stranger, "MR", tmp_path / "refused")


def _series_of_kind(server, modality):
    from dicomweb_client.api import DICOMwebClient

    client = DICOMwebClient(server.web)
    (found,) = client.search_for_series(STUDY, search_filters={"Modality": modality})
    return client.retrieve_series(STUDY, found["0020000E"]["Value"][0])


def test_no_node_and_no_study(tmp_path):
    pytest.importorskip("pynetdicom", reason="pip install segan-monai[dicom]")
    address = f"dicom://127.0.0.1:{free_port()}/PACS/studies/1.2.3"
    with pytest.raises(DataError, match=r"1\.2\.3: 127\.0\.0\.1:\d+ does not answer.*the title SEGAN_MONAI"):
        node.fetch_study(address, None, tmp_path / "a")
    with pytest.raises(DataError, match=r"localhost/studies/1 is not the URL of a study\. Expected the node's"):
        node.fetch_study("dicom://localhost/studies/1", None, tmp_path / "b")
    (file,) = write_series(tmp_path / "study", image((6, 5, 1)))
    with pytest.raises(OutputError, match=r"does not answer\. Check host, port and title"):
        node.store_results(address, [file])


def test_no_server_and_no_study(tmp_path):
    address = f"http://127.0.0.1:{free_port()}/dicom-web/studies/1.2.3"
    with pytest.raises(DataError, match=r"1\.2\.3 cannot be read \(ConnectionError.*~/\.netrc"):
        fetch_study(address, None, tmp_path / "a")
    with pytest.raises(DataError, match=r"dicom-web is not the URL of a study\. Expected the server's DICOMweb root"):
        fetch_study("http://127.0.0.1/dicom-web", None, tmp_path / "b")
    (file,) = write_series(tmp_path / "study", image((6, 5, 1)))
    with pytest.raises(OutputError, match=r"the results were not stored \(ConnectionError.*in the output folder"):
        store_results(address, [file])
