# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole path of inference, from a file to a file: what comes out lies where what went in lay."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator

from tests.bundles.volumes import AXIS_CODES, Grid, Storage, assert_same_grid, grids, make_grid, storages, write
from tests.bundles.workflow import BRATS, HIPPOCAMPUS, PANCREAS, make_workflow

BRAIN = "brain_mri_adversarial_normalization_segmentation"
EXAMPLES = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Inference:
    """The inference of a bundle, parsed once, with another network, case after case."""

    def __init__(self, bundle, folder, network, **overrides):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        workflow = make_workflow(
            bundle,
            "inference",
            output_dir=str(folder / "out"),
            cases=[{"case": "none", "image": "none"}],
            network_def=network,
            initialize=None,
            **overrides,
        )
        workflow.initialize()
        parsed = workflow.parser.get_parsed_content
        self.parts = {part: parsed(part) for part in ("device", "network", "inferer", "postprocessing")}
        self.preprocessing = parsed("preprocessing")

    def __call__(self, *images):
        """Returns the file that a case of these images (one, or one a modality) becomes."""
        case = {"case": "case", "image": [str(image) for image in images] if len(images) > 1 else str(images[0])}
        out = self.folder / "out" / "case_seg.nii.gz"
        out.unlink(missing_ok=True)
        loader = DataLoader(Dataset([case], self.preprocessing), batch_size=1)
        SupervisedEvaluator(val_data_loader=loader, **self.parts).run()
        return out


@pytest.fixture(scope="module")
def brats(tmp_path_factory):
    network = {"_target_": "tests.bundles.copying.CopyRegions", "values": [1.0, 1.0, 1.0], "channels": True}
    return Inference(BRATS, tmp_path_factory.mktemp("brats"), network, slice_size=[16, 16])


def nested(grid, seed):
    return np.random.default_rng(seed).integers(0, 4, grid.shape)


def voxels(path):
    return np.asanyarray(nibabel.load(path).dataobj)


@EXAMPLES
@given(grids(), storages(), st.integers(0, 2**32))
def test_brats(brats, grid, storage, seed):
    label = nested(grid, seed)
    files = [write(brats.folder / f"m{k}", 40 * (label > k), grid, storage) for k in range(3)]
    out = brats(*files)
    assert_same_grid(out, files[0])
    np.testing.assert_array_equal(voxels(out), label)
