# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Dice of test patches, as in the split by patch of Delisle et al. (2020), Section 3.3."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from segan_monai.json_files import write_json
from segan_monai.mixed_precision import autocast_dtype
from segan_monai.processes import gather_objects, process_rank, shard

logger = logging.getLogger(__name__)


class PatchReport:
    """Segments the patches of a dataset after an evaluation, and writes their Dice to ``patches.json``.

    It contains, for all patches and for those of each domain, two figures per region:

    - ``dice``: of all voxels of all patches together;
    - ``dice_mean``: the mean over the ``patches`` in which reference or prediction has the region.

    The patches overlap with those of the training and are of the same subjects, so both figures are too high for new
    subjects. They are for comparison with the paper's. Each patch is segmented by itself.

    Args:
        output_dir: receives ``patches.json``.
        dataset: each item is a list of patches of one case: dictionaries with ``image`` (C, H, W, D), ``label``
            (1, H, W, D) of 0 to K, and ``domain`` (optional); or the error record of a ``CaseDataset``.
        network: images (B, C, H, W, D) to logits (B, 1 + K, H, W, D), background first.
        regions: names of the K regions.
        domains: names of the domains.
        batch_size: patches that are segmented together.
        amp: mixed precision.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        dataset: Sequence[Any],
        network: nn.Module,
        regions: Sequence[str],
        domains: Sequence[str],
        batch_size: int = 16,
        amp: bool = False,
    ) -> None:
        self.file = Path(output_dir) / "patches.json"
        self.dataset = dataset
        self.network = network
        self.regions = list(regions)
        self.domains = list(domains)
        self.batch_size = batch_size
        self.amp = amp

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Segment the patches of this process's cases, and write the file on rank 0."""
        own: list[tuple[str, list[list[int]]]] = []
        for index in shard(range(len(self.dataset))):
            patches = self.dataset[index]
            if isinstance(patches, Mapping):  # the evaluator has logged and recorded why
                logger.warning("case %s has no patches: %s", patches["case"], patches["error"])
                continue
            for start in range(0, len(patches), self.batch_size):
                batch = patches[start : start + self.batch_size]
                counts = self._count(batch).tolist()
                own += [
                    (str(patch.get("domain", "all")), of_patch) for patch, of_patch in zip(batch, counts, strict=True)
                ]
        found = [of_patch for of_process in gather_objects(own) for of_patch in of_process]
        if process_rank() == 0 and found:
            self._write(found)

    @torch.inference_mode()
    def _count(self, batch: Sequence[Mapping[str, Any]]) -> Tensor:
        """Return the voxels of each patch and region in both, in the prediction and in the reference: (B, K, 3)."""
        device = next(self.network.parameters()).device
        image = torch.stack([torch.as_tensor(patch["image"]) for patch in batch]).float().to(device)
        dtype = autocast_dtype(device, self.amp)
        self.network.eval()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            predicted = self.network(image).argmax(dim=1).flatten(1).cpu()
        true = torch.stack([torch.as_tensor(patch["label"])[0] for patch in batch]).flatten(1).long()
        counts = []
        for value in range(1, len(self.regions) + 1):
            one, other = predicted == value, true == value
            counts.append(torch.stack([(one & other).sum(1), one.sum(1), other.sum(1)], dim=1))
        return torch.stack(counts, dim=1)

    def _write(self, found: Sequence[tuple[str, list[list[int]]]]) -> None:
        counts = torch.tensor([of_patch for _, of_patch in found])
        record: dict[str, Any] = {"patches": len(found), "regions": dice_of_patches(counts, self.regions)}
        of_domains: dict[str, dict[str, Any]] = {}
        for domain in self.domains:
            mask = torch.tensor([name == domain for name, _ in found])
            if mask.any():
                of_domains[domain] = {"patches": int(mask.sum())}
                of_domains[domain]["regions"] = dice_of_patches(counts[mask], self.regions)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, {**record, "domains": of_domains})
        table = "  ".join(f"{name} {of_region['dice']}" for name, of_region in record["regions"].items())
        logger.info("Dice of %d patches: %s (%s)", len(found), table, self.file)


def dice_of_patches(counts: Tensor, regions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return pooled and mean Dice per region.

    Args:
        counts: voxels (patches, K, 3) in both masks, in the prediction and in the reference.
        regions: names of the K regions.

    Returns:
        ``dice``, ``dice_mean`` and ``patches`` by region; Dice is None if no patch has the region.
    """
    scores = {}
    for index, name in enumerate(regions):
        both, sizes = counts[:, index, 0].double(), counts[:, index, 1:].sum(dim=1).double()
        has = sizes > 0
        pooled = round(float(2 * both.sum() / sizes.sum()), 4) if has.any() else None
        mean = round(float((2 * both[has] / sizes[has]).mean()), 4) if has.any() else None
        scores[name] = {"dice": pooled, "dice_mean": mean, "patches": int(has.sum())}
    return scores
