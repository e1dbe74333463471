#!/usr/bin/env python3
# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Run an exported ONNX network on a NIfTI image; needs numpy, nibabel and onnxruntime, nothing else of this package.

This is one long file on purpose: it can be copied to a machine without this package.

Example: python run_onnx.py model.onnx image.nii.gz --output label_map.nii.gz

All that it must know (orientation, intensities, slices or windows, label values) lies in the ONNX file, where
`segan-monai export onnx` wrote it. The label map is that of the bundle's inference.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import onnxruntime
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

RECIPE = "segan_monai"  # key of the recipe in the metadata of an ONNX file
SPACING_TOLERANCE_MM = 1e-3


def open_image(file: Path) -> Any:
    """Open an image with nibabel; whether a NIfTI is compressed is decided by its content, not by its name."""
    if not file.name.lower().endswith((".nii", ".nii.gz")):
        return nibabel.load(file)
    content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    is_nifti2 = 540 in (int.from_bytes(content[:4], order) for order in ("little", "big"))
    return (nibabel.Nifti2Image if is_nifti2 else nibabel.Nifti1Image).from_bytes(content)


def in_mm(affine: NDArray, header: Any) -> NDArray:
    """The affine in mm, of which a NIfTI's header may say that it counts in metres or microns."""
    code = int(header["xyzt_units"]) & 7 if "xyzt_units" in header else 0
    mm = {1: 1000.0, 3: 0.001}.get(code, 1.0)
    return np.diag([mm, mm, mm, 1.0]) @ affine


def load_image(files: Sequence[Path], channels: int) -> tuple[NDArray, NDArray]:
    """Read one 4-D image, or a 3-D image a modality.

    Returns:
        Voxels (C, H, W, D) in float32 and the affine.
    """
    images = [open_image(file) for file in files]
    volumes = [np.asanyarray(image.dataobj).astype(np.float32) for image in images]
    volumes = [volume[:, :, :, 0] if volume.ndim == 5 and volume.shape[3] == 1 else volume for volume in volumes]
    stacked = [v[None] if v.ndim == 3 else np.moveaxis(v, -1, 0) for v in volumes]
    if len({v.shape[1:] for v in stacked}) > 1:
        raise SystemExit(f"the images differ in shape: {[v.shape[1:] for v in stacked]}. Resample them to one grid.")
    voxels = np.concatenate(stacked)
    if len(voxels) != channels:
        raise SystemExit(f"expected {channels} channels, found {len(voxels)} in {', '.join(map(str, files))}.")
    if not np.isfinite(voxels).all():
        raise SystemExit(f"{', '.join(map(str, files))}: NaN or infinite voxels. Replace them.")
    return voxels, images[0].affine


def scale_percentiles(image: NDArray, lower: float, upper: float) -> NDArray:
    """Percentiles of the voxels other than 0, channel by channel, to 0 and 1, clipped."""
    result = np.zeros_like(image)
    for channel, scaled in zip(image, result, strict=True):
        values = channel[channel != 0]
        if values.size:
            low, high = np.percentile(values, [lower, upper])
            low = low if high > low else high - 1.0
            clipped = np.clip((channel - np.float32(low)) / np.float32(high - low), 0, 1)
            scaled[...] = clipped * (channel != 0)
    return result


def scale_window(image: NDArray, lower: float, upper: float) -> NDArray:
    """A window of intensities to 0 to 1, clipped."""
    return np.clip((image - np.float32(lower)) / np.float32(upper - lower), 0, 1)


def standardize(image: NDArray, nonzero: bool) -> NDArray:
    """Mean 0 and standard deviation 1; of voxels other than 0 only, if wanted."""
    used = image != 0 if nonzero else np.ones(image.shape, bool)
    if not used.any():
        return image
    deviation = image[used].std(dtype=np.float64) or 1.0
    scaled = (image - np.float32(image[used].mean(dtype=np.float64))) / np.float32(deviation)
    return np.where(used, scaled, image)


def resize_weights(old: int, new: int) -> NDArray:
    """Matrix (new, old) of a bilinear resize with antialiasing: triangles over the area of each new pixel."""
    scale = old / new
    support = max(scale, 1.0)
    centre = (np.arange(new) + 0.5)[:, None] * scale
    first = np.maximum((centre - support + 0.5).astype(int), 0)
    last = np.minimum((centre + support + 0.5).astype(int), old)
    position = np.arange(old)[None]
    weights = np.maximum(1 - np.abs((position + 0.5 - centre) / support), 0)
    weights = np.where((position >= first) & (position < last), weights, 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def resize_image_planes(volume: NDArray, size: Sequence[int]) -> NDArray:
    """Resize H and W of (C, H, W, D)."""
    if volume.shape[1:3] == tuple(size):
        return volume
    rows, columns = (resize_weights(old, new) for old, new in zip(volume.shape[1:3], size, strict=True))
    return np.einsum("ip,jq,cpqd->cijd", rows, columns, volume, optimize=True)


def prepare(image: NDArray, affine: NDArray, steps: Sequence[dict[str, Any]]) -> tuple[NDArray, list[tuple[str, Any]]]:
    """Apply the steps before the network.

    Returns:
        The image, and what `restore` needs to undo, in order.
    """
    done: list[tuple[str, Any]] = []
    for step in steps:
        kind = step["kind"]
        if kind == "orientation":
            turn = ornt_transform(io_orientation(affine), axcodes2ornt(step["axcodes"]))
            back = ornt_transform(axcodes2ornt(step["axcodes"]), io_orientation(affine))
            affine = affine @ inv_ornt_aff(turn, image.shape[1:])
            image = np.stack([apply_orientation(channel, turn) for channel in image])
            done.append((kind, back))
        elif kind == "spacing":
            found, wanted = np.linalg.norm(affine[:3, :3], axis=0), np.array(step["mm"])
            if np.abs(found - wanted).max() > SPACING_TOLERANCE_MM:
                raise SystemExit(
                    f"the image has a spacing of {found.round(4).tolist()} mm, the network was trained at "
                    f"{wanted.tolist()}. Resample the image first (for example with SimpleITK or nilearn), or use the "
                    "bundle's own inference, which does it."
                )
        elif kind == "crop":
            box = foreground_box(np.asarray((image > 0).any(0)))
            done.append((kind, (image.shape[1:], box)))
            image = image[of_all_channels(box)]
        elif kind == "foreground_percentiles":
            image = scale_percentiles(image, step["lower"], step["upper"])
        elif kind == "window":
            image = scale_window(image, step["lower"], step["upper"])
        elif kind == "standardize":
            image = standardize(image, step["nonzero"])
        elif kind == "resize_planes":
            done.append((kind, image.shape[1:3]))
            image = resize_image_planes(image, step["size"])
        else:
            raise SystemExit(f"the ONNX file asks for a step '{kind}' that this script does not know: use a newer one.")
    return np.ascontiguousarray(image, np.float32), done


def restore(maps: NDArray, done: Sequence[tuple[str, Any]]) -> NDArray:
    """Bring probabilities (K, ...) back to the image's own grid."""
    for kind, what in reversed(done):
        if kind == "orientation":
            maps = np.stack([apply_orientation(channel, what) for channel in maps])
        elif kind == "crop":
            shape, box = what
            full = np.zeros((len(maps), *shape), maps.dtype)
            full[of_all_channels(box)] = maps
            maps = full
        else:
            maps = resize_image_planes(maps, what)
    return maps


def of_all_channels(box: Sequence[slice]) -> tuple[slice, ...]:
    """Index of a box in (C, H, W, D)."""
    return (slice(None), *box)


def foreground_box(mask: NDArray) -> tuple[slice, ...]:
    """The smallest box around a mask; all of it if it is empty."""
    if not mask.any():
        return tuple(slice(0, length) for length in mask.shape)
    spans = [np.flatnonzero(mask.any(tuple(i for i in range(mask.ndim) if i != axis))) for axis in range(mask.ndim)]
    return tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)


def run_slices_along(
    network: onnxruntime.InferenceSession,
    image: NDArray,
    axis: int,
    batch_size: int,
    skip_empty: bool,
    margin: int,
    empty_value: float,
    min_size: Sequence[int],
    neighbours: int = 0,
) -> NDArray:
    """Slices of (C, H, W, D) across one axis through a 2-D network, restacked: (K, H, W, D)."""
    slices = np.moveaxis(image, 1 + axis, 0)  # (S, C, U, V)
    wanted = np.arange(len(slices))
    spans = [slice(0, length) for length in slices.shape[2:]]
    used = (slices != 0).any(1)
    if skip_empty and not used.any():
        wanted = wanted[:1]
    elif skip_empty:
        wanted = np.flatnonzero(used.any((1, 2)))
        box = foreground_box(used.any(0))
        spans = [
            slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(box, used.shape[1:], strict=True)
        ]
    sizes = [span.stop - span.start for span in spans]
    pads = [max(least - size, 0) for least, size in zip(min_size, sizes, strict=True)]
    starts = [pad // 2 for pad in pads]
    padding = [(0, 0), (0, 0), *((start, pad - start) for start, pad in zip(starts, pads, strict=True))]
    inside = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    output: NDArray | None = None
    for first in range(0, len(wanted), batch_size):
        index = wanted[first : first + batch_size]
        place = index[:, None] + np.arange(-neighbours, neighbours + 1)
        inside_volume = ((place >= 0) & (place < len(slices)))[..., None, None, None]
        group = slices[place.clip(0, len(slices) - 1)][..., spans[0], spans[1]] * inside_volume
        batch = np.pad(group.reshape(len(index), -1, *group.shape[3:]).astype(np.float32), padding)
        result = network.run(None, {network.get_inputs()[0].name: batch})[0]
        if output is None:
            output = np.full((len(slices), result.shape[1], *slices.shape[2:]), empty_value, np.float32)
        output[index, :, spans[0], spans[1]] = result[..., inside[0], inside[1]]
    if output is None:
        raise SystemExit("the image has no slices.")
    return np.moveaxis(output, 0, 1 + axis)


def run_slices(network: onnxruntime.InferenceSession, image: NDArray, axes: Sequence[int], **settings: Any) -> NDArray:
    """Mean of `run_slices_along` over the axes: (C, H, W, D) to (K, H, W, D); see `VolumeSliceInferer`."""
    return np.mean([run_slices_along(network, image, axis, **settings) for axis in axes], axis=0)


def window_starts(length: int, size: int, overlap: float) -> Iterator[int]:
    """Where windows begin along one axis."""
    step = size if size == length else max(int(size * (1 - overlap)), 1)
    for start in range(0, length, step):
        yield min(start, length - size)
        if start + size >= length:
            return


def run_windows(
    network: onnxruntime.InferenceSession,
    image: NDArray,
    size: Sequence[int],
    overlap: float,
    batch_size: int,
    sigma_scale: float,
) -> NDArray:
    """Overlapping windows of (C, H, W, D) through a 3-D network, averaged with Gaussian weights: (K, H, W, D)."""
    pads = [max(wanted - found, 0) for wanted, found in zip(size, image.shape[1:], strict=True)]
    padded = np.pad(image, [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads)])
    starts = [list(window_starts(n, s, overlap)) for n, s in zip(padded.shape[1:], size, strict=True)]
    places = [
        tuple(slice(at, at + s) for at, s in zip((x, y, z), size, strict=True))
        for x in starts[0]
        for y in starts[1]
        for z in starts[2]
    ]
    weight = np.ones((), np.float32)
    for length in size:
        x = np.arange(length, dtype=np.float32) - (length - 1) / 2
        weight = weight[..., None] * np.exp(-(x**2) / (2 * (sigma_scale * length) ** 2)).astype(np.float32)
    weight = np.maximum(weight, max(float(weight.min()), 1e-3))
    total: NDArray | None = None
    count = np.zeros(padded.shape[1:], np.float32)
    for first in range(0, len(places), batch_size):
        group = places[first : first + batch_size]
        batch = np.stack([padded[of_all_channels(place)] for place in group])
        results = network.run(None, {network.get_inputs()[0].name: batch})[0]
        if total is None:
            total = np.zeros((results.shape[1], *padded.shape[1:]), np.float32)
        for place, result in zip(group, results, strict=True):
            total[of_all_channels(place)] += weight * result
            count[place] += weight
    if total is None:
        raise SystemExit("the image has no voxels.")
    inside = tuple(slice(pad // 2, pad // 2 + n) for pad, n in zip(pads, image.shape[1:], strict=True))
    return (total / count)[of_all_channels(inside)]


def activate(logits: NDArray, kind: str) -> NDArray:
    """Logits (K, ...) to probabilities."""
    if kind == "softmax":
        odds = np.exp(logits - logits.max(0, keepdims=True))
        return odds / odds.sum(0, keepdims=True)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


def merge(maps: NDArray, values: Sequence[int], rule: str, threshold: float, order: Sequence[int]) -> NDArray:
    """Probabilities (K, H, W, D) to one label map (H, W, D) in uint8."""
    if rule == "argmax":
        return np.array(values, np.uint8)[maps.argmax(0)]
    if rule == "highest":
        merged = np.array(values, np.uint8)[maps.argmax(0)]
        return np.where(maps.max(0) < threshold, 0, merged).astype(np.uint8)
    merged = np.zeros(maps.shape[1:], np.uint8)
    for index in order:
        merged[maps[index] >= threshold] = values[index]
    return merged


def make_label_map(network: onnxruntime.InferenceSession, files: Sequence[Path]) -> nibabel.Nifti1Image:
    """The label map of an image on the image's own grid."""
    recipe = read_recipe(network)
    image, affine = load_image(files, recipe["channels"])
    header = open_image(files[0]).header
    prepared, done = prepare(image, in_mm(affine, header), recipe["steps"])
    settings = dict(recipe["inferer"])
    runner = run_slices if settings.pop("kind") == "slices" else run_windows
    logits = runner(network, prepared, **settings)
    if not np.isfinite(logits).all():
        raise SystemExit(
            f"{files[0]}: {int((~np.isfinite(logits)).sum())} of {logits.size} values of the network's output are NaN "
            "or infinite, so no label map is made of it. Look for extreme intensities in the image, or export other "
            "weights."
        )
    probabilities = restore(activate(logits, recipe["activation"]), done)
    result = nibabel.Nifti1Image(merge(probabilities, **recipe["labels"]), affine)
    if "xyzt_units" in header:  # of the affine, which is the image's own
        result.header["xyzt_units"] = header["xyzt_units"]
    return result


def read_recipe(network: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What `segan-monai export onnx` wrote into the file."""
    text = network.get_modelmeta().custom_metadata_map.get(RECIPE)
    recipe = json.loads(text) if text else {}
    if "steps" not in recipe:
        why = recipe.get("without", "it was not written by `segan-monai export onnx`")
        raise SystemExit(f"this ONNX file does not say how volumes are prepared for it: {why}.")
    return recipe


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("image", type=Path, nargs="+", help="NIfTI: one 4-D image, or a 3-D image a modality, in order")
    parser.add_argument("--output", type=Path, required=True, help="label map to write, .nii or .nii.gz")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 for all")
    given = parser.parse_args(arguments)
    for file in (given.model, *given.image):
        if not file.is_file():
            raise SystemExit(f"{file}: there is no such file.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    begun = time.perf_counter()
    network = onnxruntime.InferenceSession(str(given.model), options, providers=["CPUExecutionProvider"])
    result = make_label_map(network, given.image)
    nibabel.save(result, given.output)
    print(f"written: {given.output} ({time.perf_counter() - begun:.1f} s)", file=sys.stderr)


if __name__ == "__main__":
    main()
