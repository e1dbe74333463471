# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""L-SNet whose RoIs come from larger planes, in every format of export."""

from __future__ import annotations

import pytest
import torch

from segan_monai.export import ExportedBundle
from segan_monai.export.formats import run_exported
from tests.bundles.workflow import BUNDLES, PANCREAS

SETTINGS = {
    "plane_size": [70, 96],
    "slice_size": [35, 48],
    "roi_size": [32, 40],
    "base_channels": 4,
    "segmentor_depth": 18,
    "max_rois": 2,
    "heatmap_threshold": 0.05,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.manual_seed(0)
    network = ExportedBundle(BUNDLES / PANCREAS, overrides=SETTINGS).parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), weights)
    return ExportedBundle(BUNDLES / PANCREAS, weights, overrides=SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torchscript", "onnx"])  # the exporter to ONNX begins with torch.export
def test_the_exported_network_cuts_rois_from_the_plane(kind, bundle, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    image = bundle.example(other=True)
    assert image.shape == (3, 1, 70, 96)
    with torch.no_grad():
        expected = bundle.network(image)
    assert (expected > -10).any(), "some RoI is found"
    found = run_exported(kind, bundle.export(kind, tmp_path / f"model.{kind}"), image)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
