#!/usr/bin/env python3
# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Run an exported ONNX network on a NIfTI image. Requires only numpy, nibabel and onnxruntime; scipy for region_rules.

This is one long file on purpose: it can be copied to a machine without this package.

Example: python run_onnx.py model.onnx image.nii.gz --output label_map.nii.gz

The ONNX file, written by ``segan-monai export onnx``, contains all settings: orientation, intensities, slices or
windows, label values. The label map equals that of the bundle's inference.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnxruntime

RECIPE = "segan_monai"  # key of the recipe in the metadata of an ONNX file
SPACING_TOLERANCE_MM = 1e-3
GRID_TOLERANCE_VOXELS = 0.25
LEAST_SPACING_MM = 1e-4
LARGEST_EXTENT_MM = 1e4


# Header fields that define the position in space. A NIfTI has two affines, and programs differ in their choice: nibabel
# prefers the sform, ITK (3D Slicer, ITK-SNAP) often the qform.
PLACE = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


class LaxQuaternion:
    """Header mixin that reads the quaternion like the NIfTI C library, which ITK and FSL use.

    In single precision, the length of (b, c, d) may be rounded to just above 1, which nibabel rejects. Near a half
    turn, nibabel also rounds the angle by up to 0.001 radians.
    """

    def get_qform_quaternion(self: Any) -> np.ndarray:
        """Return the unit quaternion (a, b, c, d)."""
        b, c, d = (float(self[f"quatern_{part}"]) for part in "bcd")
        a = 1.0 - (b * b + c * c + d * d)
        if a < 1e-7:
            length = math.sqrt(b * b + c * c + d * d)
            return np.array([0.0, b / length, c / length, d / length])
        return np.array([math.sqrt(a), b, c, d])


class Nifti1Header(LaxQuaternion, nibabel.Nifti1Header):
    """NIfTI-1 in one file."""


class Nifti2Header(LaxQuaternion, nibabel.Nifti2Header):
    """NIfTI-2 in one file."""


class Nifti1PairHeader(LaxQuaternion, nibabel.nifti1.Nifti1PairHeader):
    """NIfTI-1 in two files."""


class Nifti1Pair(nibabel.Nifti1Pair):
    """NIfTI-1 in two files, ``.hdr`` and ``.img``."""

    header_class = Nifti1PairHeader


class Nifti1Image(nibabel.Nifti1Image):
    """NIfTI-1 in one file."""

    header_class = Nifti1Header


class Nifti2Image(nibabel.Nifti2Image):
    """NIfTI-2 in one file."""

    header_class = Nifti2Header


def kind_of_nifti(start: bytes) -> type[nibabel.Nifti1Image]:
    """Return the image class for NIfTI-1 or NIfTI-2 from the first four bytes, the header size."""
    is_nifti2 = 540 in (int.from_bytes(start[:4], order) for order in ("little", "big"))
    return Nifti2Image if is_nifti2 else Nifti1Image


def open_by_content(file: Path) -> Any:
    """Open a file, with gzip if its content is compressed, regardless of its name."""
    with file.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(file) if compressed else file.open("rb")


def open_nifti(file: Path) -> Any:
    """Open a NIfTI or Analyze image, reading only its header; gzip is recognised by content, not by name."""
    if file.suffix.lower() in (".hdr", ".img"):
        return nibabel.load(file) if raw_header(file) is None else Nifti1Pair.from_filename(file)
    stream = open_by_content(file)
    kind = kind_of_nifti(stream.read(4))
    stream.seek(0)
    holder = nibabel.FileHolder(fileobj=stream)
    return kind.from_file_map({"header": holder, "image": holder})


def affine_in_mm(image: Any) -> np.ndarray:
    """Return the affine (4, 4) of an image in mm, in the RAS frame.

    The sform is taken, as nibabel does. The qform is taken where there is one and the sform leads to an atlas (codes
    from 3 on) with voxels of another size than the header gives: an atlas has no patient's millimetres. Metres and
    microns are converted, as ITK does and nibabel does not.
    """
    affine = np.array(image.affine, dtype=float)
    if not isinstance(image, nibabel.Nifti1Pair):
        return affine
    header = image.header
    if header["sform_code"] >= 3 and header["qform_code"] > 0:
        spacing = header.get_zooms()[:3]
        if not np.allclose(nibabel.affines.voxel_sizes(affine)[: len(spacing)], spacing):
            affine = np.array(image.get_qform(), dtype=float)
    affine[:3] *= {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def raw_header(file: Path) -> nibabel.Nifti1Header | None:
    """Return the header of a NIfTI exactly as stored, without nibabel's sign corrections; None for other files."""
    if file.suffix.lower() == ".img":
        file = file.with_suffix(".hdr" if file.suffix == ".img" else ".HDR")
    with open_by_content(file) as stream:
        start = stream.read(540)
    header_class = kind_of_nifti(start).header_class
    block = start[: header_class.sizeof_hdr]
    if len(block) < header_class.sizeof_hdr:
        return None
    header = header_class(block, check=False)
    return header if bytes(header["magic"])[:3] in (b"n+1", b"ni1", b"n+2", b"ni2") else None


def shorten_quaternion(header: nibabel.Nifti1Header) -> None:
    """Scale a quaternion that is too long for nibabel to length 1, as ITK and FSL do when they read it.

    The target length is 1 + 5e-8, so that rounding to single precision cannot make it shorter than 1: ITK would then
    add a rotation of up to 0.0006 radians.
    """
    names = [f"quatern_{part}" for part in "bcd"]
    quaternion = np.array([header[name] for name in names], dtype=float)
    if quaternion @ quaternion - 1 >= abs(header.quaternion_threshold):
        for name, value in zip(names, quaternion / np.linalg.norm(quaternion) * (1 + 5e-8), strict=True):
            header[name] = value


def place_like(source: Path | None, image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """Return an image with the position in space of a NIfTI of the same shape, for nibabel, ITK and other programs.

    All header fields that define the position are copied as stored, so every program interprets both files alike.
    The exception is a quaternion that nibabel rejects, see ``shorten_quaternion``. Without a NIfTI source of that
    shape, sform and qform are both set to the image's affine.

    Args:
        source: source file; None or a file of another format if there is no NIfTI source.
        image: image to position.
    """
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    header = raw_header(source) if source is not None else None
    if header is None or header.get_data_shape()[:3] != image.shape[:3]:
        return image
    placed = nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header)
    for field in PLACE:  # last, because nibabel corrects signs in given headers
        placed.header[field] = header[field]
    placed.header["pixdim"][:4] = header["pixdim"][:4]
    shorten_quaternion(placed.header)
    return placed


def corner_distance(shape: Sequence[int], first: NDArray, second: NDArray) -> tuple[float, float]:
    """Return the largest distance between corresponding corner voxels of two volumes of one shape.

    Args:
        shape: (H, W, D), or (H, W) for a plane.
        first: affine (4, 4), in mm.
        second: affine (4, 4), in mm.

    Returns:
        Distance in voxels of ``first``, along the axis where it is largest, and in mm; NaN if an affine contains NaN.
    """
    corners = np.array([(*corner, 1.0) for corner in product(*((0, length - 1) for length in (*shape, 1, 1)[:3]))])
    apart_mm = (corners @ (second - first).T)[:, :3]
    apart_voxels = np.linalg.solve(first[:3, :3], apart_mm.T)
    return float(np.abs(apart_voxels).max()), float(np.linalg.norm(apart_mm, axis=1).max())


def spans_space(shape: Sequence[int], affine: NDArray) -> bool:
    """Return whether an affine is finite and invertible, with voxels and an extent that a scanner can produce.

    Args:
        shape: (H, W, D), or (H, W) for a plane.
        affine: affine (4, 4), in mm.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or sizes.min() < LEAST_SPACING_MM:
        return False
    extents = sizes * (*shape, 1, 1)[:3]
    return bool(extents.max() <= LARGEST_EXTENT_MM and abs(np.linalg.det(affine[:3, :3] / sizes)) > 0.01)


def load_image(
    files: Sequence[Path], channels: int, modalities: Sequence[str] = ()
) -> tuple[NDArray, nibabel.Nifti1Image]:
    """Read one 4-D image, or one 3-D image per modality, in the order of the training.

    Args:
        files: the images.
        channels: number of channels.
        modalities: their names, for messages.

    Returns:
        Voxels (C, H, W, D) in float32, and the first image.
    """
    images, arrays = [], []
    for file in files:
        try:
            image = open_nifti(file)
            array = np.asanyarray(image.dataobj)
        except Exception as error:  # OSError, EOFError, zlib.error, HeaderDataError, ...
            raise SystemExit(
                f"{file} cannot be read ({type(error).__name__}: {error}). It is truncated or damaged; copy or "
                "download it again. Expected a NIfTI or Analyze volume."
            ) from error
        images.append(image)
        arrays.append(array)
        if array.ndim not in (3, 4) and not (array.ndim == 5 and array.shape[3] == 1):
            raise SystemExit(f"{file} has the shape {array.shape}. Expected a 3-D volume, or a 4-D one of channels.")
        affine = affine_in_mm(image)
        if not spans_space(array.shape, affine):
            raise SystemExit(
                f"{file} has the affine {affine[:3].round(4).tolist()}, which is singular, not finite, or of a "
                "size that no scan has. Correct its header, or export it again."
            )
        if array.dtype.kind not in "iubf":
            raise SystemExit(f"{file} holds {array.dtype}. Expected real numbers; convert colours or complex numbers.")
    volumes = [array.astype(np.float32) for array in arrays]
    volumes = [volume[:, :, :, 0] if volume.ndim == 5 and volume.shape[3] == 1 else volume for volume in volumes]
    stacked = [v[None] if v.ndim == 3 else np.moveaxis(v, -1, 0) for v in volumes]
    if len({v.shape[1:] for v in stacked}) > 1:
        raise SystemExit(f"the images differ in shape: {[v.shape[1:] for v in stacked]}. Resample them to one grid.")
    for file, image in zip(files[1:], images[1:], strict=True):
        voxels_apart, mm = corner_distance(stacked[0].shape[1:], affine_in_mm(images[0]), affine_in_mm(image))
        if not voxels_apart <= GRID_TOLERANCE_VOXELS:
            raise SystemExit(
                f"corners of {files[0]} and {file} lie up to {mm:.3g} mm apart, {voxels_apart:.3g} voxels (tolerance "
                f"{GRID_TOLERANCE_VOXELS:g} voxels). Resample them to one grid."
            )
    voxels = np.concatenate(stacked)
    if len(voxels) != channels:
        named = f" ({', '.join(modalities)}, in this order)" if len(modalities) == channels > 1 else ""
        raise SystemExit(f"expected {channels} channels{named}, found {len(voxels)} in {', '.join(map(str, files))}.")
    if not np.isfinite(voxels).all():
        raise SystemExit(f"{', '.join(map(str, files))}: NaN or infinite voxels. Replace them.")
    return voxels, images[0]


def scale_percentiles(image: NDArray, lower: float, upper: float) -> NDArray:
    """Scale two percentiles of the non-zero voxels of each channel to 0 and 1, and clip."""
    result = np.zeros_like(image)
    for channel, scaled in zip(image, result, strict=True):
        values = channel[channel != 0]
        if values.size:
            low, high = np.percentile(values, [lower, upper])
            low = low if high > low else high - 1.0
            clipped = np.clip((channel - np.float32(low)) / np.float32(high - low), 0, 1)
            scaled[...] = clipped * (channel != 0)
    return result


def scale_by_head_median(image: NDArray) -> NDArray:
    """Scale the median of each channel's head (voxels above the mean) to 0.5; 0 outside the heads' bounding box."""
    result = np.zeros_like(image)
    heads = np.zeros(image.shape[1:], bool)
    for number, (channel, scaled) in enumerate(zip(image, result, strict=True)):
        if channel.min() == channel.max():
            continue
        head = channel > channel.mean(dtype=np.float64)
        median = float(np.median(channel[head]))
        if median <= 0:
            raise SystemExit(f"channel {number} has a median of {median:g} in the head. Expected magnitudes above 0.")
        scaled[...] = np.clip(channel / np.float32(2 * median), 0, 2)
        heads |= head
    inside = np.zeros_like(heads)
    inside[foreground_box(heads)] = True
    return result * inside


def scale_window(image: NDArray, lower: float, upper: float) -> NDArray:
    """Scale an intensity window to [0, 1] and clip."""
    return np.clip((image - np.float32(lower)) / np.float32(upper - lower), 0, 1)


def standardize(image: NDArray, nonzero: bool) -> NDArray:
    """Scale to mean 0 and standard deviation 1, optionally of the non-zero voxels only."""
    used = image != 0 if nonzero else np.ones(image.shape, bool)
    if not used.any():
        return image
    deviation = image[used].std(dtype=np.float64) or 1.0
    scaled = (image - np.float32(image[used].mean(dtype=np.float64))) / np.float32(deviation)
    return np.where(used, scaled, image)


def resize_weights(old: int, new: int) -> NDArray:
    """Return the matrix (new, old) of a bilinear resize with antialiasing: triangle filters around new pixels."""
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
        The image, and the steps for ``restore`` to undo, in order.
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
                    "bundle's own inference, which resamples."
                )
        elif kind == "crop":
            box = foreground_box(np.asarray((image > 0).any(0)))
            done.append((kind, (image.shape[1:], box)))
            image = image[of_all_channels(box)]
        elif kind == "foreground_percentiles":
            image = scale_percentiles(image, step["lower"], step["upper"])
        elif kind == "head_median":
            image = scale_by_head_median(image)
        elif kind == "window":
            image = scale_window(image, step["lower"], step["upper"])
        elif kind == "standardize":
            image = standardize(image, step["nonzero"])
        elif kind == "resize_planes":
            done.append((kind, image.shape[1:3]))
            image = resize_image_planes(image, step["size"])
        else:
            raise SystemExit(f"unknown step '{kind}' in the ONNX file: use a newer version of this script.")
    return np.ascontiguousarray(image, np.float32), done


def restore(maps: NDArray, done: Sequence[tuple[str, Any]]) -> NDArray:
    """Restore probabilities (K, ...) to the image's original grid."""
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
    """Return the index of a box in (C, H, W, D)."""
    return (slice(None), *box)


def foreground_box(mask: NDArray) -> tuple[slice, ...]:
    """Return the bounding box of a mask; the whole volume if the mask is empty."""
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
    mirror_axes: Sequence[int] = (),
) -> NDArray:
    """Apply a 2-D network to the slices of (C, H, W, D) across one axis, and restack to (K, H, W, D)."""
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
        result = run_mirrored(network, batch, axis, neighbours, mirror_axes)
        if output is None:
            output = np.full((len(slices), result.shape[1], *slices.shape[2:]), empty_value, np.float32)
        output[index, :, spans[0], spans[1]] = result[..., inside[0], inside[1]]
    if output is None:
        raise SystemExit("the image has no slices.")
    return np.moveaxis(output, 0, 1 + axis)


def run_mirrored(
    network: onnxruntime.InferenceSession, batch: NDArray, axis: int | None, neighbours: int, mirror_axes: Sequence[int]
) -> NDArray:
    """Return the mean logits of slices (N, C, U, V) over all combinations of mirrored axes of the volume.

    Without an axis, ``batch`` is windows (N, C, H, W, D).
    """
    useful = [mirror for mirror in mirror_axes if mirror != axis or neighbours]
    total: Any = 0
    # in the order of the bundle, so that the sums round alike
    for view in [view for count in range(len(useful) + 1) for view in combinations(useful, count)]:
        if axis is None:
            dims = tuple(mirror - 3 for mirror in view)
        else:
            dims = tuple(mirror - (mirror > axis) - 2 for mirror in view if mirror != axis)
        seen = np.flip(batch, dims)
        if axis in view:  # the neighbours change sides
            by_slice = seen.reshape(len(seen), 2 * neighbours + 1, -1, *seen.shape[2:])
            seen = by_slice[:, ::-1].reshape(seen.shape)
        logits = network.run(None, {network.get_inputs()[0].name: np.ascontiguousarray(seen)})[0]
        total = total + np.flip(logits, dims)
    return total / np.float32(2 ** len(useful))


def run_slices(network: onnxruntime.InferenceSession, image: NDArray, axes: Sequence[int], **settings: Any) -> NDArray:
    """Average ``run_slices_along`` over the axes: (C, H, W, D) to (K, H, W, D); see ``VolumeSliceInferer``."""
    return np.mean([run_slices_along(network, image, axis, **settings) for axis in axes], axis=0)


def window_starts(length: int, size: int, overlap: float) -> Iterator[int]:
    """Yield the start positions of the windows along one axis."""
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
    mirror_axes: Sequence[int] = (),
    margin: int | None = None,
    empty_value: float = 0.0,
) -> NDArray:
    """Apply a 3-D network to overlapping windows of (C, H, W, D); average with Gaussian weights to (K, H, W, D).

    With a margin, only the part around the content is segmented; the rest is ``empty_value``.
    """
    if margin is not None:
        spans = zip(foreground_box((image != 0).any(0)), image.shape[1:], strict=True)
        box = of_all_channels([slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in spans])
        within = run_windows(network, image[box], size, overlap, batch_size, sigma_scale, mirror_axes)
        output = np.full((len(within), *image.shape[1:]), empty_value, np.float32)
        output[box] = within
        return output
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
        results = run_mirrored(network, batch, None, 0, mirror_axes)
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
    """Convert logits (K, ...) to probabilities."""
    if kind == "softmax":
        odds = np.exp(logits - logits.max(0, keepdims=True))
        return odds / odds.sum(0, keepdims=True)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


def apply_rules(maps: NDArray, rules: Sequence[Sequence[float]]) -> NDArray:
    """Set a probability p to (1 + p) / 2 where a region's rule keeps it, and to 0 elsewhere.

    A rule is a threshold, the smallest fraction of the largest component, the smallest number of voxels, and whether to
    fill holes, which files of earlier versions omit.
    """
    kept = []
    for probability, (threshold, fraction, voxels, *fill_holes) in zip(maps, rules, strict=True):
        mask = probability >= threshold
        if fraction or voxels or any(fill_holes):
            try:
                from scipy.ndimage import binary_fill_holes, label
            except ImportError as error:
                raise SystemExit(f"scipy cannot be imported ({error}). Run: pip install scipy.") from error
            mask = binary_fill_holes(mask.squeeze()).reshape(mask.shape) if any(fill_holes) else mask
            components = label(mask, structure=np.ones((3, 3, 3)))[0]
            sizes = np.bincount(components.ravel())
            sizes[0] = 0
            mask = ((sizes > 0) & (sizes >= fraction * sizes.max()) & (sizes >= voxels))[components]
        kept.append(mask)
    return (1 + maps) / 2 * np.stack(kept)


def merge(maps: NDArray, values: Sequence[int], rule: str, threshold: float, order: Sequence[int]) -> NDArray:
    """Convert probabilities (K, H, W, D) to one label map (H, W, D), uint8."""
    if rule == "argmax":
        return np.array(values, np.uint8)[maps.argmax(0)]
    if rule == "highest":
        merged = np.array(values, np.uint8)[maps.argmax(0)]
        return np.where(maps.max(0) < threshold, 0, merged).astype(np.uint8)
    merged = np.zeros(maps.shape[1:], np.uint8)
    for index in order:
        merged[maps[index] >= threshold] = values[index]
    return merged


def predict(network: onnxruntime.InferenceSession, files: Sequence[Path]) -> tuple[NDArray, nibabel.Nifti1Image]:
    """Return the probabilities (K, H, W, D) of an image on its grid, after the rules of the regions, and the image."""
    recipe = read_recipe(network)
    modalities = recipe.get("settings", {}).get("modalities", ())
    image, source = load_image(files, recipe["channels"], modalities)
    prepared, done = prepare(image, affine_in_mm(source), recipe["steps"])
    settings = dict(recipe["inferer"])
    runner = run_slices if settings.pop("kind") == "slices" else run_windows
    logits = runner(network, prepared, **settings)
    if not np.isfinite(logits).all():
        raise SystemExit(
            f"{files[0]}: {int((~np.isfinite(logits)).sum())} of {logits.size} values of the network's output are NaN "
            "or infinite, so no label map is written. Check the image for extreme intensities, or export other "
            "weights."
        )
    probabilities = restore(activate(logits, recipe["activation"]), done)
    if "rules" in recipe:
        probabilities = apply_rules(probabilities, recipe["rules"])
    return probabilities, source


def make_label_map(network: onnxruntime.InferenceSession, files: Sequence[Path]) -> nibabel.Nifti1Image:
    """Return the label map of an image, which lies on the image in every program."""
    probabilities, source = predict(network, files)
    merged = merge(probabilities, **read_recipe(network)["labels"])
    return place_like(files[0], nibabel.Nifti1Image(merged, affine_in_mm(source)))


def read_recipe(network: onnxruntime.InferenceSession) -> dict[str, Any]:
    """Read the recipe that ``segan-monai export onnx`` wrote to the file."""
    text = network.get_modelmeta().custom_metadata_map.get(RECIPE)
    recipe = json.loads(text) if text else {}
    if "steps" not in recipe:
        why = recipe.get("without", "it was not written by `segan-monai export onnx`")
        raise SystemExit(f"this ONNX file does not describe the preprocessing of volumes: {why}.")
    return recipe


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("image", type=Path, nargs="+", help="NIfTI: one 4-D image, or one 3-D image per modality")
    parser.add_argument("--output", type=Path, required=True, help="label map to write, .nii or .nii.gz")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for all")
    given = parser.parse_args(arguments)
    for file in (given.model, *given.image):
        if not file.is_file():
            what = "it is a folder; expected a file" if file.is_dir() else "there is no such file"
            raise SystemExit(f"{file}: {what}.")
    try:
        import onnxruntime
    except ImportError as error:
        raise SystemExit(f"onnxruntime cannot be imported ({error}). Run: pip install onnxruntime.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    begun = time.perf_counter()
    try:
        network = onnxruntime.InferenceSession(str(given.model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one type for each cause
        text = f"{given.model} is no ONNX file that this onnxruntime reads ({str(error).splitlines()[0]})."
        raise SystemExit(f"{text} Give the model first, then the images.") from error
    result = make_label_map(network, given.image)
    nibabel.save(result, given.output)
    print(f"written: {given.output} ({time.perf_counter() - begun:.1f} s)", file=sys.stderr)


if __name__ == "__main__":
    main()
