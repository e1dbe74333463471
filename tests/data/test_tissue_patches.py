# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ignite.distributed as idist
import pytest
import torch

from segan_monai.data import TissuePatchDataset
from segan_monai.errors import ConfigError
from segan_monai.transforms import RandTissuePatchesd, TissueCentresd

CUT = RandTissuePatchesd(["image", "label"], label_key="label", patch_size=(2, 2, 2), num_samples=None)


def cases():
    """Two cases with 4 and 1 tissue voxels on the grid; the image numbers its voxels."""
    found = []
    for name, tissue in (("a", [(0, 0), (0, 4), (4, 0), (4, 4)]), ("b", [(4, 4)])):
        label = torch.zeros(1, 8, 8, 4)
        for x, y in tissue:
            label[0, x, y, 0] = 1
        image = torch.arange(256.0).reshape(1, 8, 8, 4)
        found.append(TissueCentresd("label", stride=(4, 4, 4))({"image": image, "label": label, "case": name}))
    return found


def test_each_patch_of_each_case_once():
    patches = TissuePatchDataset(cases(), CUT)
    assert len(patches) == 5
    assert [patches[index]["case"] for index in range(5)] == ["a"] * 4 + ["b"]
    whole = [patch for case in cases() for patch in CUT(case)]
    assert all(torch.equal(patches[index]["image"], whole[index]["image"]) for index in range(5))
    assert patches[3]["image"].shape == (1, 2, 2, 2)
    assert patches[3]["image"][0, 1, 1, 0] == 4 * 32 + 4 * 4, "the centre of its own patch"
    assert not torch.equal(patches[2]["image"], patches[3]["image"])


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="Pass --patches_per_volume with a number"):
        TissuePatchDataset(cases(), CUT)
