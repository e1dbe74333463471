# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Post-processing that validation cases choose, of photographs and of CT slices saved as pictures."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from tests.bundles.workflow import PANCREAS, SKIN, run_workflow
from tests.networks.known_lsnet import known

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]

CASES = [f"PICTURE_{number:04}-1" for number in range(4)]
SIDE = 96


class BlueIsLesion(torch.nn.Module):
    """A network that finds every blue pixel."""

    def forward(self, x):
        return 100 * (x[:, 2:] - 0.5)


def write_pictures(folder):
    """Objects whose pictures have a dark hole, and a bright speck beside them that belongs to nothing."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number, case in enumerate(CASES):
        truth = np.zeros((SIDE, SIDE), bool)
        truth[20:70, 10 + number : 60 + number] = True
        bright = truth.copy()
        bright[35:45, 30:40] = False
        bright[4:10, 80:88] = True
        for kind, mask in (("images", bright), ("masks", truth)):
            picture = Image.fromarray(mask * np.uint8(255))
            picture.convert("RGB" if kind == "images" else "L").save(folder / kind / f"{case}.png")
    return folder


@pytest.fixture
def run(request, tmp_path):
    """Runs a bundle with a network whose answers are known, and returns the folder of its results."""
    models = tmp_path / "models"
    models.mkdir()
    torch.save({}, models / "model.pt")
    (models / "model.json").write_text('{"settings": {}}', encoding="utf-8")
    split = {"training": [], "validation": CASES}
    (models / "split.json").write_text(json.dumps(split), encoding="utf-8")
    common = {"dataset_dir": str(write_pictures(tmp_path / "data")), "ckpt_dir": str(models), "save_overlays": False}
    if request.param == SKIN:
        common |= {"image_size": [SIDE, SIDE], "network": BlueIsLesion()}
    else:
        common |= {"plane_size": [SIDE, SIDE], "slice_size": [SIDE, SIDE], "network": known(), "device": "cpu"}
    common["initialize"] = "$segan_monai.start_run(@output_dir, @seed)"

    def run(name, run_id, **overrides):
        of_run = {"subset": "validation"} if run_id == "evaluating" else {}
        own = {key: value for key, value in common.items() if run_id == "inference" or key != "save_overlays"}
        run_workflow(request.param, run_id, output_dir=str(tmp_path / name), **own, **of_run, **overrides)
        return tmp_path / name

    return run


def mean_dice(folder):
    with (folder / "metrics.csv").open(encoding="utf-8") as stream:
        return np.mean([float(row["dice"]) for row in csv.DictReader(stream)])


def read_mask(folder, case):
    if (png := folder / f"{case}_seg.png").is_file():
        return np.asarray(Image.open(png)) == 255
    return np.squeeze(np.asanyarray(nibabel.load(folder / f"{case}_seg.nii.gz").dataobj)).T == 1


@pytest.mark.parametrize(("run", "region"), [(SKIN, "lesion"), (PANCREAS, "pancreas")], indirect=["run"])
def test_holes_are_filled_and_specks_removed_where_that_helps(run, region, tmp_path):
    learnt = run("learnt", "evaluating", learn_region_rules=True)
    record = json.loads((tmp_path / "models" / "model.json").read_text(encoding="utf-8"))
    rule, gain = record["settings"]["region_rules"][region], record["region_rules_chosen"]["regions"][region]
    assert rule["fill_holes"] is True
    assert {"smallest_fraction", "smallest_voxels"} & set(rule)
    # of 2500 pixels, 100 are in the hole and 48 in the speck
    assert gain["dice_before"] == pytest.approx(2 * 2400 / (2500 + 2448), abs=0.02)
    assert gain["dice_after"] > 0.98
    assert mean_dice(learnt) == pytest.approx(gain["dice_before"], abs=1e-4), "without the rules"

    after = run("after", "evaluating")
    assert mean_dice(after) == pytest.approx(gain["dice_after"], abs=1e-4)
    summary = json.loads((after / "summary.json").read_text(encoding="utf-8"))
    assert summary["region_rules_chosen_on"] == CASES
    predicted = run("predicted", "inference")
    for case in CASES:
        found = read_mask(after, case)
        assert found.shape == (SIDE, SIDE)
        assert found[40, 35], "the hole"
        assert not found[:14, 76:].any(), "the speck"
        assert np.array_equal(read_mask(predicted, case), found)

    without = run("without", "evaluating", region_rules=None, allow_other_settings="region_rules")
    assert mean_dice(without) == pytest.approx(gain["dice_before"], abs=1e-4)
    assert read_mask(without, CASES[0])[6, 84]
