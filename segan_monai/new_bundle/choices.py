# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Rules that derive settings from a fingerprint, each with its reason, similar to nnU-Net's [ours]."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from segan_monai.errors import ConfigError, DataError
from segan_monai.new_bundle.fingerprint import Fingerprint
from segan_monai.transforms.head_intensity import NOISY_SHARE

METHODS = ("segan", "adversarial-normalization", "lsnet")

ANISOTROPIC = 1.5
"""Slices are cut across the axis with the longest voxels, if they are longer than the next by this factor."""
ALL_AXES = [2, 1, 0]
"""Slices are cut across all axes if voxels are nearly isotropic and volumes are small [ours]."""
MIXED_SPACING = 1.5
"""Images are resampled if the 5th and 95th percentile of the spacing of any axis differ by more than this factor."""
WIDTHS = ((96, 16), (128, 32), (math.inf, 64))
"""Pairs of the longest side of a slice in pixels and the channels of the network's first level up to that side."""
ITERATIONS = {16: 2_000, 32: 5_000, 64: 15_000}
"""Training steps by network width; the larger widths are meant for machines with a GPU."""
_KINDS = {16: "a quarter of the papers' width", 32: "half of the papers' width", 64: "the papers' width"}
MIN_WINDOW_HU = 300
"""Minimum width of a CT window; a narrower one would hide the surroundings of an organ of uniform intensity."""
PIXELS_PER_BATCH = 64 * 160 * 160
MOST_PATCH_VOXELS = 2**20
"""Largest patch of 3-D networks, the 128x128x64 of the brain tumour bundle."""
CACHE_GIGABYTES = 16


class Choice(NamedTuple):
    """Setting of a bundle, and the reason for it."""

    value: Any
    reason: str


def choose(method: str, found: Fingerprint) -> dict[str, Choice]:
    """Choose the settings of a bundle.

    Args:
        method: One of ``METHODS``.
        found: Fingerprint of the data set.

    Returns:
        Settings by config key, in the order in which they were chosen. ``intensity_window`` is present only for CT,
        ``skull_stripped`` only for others, ``spacing_mm`` only if images are resampled.

    Raises:
        ConfigError: The method is unknown, or takes one channel and the images have several.
        DataError: Adversarial normalization has fewer than two domains, a case without a domain, or a domain with fewer
            than two cases.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}, expected one of {', '.join(METHODS)}.")
    if method != "segan" and len(found.channels) > 1:
        raise ConfigError(
            f"--method {method} takes images of one channel, and these have {len(found.channels)} "
            f"({', '.join(found.channels)}). Choose --method segan, or create a data set with one of them."
        )
    rules = {"segan": _segan, "adversarial-normalization": _adversarial_normalization, "lsnet": _lsnet}
    return rules[method](found)


def _segan(found: Fingerprint) -> dict[str, Choice]:
    chosen = _intensity_window(found, "intensity_window") or _skull_stripped(found)
    chosen |= _common_spacing(found)
    sides = _sizes(found.content, found, chosen)
    chosen["slice_axis"] = axis = _slice_axis(found, sides)
    if axis.value == ALL_AXES:
        chosen["neighbours"] = Choice(3, "number of neighbouring slices on each side that the network sees")
    chosen["slice_size"] = _slice_size(sides, axis.value)
    chosen |= _patches(sides)
    size = chosen["slice_size"].value
    width = _width(size)
    chosen["base_channels"] = Choice(width, f"{_KINDS[width]}, for slices of {_by(size)}")
    if width == 16:
        chosen["full_resolution_channels"] = Choice(
            8, "every pixel matters in small slices: features at full resolution"
        )
    chosen["augmentation_probability"] = Choice(
        0.6, "slices are rotated, scaled and changed in contrast, which helps with few cases"
    )
    rate = 0.01 if width == 16 else 0.001
    chosen["learning_rate"] = Choice(rate, "0.01 for networks with 16 channels, 0.001 for wider ones")
    return chosen | _schedule(found, 8, "slices_per_volume", width, math.prod(size), 40)


def _lsnet(found: Fingerprint) -> dict[str, Choice]:
    chosen = _intensity_window(found, "hu_window")
    sides = [found.shape[index][2] for index in (0, 1)]
    side = min(max(_up(max(sides), 32), 64), 512)
    chosen["plane_size"] = Choice([side, side], "that of the networks' input: nothing is resized twice")
    chosen["slice_size"] = Choice(
        [side, side],
        f"95 % of the cases have axial planes of at most {_by(sides)}; planes are resized to this multiple of 32",
    )
    width = _width([side, side])
    chosen["base_channels"] = Choice(width, f"{_KINDS[width]}, for slices of {side}x{side}")
    chosen["max_rois"] = Choice(
        max(4, 2 * found.objects),
        f"a slice holds at most {found.objects} separate objects of one label; twice that, at least 4",
    )
    return chosen | _schedule(found, 8, "slices_per_volume", width, 4 * side * side, 60)


def _adversarial_normalization(found: Fingerprint) -> dict[str, Choice]:
    if len(found.domains) < 2:
        named = f"only {', '.join(found.domains)}" if found.domains else "none"
        raise DataError(
            "adversarial normalization needs images of at least two domains (scanners, protocols, sites); found "
            f"{named}. Add a field \"domain\" to each entry of 'training' in dataset.json, or, in nnU-Net's raw "
            'format, "domains": {"<case>": "site A"} to dataset.json. With one domain, choose --method segan.'
        )
    if min(found.domains.values()) < 2 or sum(found.domains.values()) < found.cases:
        counts = ", ".join(f"{name} {count}" for name, count in found.domains.items())
        raise DataError(
            f"the domains of {found.cases} cases have {counts}. Expected a domain for every case, and at least two "
            "cases per domain, because one is held out."
        )
    names = list(found.domains)
    chosen = {
        key: Choice(name, f"{found.domains[name]} cases; all {len(names)} domains are used for training")
        for key, name in zip(("first_domain", "second_domain"), names, strict=False)
    }
    spacing = [round(median, 3) for _, median, _ in found.spacing]
    chosen["spacing_mm"] = Choice(spacing, "the median of the cases")
    sizes = [
        length * old[1] / new for length, old, new in zip(_medians(found.shape), found.spacing, spacing, strict=True)
    ]
    patch = [32 if size >= 24 else 16 for size in sizes]
    chosen["patch_size"] = Choice(patch, f"32 as in the paper, or 16 along axes below 24 voxels; images: {_by(sizes)}")
    small = any(length / mm < side for length, mm, side in zip(found.smallest, spacing, patch, strict=True))
    chosen["pad_small_images"] = Choice(small, f"{'some' if small else 'no'} images are smaller than a patch")
    background = found.zeros >= 0.25 and not found.is_ct
    chosen["zero_is_background"] = Choice(background, f"{100 * found.zeros:.0f} % of the voxels are 0 (median)")
    width = 16 if max(patch) > 16 else 8
    chosen["base_channels"] = Choice(width, "16 as in this project's bundle for patches of 32, half for smaller ones")
    return chosen | _schedule(found, 8, "patches_per_volume", 16, 16**2 * 100, 40, 16, _folds_of_domains(found.domains))


def _intensity_window(found: Fingerprint, key: str) -> dict[str, Choice]:
    """Choose the window of a CT; other images are scaled one by one."""
    if not found.is_ct:
        return {}
    lower, _, _, upper = found.intensities[0]
    reason = f"0.5th and 99.5th percentile of labelled voxels: {lower:g} and {upper:g} HU"
    if upper - lower < MIN_WINDOW_HU:
        lower, upper = ((lower + upper + side * MIN_WINDOW_HU) / 2 for side in (-1, 1))
        reason += f", widened to {MIN_WINDOW_HU} HU to show the surroundings"
    return {key: Choice([10 * math.floor(lower / 10), 10 * math.ceil(upper / 10)], reason)}


def _skull_stripped(found: Fingerprint) -> dict[str, Choice]:
    """Choose how intensities are scaled: by the nonzero voxels, or by the head if the background is noise."""
    return {
        "skull_stripped": Choice(
            found.noise <= NOISY_SHARE, f"{100 * found.noise:.0f} % of the voxels are noise of the background (median)"
        )
    }


def _common_spacing(found: Fingerprint) -> dict[str, Choice]:
    """Choose a common spacing only if voxel sizes differ much between cases: interpolation loses detail."""
    ratio = max(high / low for low, _, high in found.spacing)
    if ratio <= MIXED_SPACING:
        return {}
    spacing = [round(median, 3) for _, median, _ in found.spacing]
    return {"spacing_mm": Choice(spacing, f"median; voxel sizes differ by a factor of up to {ratio:.1f} between cases")}


def _slice_axis(found: Fingerprint, sides: list[float]) -> Choice:
    spacing = _medians(found.spacing)
    order = sorted(range(3), key=lambda index: -spacing[index])
    if spacing[order[0]] >= ANISOTROPIC * spacing[order[1]]:
        return Choice(order[0], f"voxels are longest along this axis: {_by(spacing)} mm (left-right, back-front, up)")
    alike = f"voxels of {_by(spacing)} mm are nearly isotropic"
    if spacing[order[0]] < ANISOTROPIC * spacing[order[2]] and max(sides) <= WIDTHS[0][0]:
        return Choice(ALL_AXES, f"{alike}, and volumes are small: one network for all three axes")
    return Choice(2, f"axial: {alike}")


def _slice_size(sides: list[float], axis: int | list[int]) -> Choice:
    if axis == ALL_AXES:
        side = max(_up(sorted(sides)[1], 16), 32)
        reason = f"95 % of the cases fit in {_by(sides)} voxels without background; middle side, up to a multiple of 16"
        return Choice([side, side], f"{reason}; larger planes are cropped at random in training")
    plane = [side for index, side in enumerate(sides) if index != axis]
    size = [min(max(_up(side, 16), 32), 256) for side in plane]
    fits = all(side <= length for side, length in zip(plane, size, strict=True))
    rule = "up to a multiple of 16" if fits else "limited to 256, so planes are cropped at random in training"
    return Choice(size, f"95 % of the cases have planes of at most {_by(plane)} without background; {rule}")


def _patches(sides: list[float]) -> dict[str, Choice]:
    """Choose the patches that a training with ``spatial_dims`` 3 would draw."""
    whole = [_up(side, 16) for side in sides]
    size = list(whole)
    while math.prod(size) > MOST_PATCH_VOXELS:
        size[size.index(max(size))] -= 16
    fits = size == whole
    rule = "multiples of 16 that hold them" if fits else "shortened to a million voxels, so patches are drawn at random"
    reason = f"with spatial_dims 3: 95 % of the cases fit in {_by(sides)} voxels without background; {rule}"
    per_volume = Choice(1, "the whole volume") if fits else Choice(2, "as in the brain tumour bundle")
    return {"patch_size": Choice(size, reason), "patches_per_volume": per_volume}


def _schedule(
    found: Fingerprint,
    samples: int,
    key: str,
    width: int,
    pixels: int,
    fewest: int,
    batch_size: int | None = None,
    folds: Choice | None = None,
) -> dict[str, Choice]:
    """Choose batch size, epochs and cache for the training set that the folds leave.

    ``folds`` are given if each domain is split on its own; without them, all subjects are split at once.
    """
    drawn_at_once = folds is None
    folds = folds or Choice(_folds(found.subjects), f"{found.subjects} subjects")
    parts = (found.cases,) if drawn_at_once else found.domains.values()
    training = max(1, found.cases - sum(math.ceil(part / folds.value) for part in parts))
    per_epoch = training * samples
    if batch_size is None:
        most = min(64, PIXELS_PER_BATCH // pixels, per_epoch // 8)
        batch_size = max(samples, most // samples * samples)
    iterations = max(1, math.ceil(training / (batch_size // samples)))
    epochs = min(max(round(ITERATIONS[width] / iterations), fewest), 500)
    cached = min(1.0, round(CACHE_GIGABYTES / max(found.gigabytes, 1e-6), 2))
    return {
        key: Choice(samples, "as in the bundles of this project"),
        "batch_size": Choice(
            batch_size, f"{per_epoch} samples from {training} cases per epoch; {iterations} steps per epoch"
        ),
        "epochs": Choice(epochs, f"about {ITERATIONS[width]} steps, at least {fewest} epochs and at most 500"),
        "val_interval": Choice(max(1, epochs // 20), "20 validations"),
        "folds": Choice(folds.value, f"{folds.reason}; about {found.cases - training} cases are held out"),
        "cache_rate": Choice(
            cached, f"the data set takes {found.gigabytes:.2g} GB in memory; the limit is {CACHE_GIGABYTES} GB"
        ),
        "num_workers": Choice(
            0 if cached == 1 and width == 16 else 4,
            "loader processes; none are needed for small slices of cached volumes",
        ),
    }


def _sizes(spread: list[list[float]], found: Fingerprint, chosen: dict[str, Choice]) -> list[float]:
    """Return the 95th percentile of sizes in voxels, after resampling if any."""
    if "spacing_mm" not in chosen:
        return [high for *_, high in spread]
    new = chosen["spacing_mm"].value
    return [high * old[1] / mm for (*_, high), old, mm in zip(spread, found.spacing, new, strict=True)]


def _folds(subjects: int) -> int:
    return min(5, max(2, subjects // 2))


def _folds_of_domains(domains: dict[str, int]) -> Choice:
    """Choose the folds by the smallest domain, and say how many of its cases each fold trains on and holds out."""
    name = min(domains, key=lambda domain: domains[domain])
    count = domains[name]
    folds = _folds(count)
    few, many = count // folds, -(-count // folds)
    held_out, trained = (
        (str(few), str(count - few)) if few == many else (f"{few} or {many}", f"{count - many} or {count - few}")
    )
    return Choice(
        folds,
        f"of the {count} cases of the smallest domain, {name}, each fold trains on {trained} and holds out {held_out}",
    )


def _width(size: list[int]) -> int:
    return next(width for side, width in WIDTHS if max(size) <= side)


def _medians(spread: list[list[float]]) -> list[float]:
    return [median for _, median, _ in spread]


def _up(length: float, multiple: int) -> int:
    return multiple * math.ceil(length / multiple)


def _by(sides: list[float] | list[int]) -> str:
    return "x".join(f"{side:.3g}" if side < 100 else f"{side:.0f}" for side in sides)
