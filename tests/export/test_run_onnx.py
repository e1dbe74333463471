# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The script that runs ONNX on NIfTI without torch, part by part against MONAI's and this package's own."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import nibabel
import numpy as np
import onnx
import onnxruntime
import pytest
import SimpleITK
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import NormalizeIntensity

from segan_monai import grids, nifti
from segan_monai.errors import DataError
from segan_monai.export import run_onnx
from segan_monai.inferers import VolumeSliceInferer, VolumeWindowInferer
from segan_monai.transforms import (
    LoadCased,
    RegionRulesd,
    regions_to_label_map,
    resize_planes,
    scale_foreground,
    scale_head,
)
from segan_monai.transforms.regions import paint_order
from tests.export.block_torch import BLOCK_TORCH

pytestmark = pytest.mark.slow


class Session:
    """An onnxruntime session's interface to a torch network."""

    name = "image"

    def __init__(self, network):
        self.network = network

    def get_inputs(self):
        return [self]

    def run(self, _, inputs):
        return [self.network(torch.from_numpy(inputs["image"])).numpy()]


def volume(*shape):
    array = np.random.default_rng(0).normal(1, 1, shape).astype(np.float32)
    array[:, :3], array[:, :, 9:], array[..., :2] = 0, 0, 0
    return array


def write_network(file, recipe, weight=200.0, bias=-100.0):
    """A network of one channel: logit = weight * image + bias."""
    tensors = [onnx.helper.make_tensor(n, 1, [1], [v]) for n, v in (("weight", weight), ("bias", bias))]
    shape = ["batch", 1, "height", "width"]
    ends = [onnx.helper.make_tensor_value_info(name, 1, shape) for name in ("image", "logits")]
    nodes = [onnx.helper.make_node("Mul", ["image", "weight"], ["product"])]
    nodes.append(onnx.helper.make_node("Add", ["product", "bias"], ["logits"]))
    graph = onnx.helper.make_graph(nodes, "scale", [ends[0]], [ends[1]], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    if recipe is not None:
        onnx.helper.set_model_props(model, {run_onnx.RECIPE: json.dumps(recipe)})
    onnx.save(model, file)
    return file


def recipe(*steps):
    slices = {"axes": (2,), "batch_size": 4, "skip_empty": True, "margin": 2, "empty_value": -20.0, "min_size": [8, 8]}
    return {
        "channels": 1,
        "steps": list(steps),
        "inferer": {"kind": "slices", **slices},
        "activation": "sigmoid",
        "labels": {"values": [7], "rule": "paint", "threshold": 0.5, "order": [0]},
    }


@pytest.mark.parametrize(("old", "new"), [(7, 19), (19, 7), (64, 30), (5, 5), (3, 40)])
def test_resizing_is_torchs_with_antialiasing(old, new):
    image = np.random.default_rng(0).random((2, old, 6, 3), np.float32)
    expected = resize_planes(torch.from_numpy(image), (new, 9)).numpy()
    np.testing.assert_allclose(run_onnx.resize_image_planes(image, (new, 9)), expected, atol=3e-6)


def test_rules_of_regions():
    maps = np.random.default_rng(0).random((2, 9, 8, 7)).astype(np.float32)
    maps[:, 4] = 0  # two large components, and none across
    rules = {"a": {"threshold": 0.7, "smallest_fraction": 1.0}, "b": {"threshold": 0.8, "smallest_voxels": 3}}
    rules["d"] = {"threshold": 0.2, "fill_holes": True}
    four = np.stack([*maps, maps[0], maps[1]])
    expected = RegionRulesd("pred", ["a", "b", "c", "d"], rules)({"pred": torch.from_numpy(four)})
    found = run_onnx.apply_rules(four, [(0.7, 1.0, 0), (0.8, 0.0, 3), (0.5, 0.0, 0), (0.2, 0.0, 0, True)])
    assert np.count_nonzero(found[3]) > np.count_nonzero(maps[1] >= 0.2), "there are holes"
    assert np.array_equal(found, expected["pred"].numpy())
    assert 0 < np.count_nonzero(found[0]) < np.count_nonzero(maps[0] >= 0.7)
    slices = maps[:1, :, :, :1]
    expected = RegionRulesd("pred", ["d"], {"d": rules["d"]})({"pred": torch.from_numpy(slices)})["pred"].numpy()
    found = run_onnx.apply_rules(slices, [(0.2, 0.0, 0, True)])
    assert np.count_nonzero(found) > np.count_nonzero(slices >= 0.2), "holes of a single slice"
    assert np.array_equal(found, expected)


def test_intensities():
    image = volume(2, 8, 12, 6)
    expected = scale_foreground(torch.from_numpy(image)).numpy()
    assert np.array_equal(run_onnx.scale_percentiles(image, 0.5, 99.5), expected)
    image[1] += np.float32(3)
    image[0, 1:3] = 0.01
    assert np.array_equal(run_onnx.scale_by_head_median(image), scale_head(torch.from_numpy(image)).numpy())
    assert not run_onnx.scale_by_head_median(np.full((1, 4, 4, 4), 0.3, np.float32)).any()
    with pytest.raises(SystemExit, match="channel 1 has a median of -"):
        run_onnx.scale_by_head_median(np.stack([image[0], image[0] - 99]))
    for nonzero in (True, False):
        expected = NormalizeIntensity(nonzero=nonzero)(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(run_onnx.standardize(image, nonzero), expected, atol=1e-5)
    assert run_onnx.scale_window(np.array([-200, -100, 70, 900], np.float32), -100, 240).tolist() == [0, 0, 0.5, 1]


@pytest.mark.parametrize("axis", [0, 1, 2, [0, 2]])
@pytest.mark.parametrize("min_size", [(1, 1), (20, 9)])
@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize(("neighbours", "mirror_axes"), [(0, []), (2, []), (0, [0, 1]), (2, [0, 2]), (1, [0, 1, 2])])
def test_slices_are_those_of_the_inferer(axis, min_size, empty, neighbours, mirror_axes):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(2 * (2 * neighbours + 1), 3, 5, padding=2).requires_grad_(False)
    image = volume(2, 12, 14, 10)
    inferer = VolumeSliceInferer(
        axis, 4, skip_empty=empty, margin=1, min_size=min_size, neighbours=neighbours, mirror_axes=mirror_axes
    )
    expected = inferer(torch.from_numpy(image)[None], network)[0].numpy()
    settings = {
        "axes": inferer.axes,
        "batch_size": 4,
        "skip_empty": empty,
        "margin": 1,
        "empty_value": -20.0,
        "neighbours": neighbours,
        "mirror_axes": mirror_axes,
    }
    found = run_onnx.run_slices(Session(network), image, min_size=min_size, **settings)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    nothing = run_onnx.run_slices(Session(network), 0 * image, min_size=min_size, **settings)
    assert nothing.shape == expected.shape


@pytest.mark.parametrize("size", [(8, 8, 8), (8, 6, 16), (20, 14, 12)])
def test_windows_are_monais(size):
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1).requires_grad_(False)
    image = volume(1, 13, 14, 11)
    inferer = SlidingWindowInferer(size, sw_batch_size=3, overlap=0.5, mode="gaussian")
    expected = inferer(torch.from_numpy(image)[None], network)[0].numpy()
    found = run_onnx.run_windows(Session(network), image, size, overlap=0.5, batch_size=3, sigma_scale=0.125)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("mirror_axes", [[], [0, 2]])
def test_windows_around_the_content_are_those_of_the_inferer(mirror_axes):
    torch.manual_seed(0)
    network = torch.nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)
    image = np.zeros((2, 13, 14, 11), np.float32)
    image[:, 3:9, 2:13, 4:8] = volume(2, 6, 11, 4)
    inferer = VolumeWindowInferer((6, 8, 6), margin=2, sw_batch_size=2, mirror_axes=mirror_axes)
    expected = inferer(torch.from_numpy(image)[None], network)[0].numpy()
    settings = {"overlap": 0.5, "batch_size": 3, "sigma_scale": 0.125, "margin": 2, "empty_value": -20.0}
    found = run_onnx.run_windows(Session(network), image, (6, 8, 6), mirror_axes=mirror_axes, **settings)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "regions", [{"a": [1], "b": [2]}, {"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}, {"lesion": [255]}]
)
def test_label_maps_are_those_of_the_transform(regions):
    maps = np.random.default_rng(0).random((len(regions), 9, 8, 7), np.float32)
    expected = regions_to_label_map(torch.from_numpy(maps), regions).numpy()[0]
    rule = "highest" if len(regions) == 2 else "paint"
    found = run_onnx.merge(maps, list(range(1, len(regions) + 1)), rule, 0.5, paint_order(regions))
    assert np.array_equal(found, expected)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "oblique"])
def test_a_label_map_on_the_images_own_grid_without_torch(axes, tmp_path, oblique):
    mask = np.zeros((21, 18, 13), bool)
    mask[3:15, 4:12, 2:9] = True
    affine = oblique
    if axes != "oblique":
        affine = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(axes), mask.shape)
    nibabel.save(nibabel.Nifti1Image(np.where(mask, 900, 100).astype(np.int16), affine), tmp_path / "image.nii.gz")
    steps = {"kind": "orientation", "axcodes": "RAS"}, {"kind": "window", "lower": 100, "upper": 900}
    model = write_network(tmp_path / "model.onnx", recipe(*steps))
    arguments = [str(model), str(tmp_path / "image.nii.gz"), "--output", str(tmp_path / "out.nii.gz")]
    script = f"import runpy; sys.argv[1:] = {arguments!r}; runpy.run_path({run_onnx.__file__!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_TORCH + script], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    found = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert np.array_equal(np.asanyarray(found.dataobj), 7 * mask)


def test_one_file_a_modality_or_one_of_four_dimensions(tmp_path):
    image = volume(2, 5, 6, 7)
    for channel in range(2):
        nibabel.save(nibabel.Nifti1Image(image[channel], np.eye(4)), tmp_path / f"{channel}.nii")
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(image, 0, -1), np.eye(4)), tmp_path / "all.nii")
    for files in (["0.nii", "1.nii"], ["all.nii"]):
        voxels, _ = run_onnx.load_image([tmp_path / file for file in files], 2)
        assert np.array_equal(voxels, image)
    with pytest.raises(SystemExit, match=r"expected 3 channels, found 2 in .*all.nii"):
        run_onnx.load_image([tmp_path / "all.nii"], 3)


def test_messages(tmp_path):
    image = tmp_path / "image.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 8), np.float32), np.diag([2.0, 2, 2, 1])), image)
    output = ["--output", str(tmp_path / "out.nii")]

    def fails(found, match, file=image):
        model = write_network(tmp_path / "model.onnx", found)
        with pytest.raises(SystemExit, match=match):
            run_onnx.main([str(model), str(file), *output])

    fails(None, "not written by `segan-monai export onnx`")
    fails({"without": "LoadPhotographd has no counterpart"}, "LoadPhotographd has no counterpart")
    fails(recipe({"kind": "spacing", "mm": [1.0, 1.0, 1.0]}), r"spacing of \[2.0, 2.0, 2.0\] mm, .* \[1.0, 1.0, 1.0\]")
    fails(recipe({"kind": "unknown"}), "unknown step 'unknown' in the ONNX file")
    fails(recipe(), "missing.nii: there is no such file", tmp_path / "missing.nii")
    fails(recipe(), "it is a folder; expected a file", tmp_path)
    with pytest.raises(SystemExit, match=r"image.nii is no ONNX file that .*Give the model first"):
        run_onnx.main([str(image), str(tmp_path / "model.onnx"), *output])


@pytest.mark.parametrize("name", ["plain.nii.gz", "packed.nii", "a.Nii.GZ"])
def test_names_that_do_not_fit_the_content_and_other_units(name, tmp_path):
    network = write_network(tmp_path / "model.onnx", recipe({"kind": "spacing", "mm": [2, 2, 3]}))
    session = onnxruntime.InferenceSession(str(network))
    image = nibabel.Nifti1Image(volume(1, 8, 12, 6)[0], np.diag([2000, 2000, 3000, 1]))
    image.header.set_xyzt_units("micron")
    written = tmp_path / ("written.nii.gz" if "packed" in name else "written.nii")
    nibabel.save(image, written)
    written.rename(tmp_path / name)
    result = run_onnx.make_label_map(session, [tmp_path / name])
    assert np.array_equal(np.asarray(result.dataobj) == 7, image.get_fdata() >= 0.5)
    nibabel.save(result, tmp_path / "result.nii.gz")
    nibabel.save(image, tmp_path / "image.nii.gz")
    found, expected = (SimpleITK.ReadImage(str(tmp_path / f"{name}.nii.gz")) for name in ("result", "image"))
    assert found.GetSpacing() == expected.GetSpacing() == pytest.approx((2, 2, 3))
    assert np.array_equal(nibabel.load(tmp_path / "result.nii.gz").affine, image.affine)


@pytest.mark.parametrize("bias", [float("nan"), float("inf"), float("-inf")])
def test_no_label_map_is_made_of_output_that_is_not_finite(bias, tmp_path):
    image = tmp_path / "image.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4)), image)
    model = write_network(tmp_path / "model.onnx", recipe(), bias=bias)
    with pytest.raises(SystemExit, match=r"image.nii: 512 of 512 values of the network's output are NaN or infinite"):
        run_onnx.main([str(model), str(image), "--output", str(tmp_path / "out.nii")])
    assert not (tmp_path / "out.nii").exists()


def test_nifti_is_read_and_placed_by_the_functions_of_the_package():
    """The script stands alone, so it holds a copy of `segan_monai.nifti` and of the rules on grids."""
    source, copy = (inspect.getsource(module) for module in (nifti, run_onnx))
    functions = source[source.index("\nPLACE = (") :].rstrip()
    assert functions in copy
    for rule in (grids.corner_distance, grids.spans_space):
        assert inspect.getsource(rule) in copy
    for name in ("GRID_TOLERANCE_VOXELS", "LEAST_SPACING_MM", "LARGEST_EXTENT_MM"):
        assert getattr(run_onnx, name) == getattr(grids, name)


@pytest.mark.parametrize("moved", [0.2, 0.3])
def test_modalities_on_different_grids_are_refused_as_by_the_package(moved, tmp_path):
    affine = np.array([[0, -2.0, 0, 9], [3, 0, 0, -4], [0, 0, 1, 2], [0, 0, 0, 1]])
    other = affine.copy()
    other[1, 3] += 3 * moved  # along the first axis, whose voxels have 3 mm
    for name, place in (("a", affine), ("b", other)):
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), place), tmp_path / f"{name}.nii")
    files = [tmp_path / "a.nii", tmp_path / "b.nii"]
    if moved < grids.GRID_TOLERANCE_VOXELS:
        assert run_onnx.load_image(files, 2)[0].shape == (2, 4, 5, 6)
        LoadCased("image")({"case": "c", "image": [*map(str, files)]})
        return
    with pytest.raises(SystemExit, match=r"a\.nii and .*b\.nii lie up to 0\.9 mm apart, 0\.3 voxels \(tolerance 0\.25"):
        run_onnx.load_image(files, 2)
    with pytest.raises(DataError, match=r"lie up to 0\.9 mm apart, 0\.3 voxels"):
        LoadCased("image")({"case": "c", "image": [*map(str, files)]})


def test_files_that_hold_no_volume_are_named(tmp_path):
    image = nibabel.Nifti1Image(np.random.default_rng(0).random((8, 8, 8), np.float32), np.eye(4))
    nibabel.save(image, tmp_path / "short.nii.gz")
    content = (tmp_path / "short.nii.gz").read_bytes()
    (tmp_path / "short.nii.gz").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.nii").write_bytes(b"")
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 7), np.float32), np.eye(4)), tmp_path / "plane.nii")
    image.header.set_sform(np.diag([1.0, 1, 0, 1]), 1)
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 7, 8), np.float32), None, image.header), tmp_path / "flat.nii")
    for name, message in (
        ("short.nii.gz", r"cannot be read \(EOFError: .*\)\. It is truncated or damaged"),
        ("empty.nii", "cannot be read .* truncated or damaged"),
        ("plane.nii", r"has the shape \(6, 7\)\. Expected a 3-D volume"),
        ("flat.nii", r"has the affine .*, which is singular, not finite, or of a size"),
    ):
        with pytest.raises(SystemExit, match=rf"{name} {message}"):
            run_onnx.load_image([tmp_path / name], 1)


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_voxels_that_are_no_real_numbers_are_refused(dtype, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), dtype), np.eye(4)), tmp_path / "image.nii")
    with pytest.raises(SystemExit, match=r"image.nii holds .*Expected real numbers; convert colours or complex"):
        run_onnx.load_image([tmp_path / "image.nii"], 1)


@pytest.mark.parametrize(("qform", "sform"), [(0, 0), (1, 0), (0, 2), (1, 1)])
def test_the_label_map_lies_on_the_image_in_nibabel_and_itk(qform, sform, tmp_path):
    session = onnxruntime.InferenceSession(str(write_network(tmp_path / "model.onnx", recipe())))
    image = nibabel.Nifti1Image(volume(1, 8, 12, 6)[0], None)
    image.header.set_sform(np.diag([-1, -1.2, 2, 1]), sform)
    image.header.set_qform(np.array([[0, -1, 0, 5], [1.2, 0, 0, 3], [0, 0, 2, 1], [0, 0, 0, 1]]), qform)
    nibabel.save(image, tmp_path / "image.nii")
    nibabel.save(run_onnx.make_label_map(session, [tmp_path / "image.nii"]), tmp_path / "label.nii")
    found, expected = (nibabel.load(tmp_path / name) for name in ("label.nii", "image.nii"))
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert [found.header[code] for code in ("qform_code", "sform_code")] == [qform, sform]
    found, expected = (SimpleITK.ReadImage(str(tmp_path / name)) for name in ("label.nii", "image.nii"))
    assert found.GetOrigin() == expected.GetOrigin()
    assert found.GetDirection() == expected.GetDirection()
    assert found.GetSpacing() == expected.GetSpacing()
