# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Sliding-window inference of 3-D networks on volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from monai.utils import convert_to_dst_type
from torch import Tensor

from segan_monai.content import content_box
from segan_monai.inferers.agreement import Agreement, attempt
from segan_monai.inferers.finite import require_finite_output
from segan_monai.inferers.members import infer_members
from segan_monai.inferers.memory import moved, with_less_memory
from segan_monai.inferers.mirroring import mean_of_mirrored
from segan_monai.mixed_precision import autocast_dtype
from segan_monai.networks.ensemble import members_of
from segan_monai.transforms.mirroring import each_mirror_axis


class VolumeWindowInferer(SlidingWindowInferer):
    """MONAI's ``SlidingWindowInferer`` with mixed precision, mirroring and a crop to the content.

    Volumes smaller than a window are centred and zero-padded, as ``RandForegroundPatchesd`` does in training.

    Args:
        roi_size: voxels of a window along each axis; the patch size used in training.
        amp: mixed precision on the device of the input (bfloat16; float16 on CUDA devices without bfloat16).
        channels_last: whether windows use the channels-last memory format.
        mirror_axes: axes along which each window is mirrored. The result is the mean of the logits over all
            combinations; each axis doubles the time. The network must have been trained with these axes.
        skip_empty: whether to crop the volume to its content. The output outside is ``empty_value``.
        margin: voxels kept around the content, see ``skip_empty``.
        empty_value: output of cropped voxels; the default is a logit whose sigmoid is below 1e-8.
        agreement: receives the overlap of the outputs that are averaged, if the call succeeds; None to compare none.
        **settings: other arguments of ``SlidingWindowInferer``. The windows of a batch, ``sw_batch_size``, are halved
            automatically if accelerator memory is insufficient.

    Raises:
        ConfigError: if ``mirror_axes`` is out of range.

    Examples:
        >>> VolumeWindowInferer((8, 8, 4))(torch.rand(1, 3, 10, 12, 3), torch.nn.Conv3d(3, 2, 1)).shape
        torch.Size([1, 2, 10, 12, 3])
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        *,
        amp: bool = False,
        channels_last: bool = True,
        mirror_axes: Sequence[int] = (),
        skip_empty: bool = True,
        margin: int = 16,
        empty_value: float = -20.0,
        agreement: Agreement | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(tuple(roi_size), **{"overlap": 0.5, "mode": "gaussian", **settings})
        self.patch_size = tuple(roi_size)
        self.amp = amp
        self.memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
        self.mirror_axes = each_mirror_axis(mirror_axes)
        self.skip_empty = skip_empty
        self.margin = margin
        self.empty_value = empty_value
        self.agreement = agreement

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Map volumes (B, C, H, W, D) to outputs (B, K, H, W, D).

        ``with_less_memory`` says what happens if accelerator memory is insufficient; the result may then be on the CPU.

        Raises:
            ValueError: if the input is not a batch of volumes.
            NonFiniteOutputError: if a value of the result is NaN or infinite.
        """
        if inputs.ndim != 5:
            raise ValueError(f"input has shape {tuple(inputs.shape)}, expected a batch of volumes (B, C, H, W, D).")
        if len(members_of(network)) > 1:
            with attempt(self.agreement):
                return infer_members(
                    lambda member: self(inputs, member, *args, **kwargs), inputs, network, self.plain_channels(inputs)
                )
        volume = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
        box = self._content(volume)

        function = self.function_of(network)

        def apply_to(window: Tensor) -> Tensor:
            return function(window.contiguous(memory_format=self.memory_format), *args, **kwargs).float()

        def windows(batch: Tensor) -> Tensor:
            dtype = autocast_dtype(batch.device, self.amp)
            with torch.autocast(batch.device.type, dtype=dtype, enabled=dtype is not None):
                return mean_of_mirrored(apply_to, batch, self.mirror_axes, axis=None, agreement=self.agreement)

        def apply(batch_size: int, device: torch.device) -> Tensor:
            inferer = copy(self)
            inferer.sw_batch_size = batch_size
            with moved(network, device), attempt(self.agreement):
                result = super(VolumeWindowInferer, inferer).__call__(volume[box].to(device), windows)
            if not isinstance(result, Tensor):
                raise AssertionError("the inferer must return a single tensor")
            output = result.new_full((*result.shape[:2], *volume.shape[2:]), self.empty_value)
            output[box] = result
            return output

        with attempt(self.agreement):
            output = with_less_memory(apply, self.sw_batch_size, volume.device, "windows")
            output = require_finite_output(output, inputs)
            # keeps the metadata of a MetaTensor
            return convert_to_dst_type(output, inputs, device=output.device)[0]

    def function_of(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function of the network that is applied to windows."""
        return network

    def plain_channels(self, inputs: Tensor) -> int:
        """Return how many of the last channels of the result are no logits; see ``combine_members``."""
        return 0

    def _content(self, volume: Tensor) -> tuple[slice, ...]:
        """Return the part of (B, C, H, W, D) around its content; the whole of an empty volume."""
        box = content_box((volume != 0).any(dim=1).any(dim=0), self.margin) if self.skip_empty else None
        return (slice(None), slice(None), *(box or (slice(None),) * 3))
