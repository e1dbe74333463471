# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Growth of phantom tumours: place, outline, parts and mass effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segan_monai.simulation.anatomy import Head, tumour_sites
from segan_monai.simulation.noise import Floats, random_matrix, smooth_noise

Grade = Literal["HGG", "LGG"]

NECROSIS, OEDEMA, NON_ENHANCING, ENHANCING = 1, 2, 3, 4  # the label map of a `Phantom`


@dataclass
class Tumour:
    """Tumour on the grid of the simulated box, with the tissue that it displaces.

    Attributes:
        label: parts of the tumour, (H, W, D).
        swelling: fraction of oedema (0 to 1), which fades beyond the border of the label.
        csf: fraction of cerebrospinal fluid (0 to 1).
        grey: fraction of healthy grey matter (0 to 1).
        white: fraction of healthy white matter (0 to 1).
        around: vicinity of the ventricles (0 to 1).
    """

    label: NDArray[np.uint8]
    swelling: Floats
    csf: Floats
    grey: Floats
    white: Floats
    around: Floats


def grow_tumour(
    rng: np.random.Generator, axes: Sequence[Floats], head: Head, grade: Grade, mass_effect: bool
) -> Tumour:
    """Draw place, size and outline of a tumour, and displace the tissue around its core.

    The outlines are level sets of an ellipsoid's distance plus smooth noise, on the final grid. The tissue is then
    sampled at displaced points. Labels are therefore never warped and agree with the images by construction.
    """
    high = grade == "HGG"
    whole_mm = np.exp(rng.uniform(np.log(12), np.log(32)))
    core_mm = whole_mm * (rng.uniform(0.55, 0.85) if high else rng.uniform(0.6, 0.9))
    rim_mm = rng.uniform(2.5, 8.0)
    pushed = rng.uniform(0.2, 0.75)  # the part of the core's volume that is new and not infiltrated
    spread = rng.uniform(0.3, 0.6)  # how strongly oedema avoids grey matter
    enhances = high or rng.random() < 0.4

    target = tumour_sites()[int(rng.random() * len(tumour_sites()))]
    gap = sum((head.mni[row] - np.float32(target[row])) ** 2 for row in range(3))
    index = np.unravel_index(np.argmin(np.where(head.brain, gap, np.inf)), gap.shape)
    nearest = np.array([plane[index] for plane in head.mni])
    beside = np.linalg.inv(head.matrix) @ (target - nearest)  # mm; the site lies between voxels
    from_centre = [axis - np.float32(axis[i] + b) for axis, i, b in zip(axes, index, beside, strict=True)]
    grid = np.meshgrid(*from_centre, indexing="ij", sparse=True)
    shift = None
    if mass_effect:
        # an incompressible push: a ball of new tissue moves what lay at radius s to r with r^3 = s^3 + pushed * core^3;
        # it fades towards the skull, which does not give way, and far away
        radius = np.sqrt(sum(x**2 for x in grid)) + np.float32(1e-3)
        source = np.cbrt(np.maximum(radius**3 - np.float32(pushed * core_mm**3), (0.15 * radius) ** 3))
        fade = np.clip(head.depth / 15, 0, 1) * np.exp(-0.5 * (radius / (3.0 * core_mm)) ** 2)
        factor = fade * (source / radius - 1)
        shift = np.stack([factor * x for x in grid]).astype(np.float32)

    t1, grey, white, around = (head.sample(name, shift) for name in ("t1", "grey", "white", "around"))
    # the template's sulci are narrow, being an average; its T1 image tells where they are
    csf = np.maximum(1 - grey - white, np.clip((head.atrophy - t1) / (head.atrophy - 0.3), 0, 1)) * head.brain
    tissue = (1 - csf) / np.maximum(grey + white, 1e-3)
    grey, white = grey * tissue * head.brain, white * tissue * head.brain

    shapes = [np.linalg.inv(random_matrix(rng, scale=0.16, degrees=60)) for _ in range(2)]
    to_whole, to_core = (
        np.sqrt(sum((row[0] * grid[0] + row[1] * grid[1] + row[2] * grid[2]) ** 2 for row in shape.astype(np.float32)))
        for shape in shapes
    )
    coarse, fine, patches = (smooth_noise(rng, axes, knot_mm) for knot_mm in (11, 5, 7))
    other_side = np.sign(target[0]) * head.mni[0] < 0
    to_whole = to_whole / whole_mm * (0.85 + spread * grey) + 0.14 * coarse + 0.05 * fine + 0.8 * csf + 0.3 * other_side
    to_core = to_core / core_mm + 0.17 * coarse + 0.12 * fine + 0.5 * csf + 0.4 * other_side

    core = (to_core < 1) & head.brain
    whole = core | ((to_whole < 1) & (csf < 0.5) & head.brain)
    parts, _ = ndimage.label(whole)
    whole = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])  # noise leaves fragments far away
    core &= whole
    rim = core & (to_core > 1 - rim_mm / core_mm * np.clip(1 + 0.6 * patches, 0.1, 2))
    label = np.where(whole, OEDEMA, 0).astype(np.uint8)
    if high:
        label[core] = NECROSIS
        label[rim] = ENHANCING
        label[core & (patches - 0.5 * fine > 1.4)] = NON_ENHANCING
    else:
        label[core] = NON_ENHANCING
        if enhances:
            label[core & (patches > 1.3)] = ENHANCING
    swelling = np.clip((1.12 - to_whole) / 0.5, 0, 1) * (ndimage.uniform_filter(whole.astype(np.float32), 5) > 0)
    return Tumour(label, swelling, csf, grey, white, around)
