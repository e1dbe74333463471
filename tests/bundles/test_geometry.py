# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole path of inference, from file to file: what comes out lies where what went in lay.

The configs are the bundles' own. Only the network is another: it copies a label map that the image holds.
"""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from scipy.ndimage import maximum_filter, minimum_filter

from tests.bundles.volumes import (
    AXIS_CODES,
    FORMS,
    Storage,
    assert_same_grid,
    grids,
    make_grid,
    storages,
    write,
)
from tests.bundles.workflow import BRATS, HIPPOCAMPUS, PANCREAS, make_workflow

pytestmark = pytest.mark.slow

BRAIN = "brain_mri_adversarial_normalization_segmentation"
COPY = "tests.bundles.copying."
SEEDS = st.integers(0, 2**32)


def examples(count):
    # without the search for a smaller example, which would take minutes
    return settings(max_examples=count, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])


class Inference:
    """The inference of a bundle, parsed once, for one case after the other."""

    def __init__(self, bundle, folder, network, **overrides):
        self.folder = folder
        self.case = folder / "out" / "case"
        own = {"network_def": network, "network": "$@network_def", "initialize": None}
        settings = {"cases": [{"case": "none", "image": "none"}], **own}
        workflow = make_workflow(bundle, "inference", output_dir=str(folder / "out"), **settings, **overrides)
        workflow.initialize()
        parsed = workflow.parser.get_parsed_content
        self.parts = {part: parsed(part) for part in ("device", "network", "inferer", "postprocessing")}
        self.preprocessing = parsed("preprocessing")

    def __call__(self, *images):
        """Returns the label map's file of a case of these images (one, or one a modality)."""
        case = {"case": "case", "image": [str(image) for image in images] if len(images) > 1 else str(images[0])}
        out = self.case.with_name("case_seg.nii.gz")
        out.unlink(missing_ok=True)
        loader = DataLoader(Dataset([case], self.preprocessing), batch_size=1)
        SupervisedEvaluator(val_data_loader=loader, **self.parts).run()
        return out


@pytest.fixture(scope="module")
def brats(tmp_path_factory):
    network = {"_target_": f"{COPY}CopyRegions", "values": [1.0, 1.0, 1.0], "channels": True}
    return Inference(BRATS, tmp_path_factory.mktemp("brats"), network, slice_size=[16, 16])


@pytest.fixture(scope="module")
def hippocampus(tmp_path_factory):
    network = {"_target_": f"{COPY}CopyRegions", "values": [1 / 3, 2 / 3]}
    # of the foreground 1, 2, 3, 4 the least and the largest become 0 and 1
    scale = {"preprocessing#transforms#2#lower": 0, "preprocessing#transforms#2#upper": 100}
    return Inference(
        HIPPOCAMPUS, tmp_path_factory.mktemp("hippocampus"), network, slice_size=[16, 16], neighbours=0, **scale
    )


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    network = {"_target_": f"{COPY}CopyTissues", "values": [10.0, 20.0, 40.0]}
    settings = {"patch_size": [8, 8, 8], "pad_small_images": True, "intensity": "raw", "intensity_unit": 1.0}
    return Inference(BRAIN, tmp_path_factory.mktemp("brain"), network, **settings)


@pytest.fixture(scope="module")
def pancreas(tmp_path_factory):
    network = {"_target_": f"{COPY}CopyRegions", "values": [(40 + 100) / 340], "tolerance": 0.05}
    return Inference(PANCREAS, tmp_path_factory.mktemp("pancreas"), network, plane_size=[16, 16])


def voxels(path):
    return np.asanyarray(nibabel.load(path).dataobj)


def noise(grid, seed, values):
    return np.random.default_rng(seed).choice(values, grid.shape)


def blocks(grid, seed, values, side=7):
    """Cubes of one value each, so that something is uniform after resampling."""
    coarse = np.random.default_rng(seed).choice(values, [-(-length // side) + 1 for length in grid.shape])
    start = np.random.default_rng(seed).integers(0, side, 3)
    window = tuple(slice(first, first + length) for first, length in zip(start, grid.shape, strict=True))
    return np.kron(coarse, np.ones((side,) * 3, int))[window]


def uniform(image, radius):
    """Voxels around which nothing differs up to this many voxels along each axis."""
    size = [2 * int(r) + 1 for r in radius]
    return minimum_filter(image, size, mode="nearest") == maximum_filter(image, size, mode="nearest")


@examples(40)
@given(grids(40), storages(), SEEDS, st.booleans())
@example(make_grid((1, 1, 1), "PSR"), Storage(), 1, False)
@example(make_grid((17, 1, 33), "SRA"), Storage(".nii", "float64", big_endian=True), 2, True)
def test_brats_voxel_for_voxel(brats, grid, storage, seed, in_one_file):
    label = noise(grid, seed, [0, 1, 2, 3])
    modalities = [40 * (label > region) for region in range(3)]
    if in_one_file and storage.suffix.startswith(".nii"):
        files = [write(brats.folder / "all", np.stack(modalities, axis=-1), grid, storage)]
    else:
        files = [
            write(brats.folder / f"modality{index}", image, grid, storage) for index, image in enumerate(modalities)
        ]
    result = brats(*files)
    assert_same_grid(result, files[0])
    np.testing.assert_array_equal(voxels(result), label)


def hippocampus_image(grid, seed):
    """Background 0, tissue 1, the two classes 2 and 3, bright tissue 4, times 10."""
    image = noise(grid, seed, [0, 1, 2, 3, 4])
    image.flat[0], image.flat[-1] = 1, 4
    return 10 * image, np.select([image == 2, image == 3], [1, 2])


@pytest.mark.parametrize("oblique", [False, True])
def test_hippocampus_in_all_48_orientations(hippocampus, oblique):
    for seed, codes in enumerate(AXIS_CODES):
        grid = make_grid((17, 6, 3), codes, (0.7, 1.3, 2.9), (0.2, -0.1, 0.3) if oblique else (0, 0, 0), (-80, 33, 7))
        image, label = hippocampus_image(grid, seed)
        storage = Storage(forms=FORMS[seed % len(FORMS)] if oblique else "both", codes=(1 + seed % 4, 1))
        file = write(hippocampus.folder / "image", image, grid, storage)
        result = hippocampus(file)
        assert_same_grid(result, file)
        np.testing.assert_array_equal(voxels(result), label)


@examples(40)
@given(grids(40), storages(), SEEDS)
def test_hippocampus_voxel_for_voxel(hippocampus, grid, storage, seed):
    image, label = hippocampus_image(grid, seed)
    file = write(hippocampus.folder / "image", image, grid, storage)
    result = hippocampus(file)
    assert_same_grid(result, file)
    np.testing.assert_array_equal(voxels(result), label)


TISSUES = [0, 6, 10, 20, 40]  # background, other tissue, three classes


def tissue_labels(image):
    return np.select([image == 10, image == 20, image == 40], [1, 2, 3])


@examples(30)
@given(grids(20, spacings=st.just((1.0, 1.0, 1.0))), storages(), SEEDS)
def test_brain_voxel_for_voxel_at_its_own_spacing(brain, grid, storage, seed):
    """Nothing is resampled where voxels have the size that the bundle works at; the normalized image is exact too."""
    image = noise(grid, seed, TISSUES)
    if storage.forms in ("standard_space", "stale_size"):
        storage = Storage(storage.suffix, storage.dtype)
    file = write(brain.folder / "image", image, grid, storage)
    result = brain(file)
    normalized = brain.case.with_name("case_normalized.nii.gz")
    for written in (result, normalized):
        assert_same_grid(written, file)
    np.testing.assert_array_equal(voxels(result), tissue_labels(image))
    np.testing.assert_allclose(voxels(normalized), image, atol=1e-4)


@examples(30)
@given(grids(20, spacings=st.tuples(*[st.floats(0.5, 4.0)] * 3)), storages(), SEEDS)
def test_brain_resampled(brain, grid, storage, seed):
    """The grid is the input's; a voxel is exact where nothing differs within a voxel of either grid around it.

    Both ways are linear, so a voxel depends on what is within its own size and 1 mm, nothing further.
    """
    image = blocks(grid, seed, TISSUES)
    file = write(brain.folder / "image", image, grid, storage)
    result = brain(file)
    assert_same_grid(result, file)
    spacing = np.linalg.norm(nibabel.load(file).affine[:3, :3], axis=0) if ".nii" in file.name else None
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0) if spacing is None else spacing
    where = uniform(image, np.ceil(1 / spacing) + 1)
    np.testing.assert_array_equal(voxels(result)[where], tissue_labels(image)[where])
    normalized = voxels(brain.case.with_name("case_normalized.nii.gz"))
    np.testing.assert_allclose(normalized[where], image[where], atol=1e-3)


@examples(30)
@given(
    st.builds(make_grid, st.just((16, 16, 16)), st.sampled_from(AXIS_CODES), angles=st.tuples(*[st.floats(-3, 3)] * 3)),
    storages(),
    SEEDS,
)
def test_pancreas_voxel_for_voxel_at_the_networks_size(pancreas, grid, storage, seed):
    """Nothing is resampled where planes have the size that the networks see."""
    image = noise(grid, seed, [0, 40])
    file = write(pancreas.folder / "image", image, grid, storage)
    result = pancreas(file)
    assert_same_grid(result, file)
    np.testing.assert_array_equal(voxels(result), image == 40)


@examples(30)
@given(grids(40), storages(), SEEDS)
def test_pancreas_resized(pancreas, grid, storage, seed):
    """The grid is the input's; a voxel is exact where nothing differs within two pixels of the coarser plane.

    Both ways are linear, with antialiasing where the plane shrinks; slices do not touch each other.
    """
    image = blocks(grid, seed, [0, 40], side=9)
    file = write(pancreas.folder / "image", image, grid, storage)
    result = pancreas(file)
    assert_same_grid(result, file)
    radius = [np.ceil(2 * max(1, length / 16)) for length in grid.shape]
    where = uniform(image, radius)
    np.testing.assert_array_equal(voxels(result)[where], (image == 40)[where])


@pytest.mark.parametrize("bundle", ["brats", "hippocampus", "brain", "pancreas"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 9), (9, 20, 30)])
def test_blank_image(bundle, shape, request):
    """Nothing to see is an empty label map on the image's grid, and no error."""
    inference = request.getfixturevalue(bundle)
    grid = make_grid(shape, "PIR", (1.2, 0.8, 3.0), (0.1, 0.2, 0.3))
    file = write(inference.folder / "image", np.zeros(shape), grid, Storage())
    result = inference(*[file] * (3 if bundle == "brats" else 1))
    assert_same_grid(result, file)
    assert not voxels(result).any()
