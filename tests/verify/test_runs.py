# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from tests.new_bundle.data import write_raw

pytestmark = pytest.mark.usefixtures("process_as_before")


def test_cases_are_those_of_the_inference(result, tmp_path):
    """Names with dots, each in a file for itself, without imagesTr."""
    data = write_raw(tmp_path / "data", cases=4, values=(1, 2))
    for number in range(4):
        for file in data.glob(f"*/c{number}*.nii.gz"):
            file.rename(file.with_name(f"sub.{number}.T1.nii.gz"))
    names = [f"sub.{number}.T1.nii.gz" for number in range(4)]
    training = [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names]
    for folder in ("images", "labels"):
        (data / f"{folder}Tr").rename(data / folder)
    (data / "dataset.json").write_text(json.dumps({"training": training}), encoding="utf-8")
    checks = result("train", "infer", work_dir=tmp_path / "work", dataset_dir=data)
    assert [check[0] for check in checks] == ["ok", "ok"], checks
    assert checks[1][1].startswith("4 label maps on their images' grids")


def test_run_onnx_needs_label_maps_to_compare_with(result, tmp_path):
    pytest.importorskip("onnxruntime")
    (_, last) = result("train", "run_onnx", work_dir=tmp_path / "work")
    assert last == ("FAILED", "no label maps to compare with: the check infer has written none")


def test_label_values_that_the_metadata_do_not_name(result, tmp_path):
    plain = {"slice_axis": 2, "neighbours": 0, "full_resolution_channels": 0}  # so little training finds both regions
    settings = {"work_dir": tmp_path / "work", "overrides": {"output_labels": [1, 9], **plain}}
    checks = result("train", "infer", **settings)
    assert checks[0][0] == "ok"
    assert checks[1][0] == "FAILED"
    assert "9" in checks[1][1]
    assert "channel_def names [0, 1, 2]" in checks[1][1]
