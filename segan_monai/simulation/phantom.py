# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Phantoms: simulated gliomas in the MNI152 brain. No patient, no network.

A phantom is made in four steps, one function each: the anatomy of a subject (`_make_head`), the extent of a tumour
(`_grow_tumour`), what every voxel consists of (`_mix_tissues`) and how a scanner sees it (`_acquire`). Contrast follows
from the spin-echo equations and from relaxation times, not from painted grey values, so regions overlap in intensity as
they do in patients. Every number below is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segan_monai.errors import ConfigError

Grade = Literal["HGG", "LGG"]
Floats = NDArray[np.float32]

NECROSIS, OEDEMA, NON_ENHANCING, ENHANCING = 1, 2, 3, 4  # the label map of a `Phantom`
MARK = "SIMULATED phantom (segan-monai)"  # goes to every file header; NIfTI's `descrip` holds 79 characters

_FIELD_OF_VIEW_MM = np.array([240.0, 240.0, 155.0])
_BRAIN_BOX_MM = np.array([184.0, 216.0, 155.0])  # the middle of the field of view, in which all brains lie
_MNI_AT_CENTRE_MM = np.array([0.0, -17.0, 14.0])  # MNI152 point that comes to lie at the centre of the field of view
_MNI_ORIGIN = np.array([98, 134, 72], np.float32)  # voxel of the MNI152 maps, 1 mm wide, that is MNI's origin
_SPACING_RANGE_MM = (1.0, 8.0)

# T1 ms, T2 ms, proton density at 1.5 T to 3 T, and the shortening of T1 by contrast agent (1/s)
_TISSUES = {
    "csf": (4000, 1000, 1.00, 0.0),
    "grey": (1330, 102, 0.82, 0.05),
    "white": (830, 80, 0.70, 0.02),
    "oedema": (1400, 185, 0.86, 0.02),
    "necrosis": (2500, 260, 0.94, 0.05),
    "non-enhancing": (1600, 185, 0.88, 0.08),
    "enhancing": (1450, 125, 0.85, 1.30),
    "vessel": (1600, 60, 0.75, 1.60),  # vessels, choroid plexus and dura: the enhancement that is no tumour
}
# repetition, echo and inversion time in ms; T1c is T1 after contrast agent
_SPIN_ECHO, _INVERSION_RECOVERY = (550, 10, 0), (2000, 4, 850)  # the two ways to make a T1 image
_SEQUENCES = {"t1": _SPIN_ECHO, "t1c": _SPIN_ECHO, "t2": (5000, 100, 0), "flair": (9000, 115, 2450)}


@dataclass(frozen=True)
class Phantom:
    """One simulated subject.

    Attributes:
        images: `t1`, `t1c`, `t2` and `flair`, each int16 (H, W, D) in a unit of its own, 0 outside the brain.
        label: uint8 (H, W, D): 0 none, 1 necrosis, 2 oedema, 3 non-enhancing and 4 enhancing tumour.
        affine: (4, 4), voxel to RAS mm; BraTS's own at 1 mm.
        grade: "HGG" (enhancing rim around necrosis) or "LGG" (little or no enhancement).
        seed: what `make_phantom` was given.
    """

    images: dict[str, NDArray[np.int16]]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    grade: Grade
    seed: int | Sequence[int]


def make_phantom(
    seed: int | Sequence[int], spacing_mm: float = 1.0, grade: Grade | None = None, mass_effect: bool = True
) -> Phantom:
    """Simulates one subject: a brain, a glioma in it, and the four images of BraTS.

    The same seed gives the same subject at every spacing (fine texture and noise aside).

    Args:
        seed: one number or several, as `numpy.random.default_rng` takes them.
        spacing_mm: edge of a voxel; 1 gives BraTS's 240 x 240 x 155 voxels, others the same field of view.
        grade: "HGG", "LGG", or None to draw it, four to one.
        mass_effect: whether the tumour pushes the tissue around it away. The tumour's shape is drawn alike.

    Raises:
        ConfigError: `spacing_mm` or `grade` is out of range.
    """
    check_spacing(spacing_mm)
    if grade not in (None, "HGG", "LGG"):
        raise ConfigError(f"grade is {grade!r}, expected 'HGG', 'LGG' or None to draw one")
    rng = np.random.default_rng(seed)
    drawn: Grade = "HGG" if rng.random() < 0.8 else "LGG"
    grade = grade or drawn

    shape = tuple(int(n) for n in np.ceil(_FIELD_OF_VIEW_MM / spacing_mm))
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = np.array([0.5, 239.5, -0.5]) + 0.5 * spacing_mm * np.array([-1, -1, 1])
    origin = affine[:3, 3] - (-119.5, 119.5, 77.0)  # from the centre of the field of view
    axes = [start + step * np.arange(n) for start, step, n in zip(origin, np.diag(affine)[:3], shape, strict=True)]
    inside = [np.flatnonzero(np.abs(axis) <= size / 2) for axis, size in zip(axes, _BRAIN_BOX_MM, strict=True)]
    box = tuple(slice(index[0], index[-1] + 1) for index in inside)
    axes = [axis[part].astype(np.float32) for axis, part in zip(axes, box, strict=True)]

    # one generator a step, so that a setting of one step does not change what the others draw
    head_rng, tumour_rng, mix_rng, scan_rng = rng.spawn(4)
    head = _make_head(head_rng, axes, spacing_mm)
    tumour = _grow_tumour(tumour_rng, axes, head, grade, mass_effect)
    fractions = _mix_tissues(mix_rng, axes, head, tumour, spacing_mm)
    scans = _acquire(scan_rng, axes, fractions, head.brain, spacing_mm)

    label = np.zeros(shape, np.uint8)
    label[box] = tumour.label
    images = {name: np.zeros(shape, np.int16) for name in scans}
    for name, scan in scans.items():
        images[name][box] = scan
    return Phantom(images, label, affine, grade, seed)


# ---------------------------------------------------------------------------------------------------------------------
# Building blocks
# ---------------------------------------------------------------------------------------------------------------------


def smooth_noise(rng: np.random.Generator, axes: Sequence[Floats], knot_mm: float) -> Floats:
    """Gaussian noise of mean 0 and variance 1 at every point, smooth over about `knot_mm`.

    Knots cover the whole field of view whatever part of it `axes` span, so parts and spacings see the same field.

    Args:
        rng: draws one number a knot.
        axes: coordinates in mm along each of the three axes, 0 at the centre of the field of view.
        knot_mm: distance of the knots of the separable Gaussian basis.

    Returns:
        float32 of shape (len(axes[0]), len(axes[1]), len(axes[2])).
    """
    bases = []
    for axis, extent in zip(axes, _FIELD_OF_VIEW_MM, strict=True):
        half = int(np.ceil(extent / 2 / knot_mm)) + 2
        knots = knot_mm * np.arange(-half, half + 1)
        basis = np.exp(-0.5 * ((axis[:, None] - knots) / (0.8 * knot_mm)) ** 2)
        bases.append((basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32))
    field = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    # plain einsum and not BLAS, whose sums depend on the number of threads
    field = np.einsum("zc,abc->abz", bases[2], field)
    field = np.einsum("yb,abz->ayz", bases[1], field)
    return np.einsum("xa,ayz->xyz", bases[0], field)


def _blur(image: Floats, sigma_mm: float, spacing_mm: float) -> Floats:
    return ndimage.gaussian_filter(image, sigma_mm / spacing_mm)


def _random_matrix(rng: np.random.Generator, scale: float, degrees: float) -> NDArray[np.float64]:
    """A rotation of about `degrees` about a random axis times a log-normal scaling of each axis."""
    x, y, z = np.deg2rad(degrees) * rng.standard_normal(3)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.linalg.qr(np.eye(3) + skew)[0]
    rotation *= np.sign(np.diag(rotation))
    return rotation @ np.diag(np.exp(scale * rng.standard_normal(3)))


# ---------------------------------------------------------------------------------------------------------------------
# Anatomy
# ---------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _template(spacing_mm: float) -> dict[str, Floats]:
    """The MNI152 maps at 1 mm, blurred to what voxels of `spacing_mm` can hold, each float32 (197, 233, 189).

    `t1` (0 to 1), `grey` and `white` (fractions), `depth` (mm below the surface, at most 25) and `around` (0 to 1,
    near the ventricles).
    """
    if spacing_mm > 1:
        return {name: _blur(array, 0.4 * (spacing_mm - 1), 1.0) for name, array in _template(1.0).items()}
    from nilearn import datasets

    maps = {
        "t1": datasets.load_mni152_template(resolution=1),
        "grey": datasets.load_mni152_gm_template(resolution=1),
        "white": datasets.load_mni152_wm_template(resolution=1),
        "brain": datasets.load_mni152_brain_mask(resolution=1),
    }
    arrays = {name: np.asarray(image.dataobj, dtype=np.float32) for name, image in maps.items()}
    brain = arrays.pop("brain") > 0
    # the brain is cut off below, which is no surface
    arrays["depth"] = ndimage.distance_transform_edt(np.pad(brain, ((0, 0), (0, 0), (30, 0)), "edge"))[..., 30:]
    arrays["depth"] = np.minimum(arrays["depth"], 25).astype(np.float32)
    ventricles = (arrays["depth"] >= 25) & (arrays["grey"] + arrays["white"] < 0.3)
    arrays["around"] = np.clip(3 * ndimage.gaussian_filter(ventricles.astype(np.float32), 4), 0, 1)
    return arrays


@lru_cache(maxsize=1)
def _sites() -> NDArray[np.float64]:
    """Where tumours may start: points of the deep cerebral white matter, (N, 3) in MNI mm, 3 mm apart."""
    white, depth = _template(1.0)["white"], _template(1.0)["depth"]
    sites = np.argwhere((white[::3, ::3, ::3] > 0.6) & (depth[::3, ::3, ::3] > 8)) * 3.0 - _MNI_ORIGIN
    x, y, z = sites.T
    brainstem_or_cerebellum = (z < -22) | ((y < -35) & (z < 2))
    return sites[~brainstem_or_cerebellum & (np.abs(x) > 6)]


@dataclass
class _Head:
    """A subject's brain on the box's grid.

    `mni` holds the MNI coordinates in mm, (3, H, W, D); `depth` the mm below the surface; `matrix` the linear part of
    the map from the subject to MNI space; `atrophy` the grey value below which the template's T1 image becomes CSF.
    """

    mni: Floats
    depth: Floats
    brain: NDArray[np.bool_]
    matrix: Floats
    atrophy: float
    spacing_mm: float

    def sample(self, name: str, shift_mm: Floats | None = None) -> Floats:
        """A map of `_template` on the subject, 0 outside the brain, taken from `shift_mm` (3, H, W, D) beside."""
        points = self.mni[:, self.brain] + _MNI_ORIGIN[:, None]
        if shift_mm is not None:
            points += np.einsum("ij,jn->in", self.matrix, shift_mm[:, self.brain])
        image = np.zeros(self.brain.shape, np.float32)
        image[self.brain] = ndimage.map_coordinates(_template(self.spacing_mm)[name], points, np.float32, order=1)
        return image


def _make_head(rng: np.random.Generator, axes: Sequence[Floats], spacing_mm: float) -> _Head:
    """Draws a subject: a small affine map and a smooth deformation of the MNI152 brain, and how wide the sulci are."""
    matrix = _random_matrix(rng, scale=0.035, degrees=2.5).astype(np.float32)
    matrix[0, 0] *= rng.choice([-1, 1])  # left and right may change places
    mni = np.empty((3, *(len(axis) for axis in axes)), np.float32)
    for row in range(3):
        x, y, z = (factor * axis for factor, axis in zip(matrix[row], axes, strict=True))
        mni[row] = x[:, None, None] + y[:, None] + z + np.float32(_MNI_AT_CENTRE_MM[row])
        mni[row] += 2.7 * smooth_noise(rng, axes, 45) + 1.4 * smooth_noise(rng, axes, 18)
    points = mni.reshape(3, -1) + _MNI_ORIGIN[:, None]
    depth = ndimage.map_coordinates(_template(spacing_mm)["depth"], points, np.float32, order=1).reshape(mni.shape[1:])
    return _Head(mni, depth, depth > 0.5, matrix, rng.uniform(0.52, 0.62), spacing_mm)


# ---------------------------------------------------------------------------------------------------------------------
# Tumour
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class _Tumour:
    """A tumour on the box's grid, and the tissue around it as the tumour leaves it.

    `swelling` is the fraction of oedema (0 to 1), which thins out beyond the label's border. `csf`, `grey` and `white`
    are the fractions of healthy tissue; `around` is high near the ventricles.
    """

    label: NDArray[np.uint8]
    swelling: Floats
    csf: Floats
    grey: Floats
    white: Floats
    around: Floats


def _grow_tumour(
    rng: np.random.Generator, axes: Sequence[Floats], head: _Head, grade: Grade, mass_effect: bool
) -> _Tumour:
    """Draws place, size and outline of a tumour and displaces the tissue around its core.

    The outlines are level sets of an ellipsoid's distance plus smooth noise, on the final grid; the tissue is then
    sampled at displaced points. So labels never need to be warped and agree with the images by construction.
    """
    high = grade == "HGG"
    whole_mm = np.exp(rng.uniform(np.log(12), np.log(32)))
    core_mm = whole_mm * (rng.uniform(0.55, 0.85) if high else rng.uniform(0.6, 0.9))
    rim_mm = rng.uniform(2.5, 8.0)
    pushed = rng.uniform(0.2, 0.75)  # the part of the core's volume that is new and not infiltrated
    spread = rng.uniform(0.3, 0.6)  # how strongly oedema avoids grey matter
    enhances = high or rng.random() < 0.4

    target = _sites()[int(rng.random() * len(_sites()))]
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

    shapes = [np.linalg.inv(_random_matrix(rng, scale=0.16, degrees=60)) for _ in range(2)]
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
    whole = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])  # noise leaves crumbs far away
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
    return _Tumour(label, swelling, csf, grey, white, around)


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


def _mix_tissues(
    rng: np.random.Generator, axes: Sequence[Floats], head: _Head, tumour: _Tumour, spacing_mm: float
) -> dict[str, Floats]:
    """The fraction of each of `_TISSUES` in every voxel of the box; they add up to 1 inside the brain.

    Beside the tumour: white matter lesions and caps around the ventricles, which look like oedema on T2 and FLAIR;
    vessels, choroid plexus and dura, which enhance like tumour on T1c.
    """
    patches, fine = smooth_noise(rng, axes, 9), smooth_noise(rng, axes, 4)
    # where two noise fields cross zero together there are curves, which make vessels
    across, along = smooth_noise(rng, axes, 13), smooth_noise(rng, axes, 13)
    lesions, caps = rng.uniform(0, 0.75) ** 2, rng.uniform(0.1, 1.0)

    # borders within a voxel, and uneven uptake of contrast agent in the rim
    sharpness_mm = rng.uniform(0.7, 1.6)
    share = {code: _blur((tumour.label == code).astype(np.float32), sharpness_mm, spacing_mm) for code in range(1, 5)}
    uptake = np.clip(0.75 + 0.25 * patches + 0.2 * fine, 0.15, 1.0)
    enhancing = share[ENHANCING] * uptake
    solid = 0.82 + 0.1 * np.clip(fine, -1.5, 1.5)  # infiltrated tissue remains in what does not enhance
    non_enhancing = (share[NON_ENHANCING] + share[ENHANCING] - enhancing) * solid
    necrosis = share[NECROSIS] * np.clip(solid + 0.1, 0, 1)

    lesion = lesions * np.clip(patches + 0.6 * fine - 1.2, 0, 1)
    lesion += caps * tumour.around * np.clip(0.6 + 0.3 * fine, 0, 1)
    swelling = tumour.swelling**0.7 * np.clip(0.78 + 0.2 * patches + 0.1 * fine, 0.1, 1)
    oedema = np.maximum(swelling, lesion * tumour.white) * np.clip(1 - 1.5 * tumour.csf, 0, 1)

    width = 0.11 * max(1.0, spacing_mm / 2)
    vessel = np.exp(-(across**2 + along**2) / width**2) * np.clip(3 * tumour.csf + 0.1, 0, 1)
    plexus = np.clip(fine - 0.8, 0, 1) * tumour.around * tumour.csf
    dura = np.clip(1.8 - head.depth, 0, 1) * np.clip(0.4 + 0.5 * patches, 0, 1)
    falx = np.clip(1.5 - np.abs(head.mni[0]), 0, 1) * tumour.csf * np.clip(0.4 + 0.5 * patches, 0, 1)
    vessel = np.maximum.reduce([0.8 * vessel, plexus, 0.6 * dura, 0.6 * falx])

    fractions = {"csf": tumour.csf, "grey": tumour.grey, "white": tumour.white}
    core = {"necrosis": necrosis, "non-enhancing": non_enhancing, "enhancing": enhancing}
    for layer in ({"oedema": oedema}, {"vessel": vessel}, core):  # each takes the room of what came before
        room = np.clip(1 - sum(layer.values()), 0, 1)
        fractions = {name: fraction * room for name, fraction in fractions.items()} | layer
    return fractions


def _acquire(
    rng: np.random.Generator,
    axes: Sequence[Floats],
    fractions: dict[str, Floats],
    brain: NDArray[np.bool_],
    spacing_mm: float,
) -> dict[str, NDArray[np.int16]]:
    """Images of the tissue: spin-echo contrast, thick slices, bias field, Rician noise, an arbitrary unit.

    Signal of a tissue with T1, T2 and proton density PD at repetition, echo and inversion time TR, TE and TI:
    PD * |1 - 2 exp(-TI / T1) + exp(-TR / T1)| * exp(-TE / T2) with, and PD * (1 - exp(-TR / T1)) * exp(-TE / T2)
    without inversion. Contrast agent turns 1 / T1 into 1 / T1 + its effect.
    """
    tissues = {}
    for name, (t1, t2, density, agent) in _TISSUES.items():
        spread = 0.04 if name in ("csf", "grey", "white") else 0.09
        jitter = np.exp(spread * rng.standard_normal(4))
        tissues[name] = (t1 * jitter[0], t2 * jitter[1], density * jitter[2] ** 0.3, agent * jitter[3] ** 2)
    texture = _blur(rng.standard_normal(brain.shape, dtype=np.float32), 1.3, spacing_mm)
    texture *= np.float32(0.025 / texture.std())
    scans = {}
    for name, times in _SEQUENCES.items():
        if times is _SPIN_ECHO and rng.random() < 0.4:
            times = _INVERSION_RECOVERY
        tr, te, ti = np.array(times) * np.exp(0.05 * rng.standard_normal(3))
        blur_mm, blur_axis = (rng.uniform(1, 4), int(rng.integers(3))) if rng.random() < 0.6 else (0.0, 0)
        bias, snr, unit = rng.uniform(0.04, 0.13), rng.uniform(14, 35), np.exp(rng.uniform(np.log(150), np.log(1500)))
        field = smooth_noise(rng, axes, 70)
        image = np.zeros(brain.shape, np.float32)
        for tissue, (t1, t2, density, agent) in tissues.items():
            rate = 1 / t1 + (agent / 1000 if name == "t1c" else 0)
            recovery = 1 - np.exp(-tr * rate) if ti == 0 else abs(1 - 2 * np.exp(-ti * rate) + np.exp(-tr * rate))
            image += np.float32(density * recovery * np.exp(-te / t2)) * fractions[tissue]
        white = float(np.mean(image[fractions["white"] > 0.9]))
        image *= np.float32(1 / white)
        image *= np.exp(bias * field + texture)
        if blur_mm > spacing_mm:
            image = ndimage.gaussian_filter1d(image, 0.4 * blur_mm / spacing_mm, axis=blur_axis)
        noise = rng.standard_normal((2, *brain.shape), dtype=np.float32) / np.float32(snr)
        image = np.sqrt((image + noise[0]) ** 2 + noise[1] ** 2)
        scans[name] = np.where(brain, np.clip(np.rint(unit * image), 1, 32767), 0).astype(np.int16)
    return scans


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


def check_spacing(spacing_mm: float) -> None:
    """Refuse a voxel size that no phantom is made at."""
    low, high = _SPACING_RANGE_MM
    if not low <= spacing_mm <= high:
        raise ConfigError(f"spacing is {spacing_mm} mm, expected {low:g} to {high:g}: the MNI152 brain has 1 mm voxels")
