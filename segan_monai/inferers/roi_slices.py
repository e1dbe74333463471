# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Two-stage networks on volumes: slices as one batch, and the RoIs that the first stage found in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from segan_monai.errors import ConfigError
from segan_monai.inferers.slices import VolumeSliceInferer
from segan_monai.transforms.rand_slices import centre_padding

_WHOLE_PLANE = 2**30


class RoISliceInferer(VolumeSliceInferer):
    """`VolumeSliceInferer` that keeps the RoIs of an `LSNet`; other networks it applies as usual.

    Planes are never cropped to their content, since the size of a recalibrated RoI is that of the plane.

    Args:
        **settings: of `VolumeSliceInferer` but `margin`.

    Attributes:
        found: RoIs of the last volumes, (N, 8) float32: volume, slice, class, score, and the box without margin: left,
            top, right, bottom edge in continuous pixels of the plane (left, right along its second axis); None if the
            network has none.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(margin=_WHOLE_PLANE, **settings)
        if len(self.axes) > 1:
            raise ConfigError(
                f"axis is {list(self.axes)}, expected one axis: RoIs are noted for one direction of slices."
            )
        self.axis = self.axes[0]
        self.found: Tensor | None = None

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Map a volume (B, C, H, W, D) to (B, K, H, W, D) and note the RoIs."""
        self.found = None
        return super().__call__(inputs, network, *args, **kwargs)

    def _restacked(
        self, volume: Tensor, axis: int, network: Callable[..., Tensor], batch_size: int, *args: Any, **kwargs: Any
    ) -> Tensor:
        if not hasattr(network, "locate"):
            return super()._restacked(volume, axis, network, batch_size, *args, **kwargs)
        tables: list[Tensor] = []
        seen = 0

        def segment(batch: Tensor) -> Tensor:
            nonlocal seen
            rois = network.locate(batch)
            parts = (rois.image + seen, rois.channel, rois.scores)
            tables.append(torch.cat([torch.stack([p.float() for p in parts], 1), rois.edges().float()], 1).cpu())
            seen += len(batch)
            return network(batch, rois)

        result = super()._restacked(volume, axis, segment, batch_size, *args, **kwargs)
        self.found = self._in_volumes(torch.cat(tables), volume, axis)
        return result

    def _in_volumes(self, table: Tensor, volume: Tensor, axis: int) -> Tensor:
        """From positions in the batch of slices that were looked at, to volumes and slices."""
        slices = volume.movedim(2 + axis, 1).flatten(0, 1)
        wanted = self._content(slices)[0].cpu()
        left, _, top, _ = centre_padding(slices.shape[2:], self.min_size)
        index = wanted[table[:, 0].long()]
        depth = volume.shape[2 + axis]
        where = torch.stack([index // depth, index % depth], dim=1)
        return torch.cat([where, table[:, 1:3], table[:, 3:] - table.new_tensor([left, top, left, top])], dim=1)
