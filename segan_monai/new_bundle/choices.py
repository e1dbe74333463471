# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings that follow from a fingerprint, each with its reason: few rules, as nnU-Net has them [ours]."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from segan_monai.errors import ConfigError, DataError
from segan_monai.new_bundle.fingerprint import Fingerprint

METHODS = ("segan", "adversarial-normalization", "lsnet")

ANISOTROPIC = 1.5
"""Slices are cut across the axis whose voxels are this many times as long as the next longest."""
ALL_AXES = [2, 1, 0]
"""Where voxels are alike along every axis and volumes are small, slices are cut across each [ours]."""
MIXED_SPACING = 1.5
"""Where 5th and 95th percentile of the spacing of any axis are this many times apart, images are resampled."""
WIDTHS = ((96, 16), (128, 32), (math.inf, 64))
"""Longest side of a slice up to which a network has so many channels in its first level."""
ITERATIONS = {16: 2_000, 32: 5_000, 64: 15_000}
"""Steps of a training with a network of that width; wider ones are for machines with a GPU."""
_KINDS = {16: "a quarter of the papers' width", 32: "half of the papers' width", 64: "the papers' width"}
LEAST_WINDOW_HU = 300
"""A narrower window would hide what lies around an organ of one intensity."""
PIXELS_A_BATCH = 64 * 160 * 160
CACHE_GIGABYTES = 16


class Choice(NamedTuple):
    """A setting of a bundle, and why it is so."""

    value: Any
    reason: str


def choose(method: str, found: Fingerprint) -> dict[str, Choice]:
    """Settings of a bundle, under their names in its configs.

    Args:
        method: one of `METHODS`.
        found: of the data set.

    Returns:
        Settings in the order in which they were made. ``intensity_window`` is absent unless the image is a CT,
        ``spacing_mm`` where voxels are left as they are.

    Raises:
        ConfigError: no such method, or one that takes one channel and there are several.
        DataError: adversarial normalization of fewer than two domains.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}, expected one of {', '.join(METHODS)}.")
    if method != "segan" and len(found.channels) > 1:
        raise ConfigError(
            f"--method {method} takes images of one channel, and these have {len(found.channels)} "
            f"({', '.join(found.channels)}). Choose --method segan, or make a data set of one of them."
        )
    rules = {"segan": _segan, "adversarial-normalization": _adversarial_normalization, "lsnet": _lsnet}
    return rules[method](found)


def _segan(found: Fingerprint) -> dict[str, Choice]:
    chosen = _intensity_window(found, "intensity_window")
    chosen |= _common_spacing(found)
    sides = _sizes(found.content, found, chosen)
    chosen["slice_axis"] = axis = _slice_axis(found, sides)
    if axis.value == ALL_AXES:
        chosen["neighbours"] = Choice(3, "the network sees so many slices a side beside each")
    chosen["slice_size"] = _slice_size(sides, axis.value)
    size = chosen["slice_size"].value
    width = _width(size)
    chosen["base_channels"] = Choice(width, f"{_KINDS[width]}, for slices of {_by(size)}")
    if width == 16:
        chosen["full_resolution_channels"] = Choice(8, "in small slices a pixel counts: features at full resolution")
    chosen["augmentation_probability"] = Choice(
        0.6, "slices are turned, scaled and changed in contrast; few cases need it"
    )
    rate = 0.01 if width == 16 else 0.001
    chosen["learning_rate"] = Choice(rate, "0.01 for networks of 16 channels, 0.001 for wider ones")
    return chosen | _schedule(found, 8, "slices_per_volume", width, math.prod(size), 40)


def _lsnet(found: Fingerprint) -> dict[str, Choice]:
    chosen = _intensity_window(found, "hu_window")
    sides = [found.shape[index][2] for index in (0, 1)]
    side = min(max(_up(max(sides), 32), 64), 512)
    chosen["slice_size"] = Choice(
        [side, side],
        f"95 % of the cases have axial planes of at most {_by(sides)}; every plane is resized to this multiple of 32",
    )
    width = _width([side, side])
    chosen["base_channels"] = Choice(width, f"{_KINDS[width]}, for slices of {side}x{side}")
    chosen["max_rois"] = Choice(
        max(4, 2 * found.objects), f"a slice holds at most {found.objects} separate objects of a label; twice as many"
    )
    return chosen | _schedule(found, 8, "slices_per_volume", width, 4 * side * side, 60)


def _adversarial_normalization(found: Fingerprint) -> dict[str, Choice]:
    if len(found.domains) < 2:
        named = f"only {', '.join(found.domains)}" if found.domains else "none"
        raise DataError(
            f"adversarial normalization needs images of two domains (scanners, protocols, sites) or more; found {named}"
            ". Give each entry of 'training' in dataset.json a field \"domain\", or, in nnU-Net's raw format, add "
            '"domains": {"<case>": "site A"} to dataset.json. With one domain, choose --method segan.'
        )
    if min(found.domains.values()) < 2 or sum(found.domains.values()) < found.cases:
        counts = ", ".join(f"{name} {count}" for name, count in found.domains.items())
        raise DataError(
            f"of {found.cases} cases, domains have {counts}. Expected a domain for every case, and at least two cases "
            "in each, as one is kept out."
        )
    names = list(found.domains)
    chosen = {
        key: Choice(name, f"{found.domains[name]} cases; all {len(names)} domains are trained on")
        for key, name in zip(("first_domain", "second_domain"), names, strict=False)
    }
    spacing = [round(median, 3) for _, median, _ in found.spacing]
    chosen["spacing_mm"] = Choice(spacing, "the median of the cases")
    sizes = [
        length * old[1] / new for length, old, new in zip(_medians(found.shape), found.spacing, spacing, strict=True)
    ]
    patch = [32 if size >= 24 else 16 for size in sizes]
    chosen["patch_size"] = Choice(patch, f"the paper's 32, or 16 along axes below 24 voxels; images have {_by(sizes)}")
    small = any(length / mm < side for length, mm, side in zip(found.smallest, spacing, patch, strict=True))
    chosen["pad_small_images"] = Choice(small, f"{'some' if small else 'no'} images are smaller than a patch")
    background = found.zeros >= 0.25 and not found.is_ct
    chosen["zero_is_background"] = Choice(background, f"{100 * found.zeros:.0f} % of the voxels are 0 (median)")
    width = 16 if max(patch) > 16 else 8
    chosen["base_channels"] = Choice(width, "the bundle's own for patches of 32, half of it for smaller ones")
    batch = chosen | _schedule(found, 8, "patches_per_volume", 16, 16**2 * 100, 40, batch_size=16)
    fewest = min(found.domains.values())
    batch["folds"] = Choice(_folds(fewest), f"the smallest domain has {fewest} cases")
    return batch


def _intensity_window(found: Fingerprint, key: str) -> dict[str, Choice]:
    """Of a CT; other images are scaled one by one."""
    if not found.is_ct:
        return {}
    lower, _, _, upper = found.intensities[0]
    reason = f"0.5 and 99.5 percentile of labelled voxels: {lower:g} and {upper:g} HU"
    if upper - lower < LEAST_WINDOW_HU:
        lower, upper = ((lower + upper + side * LEAST_WINDOW_HU) / 2 for side in (-1, 1))
        reason += f", widened to {LEAST_WINDOW_HU} HU so that what lies around can be seen"
    return {key: Choice([10 * math.floor(lower / 10), 10 * math.ceil(upper / 10)], reason)}


def _common_spacing(found: Fingerprint) -> dict[str, Choice]:
    """Resample only where voxels of one data set differ much: every interpolation costs detail."""
    ratio = max(high / low for low, _, high in found.spacing)
    if ratio <= MIXED_SPACING:
        return {}
    spacing = [round(median, 3) for _, median, _ in found.spacing]
    return {"spacing_mm": Choice(spacing, f"voxels differ by up to {ratio:.1f} times between cases: their median size")}


def _slice_axis(found: Fingerprint, sides: list[float]) -> Choice:
    spacing = _medians(found.spacing)
    order = sorted(range(3), key=lambda index: -spacing[index])
    if spacing[order[0]] >= ANISOTROPIC * spacing[order[1]]:
        return Choice(order[0], f"voxels are longest along this axis: {_by(spacing)} mm (left-right, back-front, up)")
    alike = f"voxels of {_by(spacing)} mm are nearly as long along every axis"
    if spacing[order[0]] < ANISOTROPIC * spacing[order[2]] and max(sides) <= WIDTHS[0][0]:
        return Choice(ALL_AXES, f"{alike}, and volumes are small: one network sees them along all three")
    return Choice(2, f"axial: {alike}")


def _slice_size(sides: list[float], axis: int | list[int]) -> Choice:
    if axis == ALL_AXES:
        side = max(_up(sorted(sides)[1], 16), 32)
        reason = f"the multiple of 16 that holds the middle one of {_by(sides)} voxels, content of 95 % of the cases"
        return Choice([side, side], f"{reason}; training sees random windows of longer planes")
    plane = [side for index, side in enumerate(sides) if index != axis]
    size = [min(max(_up(side, 16), 32), 256) for side in plane]
    fits = all(side <= length for side, length in zip(plane, size, strict=True))
    holds = "the multiple of 16 that holds them" if fits else "at most 256, so training sees random windows of them"
    return Choice(size, f"95 % of the cases have planes of at most {_by(plane)} without their background; {holds}")


def _schedule(
    found: Fingerprint, samples: int, key: str, width: int, pixels: int, fewest: int, batch_size: int | None = None
) -> dict[str, Choice]:
    """Batch size, epochs, folds and memory, by the size of network, slices and data set."""
    folds = _folds(found.subjects)
    training = max(1, found.cases - -(-found.cases // folds))
    an_epoch = training * samples
    if batch_size is None:
        most = min(64, PIXELS_A_BATCH // pixels, an_epoch // 8)
        batch_size = max(samples, most // samples * samples)
    iterations = max(1, math.ceil(training / (batch_size // samples)))
    epochs = min(max(round(ITERATIONS[width] / iterations), fewest), 500)
    cached = min(1.0, round(CACHE_GIGABYTES / max(found.gigabytes, 1e-6), 2))
    return {
        key: Choice(samples, "as in the bundles of this project"),
        "batch_size": Choice(batch_size, f"an epoch has {an_epoch} samples of {training} cases; {iterations} steps"),
        "epochs": Choice(epochs, f"about {ITERATIONS[width]} steps, at least {fewest} epochs and at most 500"),
        "val_interval": Choice(max(1, epochs // 20), "20 validations"),
        "folds": Choice(folds, f"{found.subjects} subjects; {found.cases - training} or so are kept out"),
        "cache_rate": Choice(
            cached, f"the data set takes {found.gigabytes:.2g} GB in memory, {CACHE_GIGABYTES} may be"
        ),
        "num_workers": Choice(
            0 if cached == 1 and width == 16 else 4,
            "processes that load; none are needed for small slices of cached volumes",
        ),
    }


def _sizes(spread: list[list[float]], found: Fingerprint, chosen: dict[str, Choice]) -> list[float]:
    """95th percentile of sizes in voxels, after resampling if there is any."""
    if "spacing_mm" not in chosen:
        return [high for *_, high in spread]
    new = chosen["spacing_mm"].value
    return [high * old[1] / mm for (*_, high), old, mm in zip(spread, found.spacing, new, strict=True)]


def _folds(subjects: int) -> int:
    return min(5, max(2, subjects // 2))


def _width(size: list[int]) -> int:
    return next(width for side, width in WIDTHS if max(size) <= side)


def _medians(spread: list[list[float]]) -> list[float]:
    return [median for _, median, _ in spread]


def _up(length: float, multiple: int) -> int:
    return multiple * math.ceil(length / multiple)


def _by(sides: list[float] | list[int]) -> str:
    return "x".join(f"{side:.3g}" if side < 100 else f"{side:.0f}" for side in sides)
