# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Training patches centred on tissue: Delisle et al. (2020), Sections 3.2 and 3.3."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor
from numpy.typing import NDArray

from segan_monai.errors import ConfigError, DataError

PARTS = ("training", "validation", "test")


def tissue_centres(
    label: torch.Tensor,
    stride: Sequence[int],
    part: str | None = None,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return patch centres: the positions on a grid where the label is not 0.

    Args:
        label: label map (1, H, W, D).
        stride: voxels between positions, along each axis (paper: 8).
        part: None for all; ``training``, ``validation`` or ``test`` for a share of them, drawn within each class of the
            centre voxel: the paper's stratified split by patch, which leaks.
        fractions: shares of the three parts (paper: 60, 20, 20 %).
        seed: of the draw.

    Returns:
        (N, 3). If the grid misses all tissue, the tissue voxel nearest to the middle of the volume; if there is none,
        the middle itself.
    """
    volume = torch.as_tensor(label)[0].numpy()
    grid = volume[tuple(slice(None, None, step) for step in stride)]
    centres = np.argwhere(grid != 0) * np.asarray(stride)
    if not len(centres):
        middle = np.array(volume.shape) // 2
        tissue = np.argwhere(volume != 0)
        nearest = tissue[((tissue - middle) ** 2).sum(1).argmin()] if len(tissue) else middle
        return nearest[None]
    if part is None:
        return centres
    classes = volume[tuple(centres.T)]
    generator = np.random.default_rng(seed)
    first, second = np.cumsum(fractions)[:2]
    chosen = []
    for value in np.unique(classes):
        of_class = generator.permutation(np.flatnonzero(classes == value))
        cuts = np.round(np.array([first, second]) * len(of_class)).astype(int)
        chosen.append(np.split(of_class, cuts)[PARTS.index(part)])
    return centres[np.sort(np.concatenate(chosen))]


class PatchFitsd(MapTransform):
    """Check that images are at least as large as a patch.

    Args:
        keys: images (C, H, W, D).
        patch_size: voxels of a patch along each axis.

    Raises:
        DataError: on call, if an image is smaller; the message names the case.
    """

    def __init__(self, keys: KeysCollection, patch_size: Sequence[int]) -> None:
        super().__init__(keys)
        self.patch_size = tuple(patch_size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the images and return the case unchanged."""
        case = dict(data)
        for key in self.key_iterator(case):
            shape = tuple(case[key].shape[1:])
            if any(found < wanted for found, wanted in zip(shape, self.patch_size, strict=True)):
                smaller = [min(pair) // 8 * 8 for pair in zip(shape, self.patch_size, strict=True)]
                raise DataError(
                    f"case {case.get('case', 'without name')}: the image has {shape} voxels (resampled and cropped to "
                    f"content), less than a patch of {self.patch_size}. Pass --pad_small_images true, which pads with "
                    f"zeros in training and inference alike, or a smaller --patch_size such as {smaller}."
                )
        return case


class TissueCentresd(MapTransform):
    """Store the patch centres of a case as ``<key>_centres`` for ``RandTissuePatchesd``, see ``tissue_centres``.

    Use it as the last cached transform, so that the volume is searched only once.

    Args:
        keys: label maps (1, H, W, D).
        stride: voxels between positions along each axis.
        part: None, or whose patches they are in a split by patch.
        fractions: shares of training, validation and test.
        seed: of the draw, together with the case's name.

    Raises:
        ConfigError: an unknown part.
    """

    def __init__(
        self,
        keys: KeysCollection,
        stride: Sequence[int] = (8, 8, 8),
        part: str | None = None,
        fractions: Sequence[float] = (0.6, 0.2, 0.2),
        seed: int = 0,
    ) -> None:
        super().__init__(keys)
        if part not in (None, *PARTS):
            raise ConfigError(f"part is {part!r}; expected None or one of {', '.join(PARTS)}.")
        self.stride = tuple(stride)
        self.part = part
        self.fractions = tuple(fractions)
        self.seed = seed

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with the centres of its patches."""
        case = dict(data)
        seed = zlib.crc32(f"{self.seed} {case.get('case')}".encode())
        for key in self.key_iterator(case):
            case[f"{key}_centres"] = tissue_centres(case[key], self.stride, self.part, self.fractions, seed)
        return case


class RandTissuePatchesd(Randomizable, MapTransform):
    """Draw patches around the centres that ``TissueCentresd`` noted; near an edge a patch is moved inwards.

    Args:
        keys: volumes (C, H, W, D) to cut alike.
        label_key: label map whose centres they are.
        patch_size: voxels along each axis, at most those of the volume.
        num_samples: patches per volume, drawn with replacement; None for one around every centre, in order.
        others: fields of the case that each patch keeps.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        patch_size: Sequence[int],
        num_samples: int | None = 4,
        others: Sequence[str] = ("case", "domain"),
    ) -> None:
        MapTransform.__init__(self, keys)
        if num_samples is not None and num_samples < 1:
            raise ConfigError(f"num_samples is {num_samples}, expected at least 1 patch per volume.")
        self.label_key = label_key
        self.patch_size = tuple(patch_size)
        self.num_samples = num_samples
        self.others = tuple(others)

    def randomize(self, centres: NDArray[np.int64]) -> NDArray[np.int64]:
        """Choose centres."""
        return centres if self.num_samples is None else centres[self.R.randint(len(centres), size=self.num_samples)]

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Return one dictionary per patch, with plain tensors (C, *patch_size)."""
        volumes = {key: convert_to_tensor(data[key], track_meta=False) for key in self.key_iterator(dict(data))}
        shape = np.array(volumes[self.label_key].shape[1:])
        size = np.array(self.patch_size)
        others = {key: data[key] for key in self.others if key in data}
        patches = []
        for centre in self.randomize(data[f"{self.label_key}_centres"]):
            start = np.clip(centre - size // 2, 0, np.maximum(shape - size, 0))
            window = (slice(None), *(slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True)))
            patches.append({**{key: volume[window].clone() for key, volume in volumes.items()}, **others})
        return patches
