# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's next sample by the quality that the served network expects of each image without a label map."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, UserError
from segan_monai.files import sha256_of
from segan_monai.member_weights import QUALITY

logger = logging.getLogger(__name__)

NAME = "lowest_quality"
NEW_PER_REQUEST = 20
"""Largest number of images that are segmented for one request."""


class LowestQuality:
    """Strategy that proposes the image whose result needs a look most: that of the lowest expected quality.

    It has the interface of MONAI Label's ``Strategy``. At each request, up to ``NEW_PER_REQUEST`` images that the
    current weights have not segmented yet are segmented; estimates are kept until the weights change.

    Args:
        model: name of the bundle in the app.
        models_dir: its folder of weights, with ``quality.json``.
        infer: the app's ``infer``: from a request to the result with ``params``.
    """

    def __init__(self, model: str, models_dir: Path, infer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        self.description = f"Lowest expected quality under {model}"
        self.model = model
        self.models_dir = models_dir
        self.infer = infer
        self.weights: str | None = None
        self.expected: dict[str, float] = {}
        self.failed: dict[str, UserError] = {}

    def info(self) -> dict[str, Any]:
        """Return what the server says of the strategy."""
        return {"description": self.description}

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Return ``id`` and ``weight`` (1 minus the expected quality) of an image; None if all have a label map.

        Raises:
            ConfigError: A training has replaced the weights that the estimate was fitted to, or no image could be
                segmented.
        """
        images = list(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        if not images:
            return None
        if not has_quality(self.models_dir):
            raise ConfigError(
                f"the strategy {NAME} needs {self.models_dir / QUALITY}, which a training has removed with the "
                "weights of its fit. Fit it to the new weights, or choose the strategy random."
            )
        weights = sha256_of(self.models_dir / "model.pt")
        if weights != self.weights:
            self.weights, self.expected, self.failed = weights, {}, {}
        seen = self.expected.keys() | self.failed.keys()
        self._segment([image for image in images if image not in seen][:NEW_PER_REQUEST])
        known = [image for image in images if image in self.expected]
        if not known:
            failures = [self.failed[image] for image in images if image in self.failed]
            left = len(images) - len(failures)
            remedy = f"Ask again for the {left} others" if left else "Correct them and start the server again"
            raise ConfigError(
                f"the strategy {NAME} could segment none of {len(failures)} images: {failures[-1]} {remedy}, or choose "
                "the strategy random."
            )
        worst = min(known, key=lambda image: (self.expected[image], image))
        return {"id": worst, "weight": 1 - self.expected[worst]}

    def _segment(self, images: list[str]) -> None:
        """Keep the expected quality of images, or the error of one that cannot be segmented."""
        for image in images:
            try:
                result = self.infer({"model": self.model, "image": image})
            except UserError as error:
                logger.warning("%s has no expected quality: %s", image, error)
                self.failed[image] = error
                continue
            if result.get("file"):
                with suppress(OSError):
                    Path(result["file"]).unlink()
            of_regions = result["params"]["quality"].values()
            self.expected[image] = sum(float(found["expected_dice"]) for found in of_regions) / len(of_regions)


def has_quality(models_dir: Path) -> bool:
    """Return whether the weights in a folder have a quality estimate."""
    return (models_dir / "model.pt").is_file() and (models_dir / QUALITY).is_file()


def strategies_of(
    models_dir: Path, models: Mapping[str, Any], infer: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> dict[str, LowestQuality]:
    """Return the strategies that an app can offer: one by the first of its bundles with ``quality.json``, or none.

    Args:
        models_dir: the app's folder ``model``.
        models: its bundles by name.
        infer: the app's ``infer``.
    """
    for name in models:
        if has_quality(models_dir / name / "models"):
            return {NAME: LowestQuality(name, models_dir / name / "models", infer)}
    return {}
