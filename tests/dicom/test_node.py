# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A DICOM node that sends what no honest one does, and a disk that takes nothing."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

pytest.importorskip("highdicom", reason="pip install segan-monai[dicom]")
pytest.importorskip("pynetdicom", reason="pip install segan-monai[dicom]")

import pydicom
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from segan_monai.dicom import node
from segan_monai.errors import OutputError
from tests.dicom.studies import image, write_series


@contextmanager
def serving(datasets, before=lambda: None):
    """A node with one series; ``before`` is called before it sends."""

    def find(event):
        answer = pydicom.Dataset()
        answer.QueryRetrieveLevel, answer.Modality, answer.SeriesInstanceUID = "SERIES", "MR", "1.2.3.4"
        yield 0xFF00, answer

    def get(event):
        before()
        yield len(datasets)
        for one in datasets:
            yield 0xFF00, one

    entity = AE(ae_title="PACS")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    entity.add_supported_context(MRImageStorage, scu_role=False, scp_role=True)
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield f"dicom://127.0.0.1:{server.socket.getsockname()[1]}/PACS/studies/1.2.3"
    finally:
        server.shutdown()


@pytest.fixture
def datasets(tmp_path):
    return [pydicom.dcmread(file) for file in write_series(tmp_path / "study", image((6, 5, 2)))]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_the_uid_of_an_image_is_no_file_name(datasets, tmp_path):
    with pydicom.config.disable_value_validation():
        for number, one in enumerate(datasets):
            one.SOPInstanceUID = f"../../{number}"
    with serving(datasets) as url:
        node.fetch_study(url, "MR", tmp_path / "some" / "where" / "copy")
    assert sorted(file.name for file in (tmp_path / "some" / "where" / "copy").iterdir()) == ["1.dcm", "2.dcm"]
    assert sorted(file.name for file in tmp_path.rglob("*.dcm") if "study" not in file.parts) == ["1.dcm", "2.dcm"]


def test_a_file_that_cannot_be_written_is_named(datasets, tmp_path):
    copy = tmp_path / "copy"
    with (
        serving(datasets, before=lambda: shutil.rmtree(copy)) as url,
        pytest.raises(OutputError, match=r"copy/1\.dcm cannot be written \(No such file or directory\)"),
    ):
        node.fetch_study(url, "MR", copy)
