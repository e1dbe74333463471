# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""RoIs on the grid of the input file, and their overlap with the true boxes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, Orientationd

from segan_monai.handlers import InferenceCost, RoIReport
from segan_monai.handlers.roi_report import boxes_iou
from segan_monai.inferers import RoISliceInferer
from segan_monai.transforms import ResizeSlicesd
from tests.networks.known_lsnet import known
from tests.torchrun import torchrun_in_forks


def test_iou_by_hand():
    assert boxes_iou(np.array([[0.0, 0, 4, 4]]), np.array([[2.0, 0, 6, 4]])) == pytest.approx(8 / 24)
    two = np.array([[0.0, 0, 2, 2], [1, 0, 3, 2]])
    assert boxes_iou(two, np.array([[0.0, 0, 3, 2]])) == pytest.approx(1), "overlap counts once"
    assert boxes_iou(np.zeros((0, 4)), np.array([[0.0, 0, 4, 4]])) == 0
    assert boxes_iou(np.zeros((0, 4)), np.zeros((0, 4))) == 0
    assert boxes_iou(np.array([[5.5, 5, 6, 6]]), np.array([[0.0, 0, 4, 4]])) == 0


@pytest.mark.parametrize("axes", [None, "LPS", "SLA"])
def test_boxes_lie_on_the_objects_of_the_file(axes, tmp_path, oblique):
    array = torch.zeros(1, 64, 80, 6)
    array[0, 20:44, 10:50, 2] = array[0, 20:44, 10:50, 4] = 1
    affine = torch.tensor(oblique)
    case = {"image": MetaTensor(array, affine=affine, meta={"filename_or_obj": "/a/b.nii.gz"})}
    if axes:
        case = Orientationd("image", axes, labels=None)(case)
        case["image"].applied_operations = []
    label = case["image"].clone()
    case["image"].meta["original_affine"] = case["image"].affine.clone()
    shown = Compose([Orientationd("image", "RAS", labels=None), ResizeSlicesd("image", (128, 128))])(case)
    inferer = RoISliceInferer()
    inferer(shown["image"][None], known())
    report = RoIReport(tmp_path, inferer, {"organ": [1]}, compare=True)
    (tmp_path / "summary.json").write_text('{"regions": {"organ": {}}}', encoding="utf-8")
    state = SimpleNamespace(batch=[{"case": "b", "image": shown["image"], "label": label}], output=[{}])
    engine = SimpleNamespace(state=state)
    report.start(engine)
    report.collect(engine)
    assert state.output == [{"saved_files": [str(tmp_path / "b_rois.json")]}]
    inferer.found, failed = None, SimpleNamespace(state=SimpleNamespace(batch=[], output=[]))
    report.collect(failed)  # the last case could not be segmented
    report.write(engine)
    content = json.loads((tmp_path / "b_rois.json").read_text(encoding="utf-8"))
    where = np.argwhere(label[0].numpy() == 1)
    lower = np.min([roi["lower"] for roi in content["rois"]], axis=0)
    upper = np.max([roi["upper"] for roi in content["rois"]], axis=0)
    assert len(content["rois"]) == 2
    np.testing.assert_allclose(lower, where.min(0), atol=1.0)
    np.testing.assert_allclose(upper, where.max(0) + 1, atol=1.0)
    own = case["image"].meta["original_affine"].numpy()
    roi = content["rois"][0]
    in_voxels = np.c_[roi["corners_mm"], [1, 1]] @ np.linalg.inv(own).T
    np.testing.assert_allclose(np.sort(in_voxels[:, :3] + 0.5, axis=0), [roi["lower"], roi["upper"]], atol=0.02)
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["regions"]["organ"]["roi_iou"]
    assert found["slices"] == 2
    assert found["mean"] > 0.9
    assert found["false_positive_slices"] == 0


def test_boxes_are_compared_in_known_slices_and_labelled_regions_only(tmp_path):
    """Slice 0: a box on the object; slice 1: partly unknown; slice 2: a box without object."""
    label = np.zeros((8, 8, 3), np.uint8)
    label[2:4, 2:6, :2] = 1
    label[7, 7, 1] = 255
    report = RoIReport(tmp_path, RoISliceInferer(), {"organ": [1], "lesion": [2]}, True, ignore_label=255)
    report.start(None)
    rois = [
        {"region": region, "slice": index, "lower": [2, 2, index], "upper": [4, 6, index + 1]}
        for region in ("organ", "lesion")
        for index in range(3)
    ]
    report._compare(rois, label, 2, ["organ"])
    assert report.ious == {"organ": [1.0], "lesion": []}
    assert report.false_positives == {"organ": 1, "lesion": 0}


@pytest.mark.slow
def test_a_process_without_cases_waits_for_the_others(tmp_path):
    (tmp_path / "summary.json").write_text('{"regions": {"organ": {}}}', encoding="utf-8")
    script = tmp_path / "report.py"
    script.write_text(
        "import os, pathlib\n"
        "from segan_monai.handlers import RoIReport\n"
        "from segan_monai.inferers import RoISliceInferer\n"
        "from segan_monai.processes import gather_objects, meet_processes\n"
        "meet_processes()\n"
        "report = RoIReport(pathlib.Path(__file__).parent, RoISliceInferer(), {'organ': [1]}, compare=True)\n"
        "if os.environ['RANK'] == '0':\n"
        "    report.start(None)\n"
        "    report.has_rois, report.ious, report.false_positives = True, {'organ': [0.5]}, {'organ': 2}\n"
        "report.write(None)\n"
        "assert gather_objects(os.environ['RANK']) == ['0', '1'], 'the next exchange is not disturbed'\n",
        encoding="utf-8",
    )
    run = torchrun_in_forks(script)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["regions"]["organ"]["roi_iou"]
    assert found == {"mean": 0.5, "slices": 1, "false_positive_slices": 2}


def test_operations_are_counted(tmp_path):
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    images = [{"image": torch.zeros(1, 8, 10, 3)}] * 2
    engine = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(images, batch_size=1),
        network,
        inferer=lambda inputs, net: torch.stack([net(plane) for plane in inputs.unbind(-1)], dim=-1),
    )
    InferenceCost(tmp_path).attach(engine)
    # what another handler does with the network is not counted
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: network(torch.zeros(1, 1, 8, 10)))
    engine.run()
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["gflop_per_slice"]
    assert found == pytest.approx(2 * 9 * 2 * 80 / 1e9)
