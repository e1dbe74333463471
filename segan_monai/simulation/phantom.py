# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Phantoms: simulated gliomas in the MNI152 brain, without patient data and without a network.

A phantom is made in four steps, one function each:

1. ``make_head`` draws the anatomy of a subject.
2. ``grow_tumour`` draws the extent of a tumour.
3. ``mix_tissues`` determines the composition of every voxel.
4. ``acquire`` simulates the scanner.

Contrast follows from the spin-echo equations and from relaxation times, not from painted grey values, so regions
overlap in intensity as they do in patients. Every number in these modules is [ours].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segan_monai.errors import ConfigError
from segan_monai.simulation.anatomy import make_head
from segan_monai.simulation.appearance import acquire, mix_tissues
from segan_monai.simulation.noise import FIELD_OF_VIEW_MM, smooth_noise
from segan_monai.simulation.tumour import ENHANCING, NECROSIS, NON_ENHANCING, OEDEMA, Grade, grow_tumour

__all__ = [
    "ENHANCING",
    "NECROSIS",
    "NON_ENHANCING",
    "OEDEMA",
    "Grade",
    "Phantom",
    "check_spacing",
    "make_phantom",
    "smooth_noise",
]

_BRAIN_BOX_MM = np.array([184.0, 216.0, 155.0])  # the middle of the field of view, which contains all brains
_SPACING_RANGE_MM = (1.0, 8.0)


@dataclass(frozen=True)
class Phantom:
    """Simulated subject.

    Attributes:
        images: ``t1``, ``t1c``, ``t2`` and ``flair``, each int16 (H, W, D) in an arbitrary unit, 0 outside the brain.
        label: uint8 (H, W, D): 0 none, 1 necrosis, 2 oedema, 3 non-enhancing and 4 enhancing tumour.
        affine: (4, 4), voxel to RAS mm; at 1 mm that of BraTS.
        grade: "HGG" (enhancing rim around necrosis) or "LGG" (little or no enhancement).
        seed: the seed given to ``make_phantom``.
    """

    images: dict[str, NDArray[np.int16]]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    grade: Grade
    seed: int | Sequence[int]


def make_phantom(
    seed: int | Sequence[int], spacing_mm: float = 1.0, grade: Grade | None = None, mass_effect: bool = True
) -> Phantom:
    """Simulate one subject: a brain, a glioma in it, and the four images of BraTS.

    The same seed gives the same subject at every spacing, except for fine texture and noise.

    Args:
        seed: one number or several, as accepted by ``numpy.random.default_rng``.
        spacing_mm: edge of a voxel; 1 gives BraTS's 240 x 240 x 155 voxels, others the same field of view.
        grade: "HGG", "LGG", or None to draw one with odds of four to one.
        mass_effect: whether the tumour displaces the surrounding tissue; its shape is the same either way.

    Raises:
        ConfigError: ``spacing_mm`` or ``grade`` is out of range.
    """
    check_spacing(spacing_mm)
    if grade not in (None, "HGG", "LGG"):
        raise ConfigError(f"grade is {grade!r}, expected 'HGG', 'LGG' or None to draw one")
    rng = np.random.default_rng(seed)
    drawn: Grade = "HGG" if rng.random() < 0.8 else "LGG"
    grade = grade or drawn

    shape = tuple(int(n) for n in np.ceil(FIELD_OF_VIEW_MM / spacing_mm))
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = np.array([0.5, 239.5, -0.5]) + 0.5 * spacing_mm * np.array([-1, -1, 1])
    origin = affine[:3, 3] - (-119.5, 119.5, 77.0)  # from the centre of the field of view
    axes = [start + step * np.arange(n) for start, step, n in zip(origin, np.diag(affine)[:3], shape, strict=True)]
    inside = [np.flatnonzero(np.abs(axis) <= size / 2) for axis, size in zip(axes, _BRAIN_BOX_MM, strict=True)]
    box = tuple(slice(index[0], index[-1] + 1) for index in inside)
    axes = [axis[part].astype(np.float32) for axis, part in zip(axes, box, strict=True)]

    # one generator per step, so that a setting of one step does not change the random numbers of the others
    head_rng, tumour_rng, mix_rng, scan_rng = rng.spawn(4)
    head = make_head(head_rng, axes, spacing_mm)
    tumour = grow_tumour(tumour_rng, axes, head, grade, mass_effect)
    fractions = mix_tissues(mix_rng, axes, head, tumour, spacing_mm)
    scans = acquire(scan_rng, axes, fractions, head.brain, spacing_mm)

    label = np.zeros(shape, np.uint8)
    label[box] = tumour.label
    images = {name: np.zeros(shape, np.int16) for name in scans}
    for name, scan in scans.items():
        images[name][box] = scan
    return Phantom(images, label, affine, grade, seed)


def check_spacing(spacing_mm: float) -> None:
    """Raise ``ConfigError`` for a voxel size outside the supported range."""
    low, high = _SPACING_RANGE_MM
    if not low <= spacing_mm <= high:
        raise ConfigError(f"spacing is {spacing_mm} mm, expected {low:g} to {high:g}: the MNI152 brain has 1 mm voxels")
