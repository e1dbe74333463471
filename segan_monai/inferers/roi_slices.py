# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Slice-wise inference of two-stage networks on volumes, with a record of the RoIs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from segan_monai.errors import ConfigError
from segan_monai.finite import NonFiniteOutputError
from segan_monai.inferers.agreement import attempt
from segan_monai.inferers.finite import image_name
from segan_monai.inferers.members import infer_members
from segan_monai.inferers.slices import VolumeSliceInferer
from segan_monai.networks.ensemble import members_of
from segan_monai.transforms.rand_slices import centre_padding

_WHOLE_PLANE = 2**30


class RoISliceInferer(VolumeSliceInferer):
    """``VolumeSliceInferer`` that records the RoIs of an ``LSNet``; other networks are applied as usual.

    Of an ensemble, the RoIs of all members are recorded.

    Planes are not cropped to their content, because a recalibrated RoI has the size of the plane.

    Args:
        **settings: arguments of ``VolumeSliceInferer`` except ``margin`` and ``fixed_shapes``.

    Attributes:
        found: RoIs of the last volumes, (N, 8), float32; None if the network has no RoIs. Columns: volume, slice,
            class, score, and the left, top, right and bottom edge of the box without margin, in continuous pixels of
            the plane (left and right along its second axis).

    Raises:
        ConfigError: if ``axis`` is more than one axis, or ``mirror_axes`` or ``case_statistics`` is given.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(margin=_WHOLE_PLANE, fixed_shapes=False, **settings)
        if len(self.axes) > 1:
            raise ConfigError(
                f"axis is {list(self.axes)}; expected one axis: RoIs are recorded for one slice direction."
            )
        if self.mirror_axes:
            raise ConfigError(f"mirror_axes is {list(self.mirror_axes)}; expected []: RoIs are recorded for one view.")
        if self.case_statistics:
            raise ConfigError(
                f"case_statistics is {self.case_statistics}; expected 0: RoIs are segmented by a network of their own."
            )
        self.axis = self.axes[0]
        self.found: Tensor | None = None

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Map volumes (B, C, H, W, D) to (B, K, H, W, D) and record the RoIs.

        Raises:
            NonFiniteOutputError: if an output value of either stage is NaN or infinite.
        """
        self.found = None
        if len(members_of(network)) > 1:
            tables: list[Tensor | None] = []

            def of_member(member: Callable[..., Tensor]) -> Tensor:
                output = self(inputs, member, *args, **kwargs)
                tables.append(self.found)
                return output

            with attempt(self.agreement):
                mean = infer_members(of_member, inputs, network)
            found = [table for table in tables if table is not None]
            self.found = torch.cat(found) if found else None
            return mean
        if not hasattr(network, "locate"):
            return super().__call__(inputs, network, *args, **kwargs)
        try:
            return super().__call__(inputs, network, *args, **kwargs)
        except NonFiniteOutputError as error:  # `LSNet` receives slices, which have no case name
            raise NonFiniteOutputError(f"{image_name(inputs)}: {error}") from error

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
        """Convert positions in the batch of nonempty slices to indices of volumes and slices."""
        slices = volume.movedim(2 + axis, 1).flatten(0, 1)
        wanted = self._content(slices)[0].cpu()
        left, _, top, _ = centre_padding(slices.shape[2:], self.min_size)
        index = wanted[table[:, 0].long()]
        depth = volume.shape[2 + axis]
        where = torch.stack([index // depth, index % depth], dim=1)
        return torch.cat([where, table[:, 1:3], table[:, 3:] - table.new_tensor([left, top, left, top])], dim=1)
