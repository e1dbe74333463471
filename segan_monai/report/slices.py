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

from segan_monai.report.previews import CasePreview

SHORTEST_SIDE = 300  # of a panel, in screen pixels: small slices are enlarged so that outlines stay thin
PALETTE = ((255, 217, 47), (240, 60, 60), (55, 190, 255), (77, 255, 77), (255, 127, 0), (247, 129, 191))


def slice_pictures(preview: CasePreview) -> list[dict[str, str]]:
    """Draw three pictures per slice, as data URIs: ``image`` (all panels side by side), ``reference``, ``prediction``.

    Outlines have one colour per region: wide solid lines for references, narrow dashed ones with black gaps for
    predictions.
    """
    height, width = preview.image.shape[2:4]
    factor = max(1, round(SHORTEST_SIDE / max(1, min(height, width))))
    scale = factor, factor * preview.aspect
    return [
        {
            "image": _uri("image/jpeg", _enlarged(np.concatenate(list(panels), axis=1), factor, preview.aspect)),
            "reference": _uri("image/svg+xml", _drawing(preview, scale, _reference(truth, scale))),
            "prediction": _uri(
                "image/svg+xml", _drawing(preview, scale, _prediction(found, scale) + _frames(boxes, scale))
            ),
        }
        for panels, truth, found, boxes in zip(
            preview.image,
            preview.reference,
            preview.prediction,
            preview.boxes or [[]] * len(preview.image),
            strict=True,
        )
    ]


def _enlarged(pixels: NDArray[Any], factor: int, aspect: float) -> bytes:
    size = (pixels.shape[1] * factor, max(1, round(pixels.shape[0] * factor * aspect)))
    buffer = io.BytesIO()
    large = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)
    large.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _drawing(preview: CasePreview, scale: tuple[float, float], content: str) -> bytes:
    """Return an SVG picture of the size of all panels, with the content in each of them."""
    height, width = preview.image.shape[2:4]
    across, down = width * scale[0], max(1, round(height * scale[1]))
    panels = preview.image.shape[1]
    copies = "".join(f'<use href="#panel" x="{number * across:g}"/>' for number in range(1, panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{panels * across:g}" height="{down}">'
        f'<g id="panel" fill="none" stroke-linejoin="round">{content}</g>{copies}</svg>'
    ).encode()


def _reference(masks: NDArray[Any], scale: tuple[float, float]) -> str:
    """Return wide solid outlines of masks (R, H, W) as SVG."""
    return _outlines([_path(mask, scale) for mask in masks], _colours(len(masks)), 'stroke-width="2.5"')


def _prediction(masks: NDArray[Any], scale: tuple[float, float]) -> str:
    """Return narrow dashed outlines of masks (R, H, W) as SVG; with black gaps, they stand out on a reference too."""
    paths = [_path(mask, scale) for mask in masks]
    gaps = _outlines(paths, ["black"] * len(paths), 'stroke-width="2.5"')
    return gaps + _outlines(paths, _colours(len(paths)), 'stroke-width="1.7" stroke-dasharray="6 4"')


def _outlines(paths: Sequence[str], colours: Sequence[str], style: str) -> str:
    drawn = zip(paths, colours, strict=True)
    return "".join(f'<path d="{path}" stroke="{colour}" {style}/>' for path, colour in drawn if path)


def _path(mask: NDArray[Any], scale: tuple[float, float]) -> str:
    """Return the boundary of a mask (H, W) halfway between its voxels and those around it."""
    from contourpy import contour_generator  # a library that matplotlib is built on

    lines = contour_generator(z=np.pad(mask, 1).astype(np.float32)).lines(0.5)
    points = [np.round((np.asarray(line) - 0.5) * scale, 1) for line in lines]  # the padding moves voxel centres by 1
    return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in line[:-1]) + "Z" for line in points)


def _frames(boxes: Sequence[Sequence[float]], scale: tuple[float, float]) -> str:
    """Return the RoIs of a slice as rectangles."""
    return "".join(
        f'<rect x="{left * scale[0]:.1f}" y="{top * scale[1]:.1f}" width="{(right - left) * scale[0]:.1f}" '
        f'height="{(bottom - top) * scale[1]:.1f}" stroke="white" stroke-width="1.5" stroke-dasharray="2 3"/>'
        for left, top, right, bottom in boxes
    )


def _colours(count: int) -> list[str]:
    return [f"rgb{PALETTE[index % len(PALETTE)]}" for index in range(count)]


def region_colours(regions: Sequence[str]) -> dict[str, str]:
    """Return the outline colour of each region in CSS."""
    return dict(zip(regions, _colours(len(regions)), strict=True))


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
