# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Measured properties of data sets, as ``new-bundle`` finds them."""

from __future__ import annotations

from segan_monai.new_bundle.fingerprint import Fingerprint


def alike(*sides):
    return [[side] * 3 for side in sides]


HIPPOCAMPUS = Fingerprint(
    cases=40,
    subjects=40,
    channels=["T1"],
    is_ct=False,
    regions={"anterior": [1], "posterior": [2]},
    cases_with={"anterior": 40, "posterior": 40},
    domains={},
    shape=alike(36, 51, 36),
    spacing=alike(1, 1, 1),
    content=alike(36, 51, 36),
    foreground=alike(20, 30, 20),
    smallest=[33, 47, 29],
    zeros=0.0,
    noise=0.0,
    objects=3,
    intensities=[[0, 100, 20, 200]],
    gigabytes=0.02,
)
