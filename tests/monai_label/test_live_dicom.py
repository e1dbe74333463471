# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A real MONAI Label server in front of a real DICOMweb server: scripts/test_monai_label.sh.

MONAI Label writes DICOM-SEG with ``itkimage2segimage``, which comes with the package dcmqi.
"""

from __future__ import annotations

import json
import os

import nibabel
import numpy as np
import pydicom
import pytest
import requests

from tests.bundles.workflow import HIPPOCAMPUS, make_workflow
from tests.dicom.orthanc import needs_orthanc, orthanc
from tests.dicom.reading import points_of_frames, points_of_labels
from tests.dicom.studies import ROOT, affine_of, image, write_series
from tests.monai_label.cases import SMALL, copy_with_weights
from tests.monai_label.reading import labels_of
from tests.monai_label.serving import bounded_requests, label_server, say

if os.environ.get("SEGAN_MONAI_LABEL") != "1":
    pytest.skip("the live server: bash scripts/test_monai_label.sh", allow_module_level=True)
client_module = pytest.importorskip("monailabel.client.client", reason="run bash scripts/test_monai_label.sh")

SERIES = f"{ROOT}.1.3"
CORONAL = affine_of([1, 0, 0], [0, 0, -1])  # in LPS; planes, spacings and directions all differ

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow, needs_orthanc]
every_request_is_bounded = pytest.fixture(autouse=True)(bounded_requests)


def points(labels, affine):
    return {value: points_of_labels(labels, affine, [value]) for value in np.unique(labels[labels > 0])}


def assert_same_points(found, expected):
    """Compare sets of points in mm, by segment."""
    assert found.keys() == expected.keys()
    for number, place in expected.items():
        order, other = (np.lexsort(np.round(one, 2).T) for one in (place, found[number]))
        np.testing.assert_allclose(found[number][other], place[order], atol=1e-2)


def fetch_segmentation(pacs, folder):
    """Fetch the only segmentation of a server as a file."""
    (identity,) = requests.post(
        pacs.web.replace("dicom-web", "tools/find"),
        json={"Level": "Instance", "Query": {"Modality": "SEG"}},
        timeout=30,
    ).json()
    answer = requests.get(f"{pacs.web.replace('dicom-web', 'instances')}/{identity}/file", timeout=30)
    (folder / "stored.dcm").write_bytes(answer.content)
    return folder / "stored.dcm"


def test_from_dicomweb_and_back(tmp_path):
    values = image((32, 40, 12))
    write_series(tmp_path / "study", values, CORONAL)
    write_series(tmp_path / "study", image((12, 10, 4)), modality="CT", number=2)
    bundle, overlay = copy_with_weights(HIPPOCAMPUS, tmp_path)
    ras = np.diag([-1, -1, 1, 1]) @ CORONAL
    nibabel.save(nibabel.Nifti1Image(values, ras), tmp_path / "series.nii.gz")
    workflow = make_workflow(
        HIPPOCAMPUS, "inference", ckpt_dir=str(bundle / "models"), dataset_dir=str(tmp_path / "series.nii.gz"),
        output_dir=str(tmp_path / "expected"), **SMALL[HIPPOCAMPUS],
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    expected = np.asanyarray(nibabel.load(tmp_path / "expected" / "series_seg.nii.gz").dataobj)
    assert len(np.unique(expected)) > 1

    environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"), "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "0"}
    with orthanc(tmp_path) as pacs, label_server(tmp_path, bundle, pacs.web, overlay, **environment) as (url, app):
        for file in (tmp_path / "study").iterdir():
            requests.post(pacs.web.replace("dicom-web", "instances"), file.read_bytes(), timeout=30).raise_for_status()
        client = client_module.MONAILabelClient(url, tmpdir=str(tmp_path))
        say("data store:", client.datastore())
        sample = client.next_sample("random", {})
        say("next sample:", sample["id"])
        assert sample["id"] == SERIES  # the series of the bundle's modality

        label, parameters = client.infer(HIPPOCAMPUS, SERIES, {"device": "cpu"})
        labels = labels_of(app / "model" / HIPPOCAMPUS)
        assert parameters["label_names"] == labels
        served = nibabel.load(label)
        np.testing.assert_allclose(served.affine, ras, atol=1e-4)
        assert np.array_equal(np.asanyarray(served.dataobj), expected)

        info = [{"name": name, "model_name": HIPPOCAMPUS} for name in labels]
        answer = requests.post(
            f"{url}/infer/{HIPPOCAMPUS}?image={SERIES}&output=dicom_seg",
            data={"params": json.dumps({"device": "cpu", "label_info": info})},
            timeout=120,
        )
        answer.raise_for_status()
        (tmp_path / "answer.dcm").write_bytes(answer.content)
        assert_same_points(points_of_frames(tmp_path / "answer.dcm"), points(expected, ras))

        say("save label:", client.save_label(SERIES, label, tag="final", params={"label_info": info}))
        stored = fetch_segmentation(pacs, tmp_path)
        assert_same_points(points_of_frames(stored), points(expected, ras))
        header = pydicom.dcmread(stored)
        assert header.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
        present = [name for name, value in labels.items() if value in expected]
        assert [one.SegmentLabel for one in header.SegmentSequence] == present
