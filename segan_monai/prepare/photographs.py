# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A photograph and its mask: checked, and copied or reduced."""

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
    """Copy a photograph and its mask, or write them smaller.

    As they are, files are copied byte for byte: JPEG only loses by being written again. Reduced photographs are JPEG of
    quality 95 [ours], turned as EXIF says; masks are PNG by nearest neighbour.

    Args:
        case: as `segan_monai.prepare.sources` finds it, with its ``section``.
        folder: gets ``imagesTr/<case>.jpg`` and ``labelsTr/<case>.png`` (``Ts`` for the section ``test``).
        options: see there.

    Returns:
        ``image`` and ``label``, paths below `folder`, and ``notes``.

    Raises:
        DataError: a damaged photograph or mask, masks of another size or with values that are not 0 and 255.
        OutputError: a file cannot be written.
    """
    section = "Ts" if case["section"] == "test" else "Tr"
    source = Path(case["image"])
    pixels, (columns, rows) = read_photograph(source, _CHECKED_AT)  # decodes all of it
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
