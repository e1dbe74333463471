# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checking, copying and reducing a photograph and its mask."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segan_monai.errors import DataError
from segan_monai.files import whole_file
from segan_monai.prepare.options import PrepareOptions
from segan_monai.transforms.load_photograph import check_size, read_mask, read_photograph

_QUALITY = 95
_CHECKED_AT = (128, 128)


def prepare_photograph(case: Mapping[str, Any], folder: Path, options: PrepareOptions) -> dict[str, Any]:
    """Copy or reduce a photograph and its mask.

    At full size, files are copied byte for byte, because re-encoding a JPEG loses quality. Reduced photographs are JPEG
    of quality 95 [ours], rotated according to EXIF; masks are PNG, resized by nearest neighbour.

    Args:
        case: Case from ``segan_monai.prepare.sources``, with its ``section``.
        folder: Parent folder of ``imagesTr/<case>.jpg`` and ``labelsTr/<case>.png`` (``Ts`` for the section ``test``).
        options: Preparation settings.

    Returns:
        ``image`` and ``label``, paths relative to ``folder``, and ``notes``.

    Raises:
        DataError: A photograph or mask is damaged; a mask has another size, or values other than 0 and 255.
        OutputError: A file cannot be written.
    """
    section = "Ts" if case["section"] == "test" else "Tr"
    source = Path(case["image"])
    pixels, (columns, rows) = read_photograph(source, _CHECKED_AT)  # decodes the whole file
    scale = min(1.0, (options.longest_side_px or max(columns, rows)) / max(columns, rows))
    small = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    suffix = source.suffix.lower() if scale == 1 else ".jpg"
    entry: dict[str, Any] = {"image": f"images{section}/{case['case']}{suffix}", "notes": []}
    mask = None
    if "label" in case:
        mask_file = Path(case["label"])
        mask = read_mask(mask_file)
        check_size(mask_file, mask.size, source, (columns, rows))
        if unknown := sorted(set(np.unique(np.asarray(mask)).tolist()) - {0, 255}):
            raise DataError(
                f"{mask_file} has the values {', '.join(map(str, unknown[:8]))}. Expected a mask of 0 and 255; "
                "threshold it, or take the one from the challenge's site."
            )
        entry["label"] = f"labels{section}/{case['case']}{mask_file.suffix.lower() if scale == 1 else '.png'}"
    for key in ("image", "label"):
        if key not in entry:
            continue
        target = folder / entry[key]
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as temporary:
            if scale == 1:
                shutil.copyfile(case[key], temporary)
            elif key == "image":
                pixels, _ = read_photograph(source, small)
                Image.fromarray(np.ascontiguousarray(pixels.swapaxes(0, 1))).save(temporary, quality=_QUALITY)
            elif mask is not None:
                mask.resize(small, Image.Resampling.NEAREST).save(temporary, optimize=True)
    if scale < 1:
        entry["notes"].append(f"reduced from {columns} x {rows} to {small[0]} x {small[1]}")
    return entry
