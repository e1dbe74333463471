# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a case's slices for the report, with outlines of reference and prediction as overlays."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from segan_monai.report.previews import CasePreview

SHORTEST_SIDE = 220  # of a panel, in screen pixels: small slices are enlarged so that outlines stay thin
PALETTE = ((228, 26, 28), (255, 217, 47), (55, 190, 255), (77, 255, 77), (255, 127, 0), (247, 129, 191))


def slice_pictures(preview: CasePreview) -> list[dict[str, str]]:
    """Draw three pictures per slice, as data URIs: ``image`` (all panels side by side), ``reference``, ``prediction``.

    Outlines are drawn on the mask's own boundary voxels, solid for references and dashed for predictions, with one
    colour per region.
    """
    factor = max(1, round(SHORTEST_SIDE / max(1, min(preview.image.shape[2:4]))))
    return [
        {
            "image": _uri(_enlarge(np.concatenate(list(panels), axis=1), factor, preview.aspect), "JPEG"),
            "reference": _uri(_outlines(truth, factor, preview, False), "PNG"),
            "prediction": _uri(_outlines(found, factor, preview, True, boxes), "PNG"),
        }
        for panels, truth, found, boxes in zip(
            preview.image,
            preview.reference,
            preview.prediction,
            preview.boxes or [[]] * len(preview.image),
            strict=True,
        )
    ]


def _enlarge(pixels: NDArray[Any], factor: int, aspect: float) -> Image.Image:
    size = (pixels.shape[1] * factor, max(1, round(pixels.shape[0] * factor * aspect)))
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)


def _outlines(
    masks: NDArray[Any], factor: int, preview: CasePreview, dashed: bool, boxes: Sequence[Sequence[float]] = ()
) -> Image.Image:
    height, width = masks.shape[1:]
    size = (width * factor, max(1, round(height * factor * preview.aspect)))
    drawn = np.zeros((size[1], size[0], 4), np.uint8)
    rows, columns = np.indices(size[::-1])
    dash = (rows + columns) // 4 % 2 == 0
    for mask, colour in zip(masks, _colours(len(masks)), strict=True):
        large = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0
        edge = large & ~ndimage.binary_erosion(large, iterations=1 if factor < 3 else 2)
        drawn[edge & dash if dashed else edge] = (*colour, 255)
    for left, top, right, bottom in boxes:
        x = np.clip(np.round([left * factor, right * factor]).astype(int), 0, size[0] - 1)
        y = np.clip(np.round(np.multiply([top, bottom], factor * preview.aspect)).astype(int), 0, size[1] - 1)
        frame = np.zeros(size[::-1], bool)
        frame[y[0] : y[1] + 1, x] = frame[y, x[0] : x[1] + 1] = True
        drawn[frame & ((rows + columns) // 2 % 2 == 0)] = 255
    tiled = np.concatenate([drawn] * preview.image.shape[1], axis=1)
    return Image.fromarray(tiled)


def _colours(count: int) -> list[tuple[int, int, int]]:
    return [PALETTE[index % len(PALETTE)] for index in range(count)]


def region_colours(regions: Sequence[str]) -> dict[str, str]:
    """Return the outline colour of each region in CSS."""
    return {region: f"rgb{colour}" for region, colour in zip(regions, _colours(len(regions)), strict=True)}


def _uri(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    if kind == "JPEG":
        picture.save(buffer, "JPEG", quality=85)
    else:
        picture.quantize(16).save(buffer, "PNG", optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
