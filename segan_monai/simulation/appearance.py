# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Appearance of phantoms: tissue fractions of each voxel, and the MRI signal of the mixture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segan_monai.simulation.anatomy import Head
from segan_monai.simulation.noise import Floats, blur, smooth_noise
from segan_monai.simulation.tumour import ENHANCING, NECROSIS, NON_ENHANCING, Tumour

# T1 ms, T2 ms, proton density at 1.5 T to 3 T, and the shortening of T1 by contrast agent (1/s)
_TISSUES = {
    "csf": (4000, 1000, 1.00, 0.0),
    "grey": (1330, 102, 0.82, 0.05),
    "white": (830, 80, 0.70, 0.02),
    "oedema": (1400, 185, 0.86, 0.02),
    "necrosis": (2500, 260, 0.94, 0.05),
    "non-enhancing": (1600, 185, 0.88, 0.08),
    "enhancing": (1450, 125, 0.85, 1.30),
    "vessel": (1600, 60, 0.75, 1.60),  # vessels, choroid plexus and dura: enhancement outside tumours
}
# repetition, echo and inversion time in ms; T1c is T1 after contrast agent
_SPIN_ECHO, _INVERSION_RECOVERY = (550, 10, 0), (2000, 4, 850)  # the two sequences of a T1 image
_SEQUENCES = {"t1": _SPIN_ECHO, "t1c": _SPIN_ECHO, "t2": (5000, 100, 0), "flair": (9000, 115, 2450)}


def mix_tissues(
    rng: np.random.Generator, axes: Sequence[Floats], head: Head, tumour: Tumour, spacing_mm: float
) -> dict[str, Floats]:
    """Return the fraction of each of ``_TISSUES`` in every voxel of the box; inside the brain they sum to 1.

    Structures that resemble a tumour are added: white matter lesions and caps around the ventricles, which look like
    oedema on T2 and FLAIR; vessels, choroid plexus and dura, which enhance like tumour on T1c.
    """
    patches, fine = smooth_noise(rng, axes, 9), smooth_noise(rng, axes, 4)
    # Vessels run along the curves where two noise fields cross zero together.
    across, along = smooth_noise(rng, axes, 13), smooth_noise(rng, axes, 13)
    lesions, caps = rng.uniform(0, 0.75) ** 2, rng.uniform(0.1, 1.0)

    # borders within a voxel, and uneven uptake of contrast agent in the rim
    sharpness_mm = rng.uniform(0.7, 1.6)
    share = {code: blur((tumour.label == code).astype(np.float32), sharpness_mm, spacing_mm) for code in range(1, 5)}
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
    for layer in ({"oedema": oedema}, {"vessel": vessel}, core):  # each layer displaces the previous ones
        room = np.clip(1 - sum(layer.values()), 0, 1)
        fractions = {name: fraction * room for name, fraction in fractions.items()} | layer
    return fractions


def acquire(
    rng: np.random.Generator,
    axes: Sequence[Floats],
    fractions: dict[str, Floats],
    brain: NDArray[np.bool_],
    spacing_mm: float,
) -> dict[str, NDArray[np.int16]]:
    """Simulate the images of the tissue: spin-echo contrast, thick slices, bias field, Rician noise, arbitrary unit.

    Signal of a tissue with T1, T2 and proton density PD at repetition, echo and inversion time TR, TE and TI:
    PD * |1 - 2 exp(-TI / T1) + exp(-TR / T1)| * exp(-TE / T2) with, and PD * (1 - exp(-TR / T1)) * exp(-TE / T2)
    without inversion. Contrast agent turns 1 / T1 into 1 / T1 + its effect.
    """
    tissues = {}
    for name, (t1, t2, density, agent) in _TISSUES.items():
        spread = 0.04 if name in ("csf", "grey", "white") else 0.09
        jitter = np.exp(spread * rng.standard_normal(4))
        tissues[name] = (t1 * jitter[0], t2 * jitter[1], density * jitter[2] ** 0.3, agent * jitter[3] ** 2)
    texture = blur(rng.standard_normal(brain.shape, dtype=np.float32), 1.3, spacing_mm)
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
