# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from segan_monai.errors import DataError
from segan_monai.transforms import RelabelCased


def test_values_as_json_has_them_and_metadata_kept():
    label = MetaTensor(torch.tensor([[[[0.0, 5.0, 7.0]]]]), affine=2 * torch.eye(4))
    found = RelabelCased("label")({"label": label, "tissue_values": {"5": 2, "7": 0}})["label"]
    assert found.flatten().tolist() == [0, 2, 0]
    assert torch.equal(found.affine, label.affine)
    assert label.flatten().tolist() == [0, 5, 7]


def test_without_values_nothing_changes():
    label = torch.tensor([[[[0, 9]]]])
    assert RelabelCased("label")({"label": label})["label"] is label


def test_unknown_value_names_case_and_remedy():
    with pytest.raises(
        DataError, match=r"case p: .*holds label values 4 \(2 voxels\); expected 0, 1\. Correct 'tissue_values'"
    ):
        RelabelCased("label")({"case": "p", "label": torch.tensor([[[[0.0, 4, 4]]]]), "tissue_values": {1: 1}})
