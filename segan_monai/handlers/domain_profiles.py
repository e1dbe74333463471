# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Intensity profiles of the training domains, and a warning about images that are far from all of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from torch import Tensor

from segan_monai.json_files import read_json_object, write_json
from segan_monai.member_weights import DOMAINS
from segan_monai.processes import gather_objects, process_rank

logger = logging.getLogger(__name__)

QUANTILES = np.linspace(0, 1, 33)[1:-1]
SMALLEST_LIMIT = 0.05
"""Of an image's standard deviation: distances below it are never far, however alike the known images are."""


def profile(image: Tensor) -> NDArray[np.float64]:
    """Return 31 quantiles of an image's voxels other than 0, from 1/32 to 31/32; zeros if there are no such voxels."""
    voxels = torch.as_tensor(image).as_subclass(Tensor).detach().float().flatten()
    voxels = voxels[voxels != 0].cpu()
    return np.quantile(voxels.numpy(), QUANTILES) if len(voxels) else np.zeros(len(QUANTILES))


def distances(one: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean absolute difference of a profile (31,) from others (N, 31): the 1-Wasserstein distance."""
    return np.abs(others - one).mean(axis=1)


class Nearest(NamedTuple):
    """The known image that is nearest to another one.

    Attributes:
        domain: its domain.
        distance: its distance, in the unit of the intensities.
        limit: distance above which an image is far.
    """

    domain: str
    distance: float
    limit: float

    @property
    def far(self) -> bool:
        """Whether the image is far from every known one."""
        return self.distance > self.limit


def nearest(image: NDArray[np.float64], domains: Sequence[str], known: NDArray[np.float64]) -> Nearest:
    """Compare an image with known ones.

    The limit is twice the median distance between a known image and the nearest other one of its domain, and at least
    ``SMALLEST_LIMIT`` of the standard deviation of the known profiles.

    Args:
        image: profile (31,).
        domains: names of the domains of N known images.
        known: their profiles (N, 31).
    """
    found = distances(image, known)
    own = []
    for index, domain in enumerate(domains):
        others = [other for other, name in enumerate(domains) if name == domain and other != index]
        if others:
            own.append(distances(known[index], known[others]).min())
    limit = max(2 * float(np.median(own)) if own else 0.0, SMALLEST_LIMIT * float(known.std()))
    best = int(found.argmin())
    return Nearest(domains[best], float(found[best]), limit)


class DomainProfiles:
    """Writes the intensity profiles of the validation cases of every domain to ``domains.json``.

    Attach it to the validator, whose output has ``input`` (C, H, W, D), the image as the network receives it, and
    ``domain_number``. Validation images are whole and not augmented.

    Args:
        ckpt_dir: folder of the weights.
        domains: names of the domains.
    """

    def __init__(self, ckpt_dir: str | os.PathLike[str], domains: Sequence[str]) -> None:
        self.file = Path(ckpt_dir) / DOMAINS
        self.domains = list(domains)
        self.found: list[tuple[str, list[float]]] = []

    def attach(self, engine: Engine) -> None:
        """Register with a validator."""
        engine.add_event_handler(Events.STARTED, lambda: self.found.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def collect(self, engine: Engine) -> None:
        """Add the images of an iteration."""
        output: Any = engine.state.output
        for case in output:
            values = [round(float(value), 4) for value in profile(case["input"])]
            self.found.append((self.domains[int(case["domain_number"])], values))

    def write(self, engine: Engine) -> None:
        """Write the file, on rank 0."""
        found = [item for of_process in gather_objects(self.found) for item in of_process]
        if process_rank() > 0 or not found:
            return
        record = {
            name: [values for domain, values in found if domain == name] for name in sorted({d for d, _ in found})
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, {"profiles": record}, indent=None)


class ScannerCheck:
    """Warns about each image that is far from the images of every training domain, and names the nearest domain.

    A network may fail on a scanner that it has never seen. The check compares intensities alone, so an image without a
    warning is not proven to be alike. Without ``domains.json``, as beside weights of earlier versions, it does nothing.

    Expects decollated data with ``case`` and ``image`` in the batch, as the network receives it. The output of a case
    gets ``nearest_domain``: a dictionary of the attributes of ``Nearest``, which ``CaseJournal`` records if it is
    attached later.

    Args:
        ckpt_dir: folder of the weights, with the file that ``DomainProfiles`` wrote; or the folder of each member of an
            ensemble, whose known images count together.
    """

    def __init__(self, ckpt_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        self.files = [Path(folder) / DOMAINS for folder in ensure_tuple(ckpt_dir)]
        self.domains: list[str] = []
        self.known = np.zeros((0, len(QUANTILES)))
        self.seen = 0
        self.far: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.check)
        engine.add_event_handler(Events.COMPLETED, self.summarize)

    def start(self, engine: Engine) -> None:
        """Read the profiles.

        Raises:
            DataError: The file is damaged.
        """
        self.seen, self.far = 0, []
        known: dict[tuple[str, tuple[float, ...]], None] = {}  # members may have validated the same image
        for file in self.files:
            if file.is_file():
                record = read_json_object(file, "Delete it, or copy it again from the training's folder.")["profiles"]
                known |= {(name, tuple(values)): None for name, of_domain in record.items() for values in of_domain}
        self.domains = [name for name, _ in known]
        self.known = np.array([values for _, values in known])

    def check(self, engine: Engine) -> None:
        """Compare the images of an iteration."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        if not self.domains or not isinstance(batch, list):
            return
        for case, result in zip(batch, output, strict=True):
            if "image" not in case:
                continue
            self.seen += 1
            found = nearest(profile(case["image"]), self.domains, self.known)
            result["nearest_domain"] = {**found._asdict(), "far": found.far}
            if found.far:
                self.far.append(case["case"])
                logger.warning(
                    "case %s is unlike the images of every training domain: the nearest, %s, is %.2f away (at most "
                    "%.2f is usual). The scanner or its protocol may be new: inspect the segmentation.",
                    case["case"],
                    found.domain,
                    found.distance,
                    found.limit,
                )

    def summarize(self, engine: Engine) -> None:
        """Log how many cases are far, if any."""
        if self.far:
            logger.warning("%d of %d cases are unlike the images of every training domain", len(self.far), self.seen)
