# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Slice-wise inference of 2-D networks on volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from monai.inferers import Inferer, SlidingWindowInferer
from monai.utils import convert_to_dst_type
from torch import Tensor

from segan_monai.content import content_box
from segan_monai.errors import ConfigError
from segan_monai.inferers.agreement import Agreement, attempt
from segan_monai.inferers.case_statistics import CASE_SLICES, check_share, evenly_spaced, with_case_statistics
from segan_monai.inferers.finite import require_finite_output
from segan_monai.inferers.members import infer_members
from segan_monai.inferers.memory import moved, with_less_memory
from segan_monai.inferers.mirroring import mean_of_mirrored
from segan_monai.mixed_precision import autocast_dtype
from segan_monai.networks.ensemble import members_of
from segan_monai.transforms.mirroring import each_mirror_axis
from segan_monai.transforms.rand_slices import centre_padding, each_axis, neighbouring_slices

PLANE_STEP = 32
"""Planes for compiled networks are squares whose side is a multiple of it, so a data set has few sizes."""


def fixed_size(size: Sequence[int], min_size: Sequence[int]) -> tuple[int, int]:
    """Return the size to which planes are padded for a compiled network.

    Examples:
        >>> fixed_size((150, 170), (160, 160))
        (192, 192)
    """
    side = -(-max(*size, *min_size) // PLANE_STEP) * PLANE_STEP
    return side, side


def is_compiled(network: Callable[..., Any]) -> bool:
    """Return whether torch.compile has compiled a module, in place or by wrapping it."""
    return getattr(network, "_compiled_call_impl", None) is not None or hasattr(network, "_orig_mod")


class VolumeSliceInferer(Inferer):
    """Apply a 2-D network to the slices of a volume and restack its output on the volume's grid.

    Unlike MONAI's ``SliceInferer`` it needs no window, uses the channels-last memory format, supports bfloat16 on the
    CPU, and skips slices without content.

    For a network that torch.compile has compiled (``network.compile()``), planes are zero-padded to squares whose side
    is a multiple of 32, and batches to ``batch_size``. Few graphs then serve all cases; see ``fixed_shapes``.

    Args:
        axis: slicing axis, 0, 1 or 2 of (H, W, D). With several axes, the result is the mean of the outputs along each;
            the network must have been trained on all of them.
        batch_size: slices per batch; halved automatically if accelerator memory is insufficient.
        skip_empty: whether to skip slices that are 0 in every channel. Rows and columns that are 0 throughout the
            volume, and farther than ``margin`` from content, are cropped too. The output there is ``empty_value``.
        margin: margin in voxels, see ``skip_empty``.
        empty_value: output of skipped voxels; the default is a logit whose sigmoid is below 1e-8.
        amp: mixed precision on the device of the input (bfloat16; float16 on CUDA devices without bfloat16).
        channels_last: whether slices use the channels-last memory format.
        min_size: minimum rows and columns of a slice. Smaller slices are centred and zero-padded, and the output is
            cropped back. Pass the window size used in training: a network trained on small planes in padded windows
            relies on the padding (hippocampus: Dice .81 with it, .11 without).
        fixed_shapes: whether to pad planes and batches as for a compiled network; None to do so for such a network
            only. The padding continues the empty margin, so results differ as they do for a larger ``margin``.
        neighbours: number of neighbouring slices on each side, added as channels; see ``neighbouring_slices``.
        mirror_axes: axes of the volume along which it is mirrored. The result is the mean of the logits over all
            combinations; each axis doubles the time. The network must have been trained with these axes.
        window_overlap: None to segment whole planes. A share of ``min_size`` to segment windows of that size, which
            overlap by it, and to average them with Gaussian weights (MONAI's ``sliding_window_inference``): for
            networks that depend on the extent seen in training, or planes that do not fit in memory.
        case_statistics: share of the volume's own statistics in the network's batch norm layers, from 0 (those of the
            training) to 1, see ``with_case_statistics``. They are taken anew for each slicing axis. Volumes with fewer
            than 2 slices with content keep those of the training.
        agreement: receives the overlap of the outputs that are averaged, if the call succeeds; None to compare none.

    Raises:
        ConfigError: if ``axis``, ``batch_size``, ``neighbours``, ``mirror_axes``, ``window_overlap`` or
            ``case_statistics`` is out of range, or the last two are combined.

    Examples:
        >>> VolumeSliceInferer()(torch.rand(1, 3, 20, 22, 5), torch.nn.Conv2d(3, 2, 1)).shape
        torch.Size([1, 2, 20, 22, 5])
    """

    def __init__(
        self,
        axis: int | Sequence[int] = 2,
        batch_size: int = 16,
        skip_empty: bool = True,
        margin: int = 16,
        empty_value: float = -20.0,
        amp: bool = False,
        channels_last: bool = True,
        min_size: Sequence[int] = (1, 1),
        neighbours: int = 0,
        fixed_shapes: bool | None = None,
        mirror_axes: Sequence[int] = (),
        window_overlap: float | None = None,
        case_statistics: float = 0.0,
        agreement: Agreement | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, expected at least 1 slice per batch.")
        if neighbours < 0:
            raise ConfigError(f"neighbours is {neighbours}, expected 0 or more slices on each side.")
        if window_overlap is not None and not 0 <= window_overlap < 1:
            raise ConfigError(f"window_overlap is {window_overlap}, expected a number from 0 to below 1, or none.")
        if case_statistics and window_overlap is not None:
            raise ConfigError("case_statistics needs whole planes. Set window_overlap to null, or it to 0.")
        self.axes = each_axis(axis)
        self.batch_size = batch_size
        self.skip_empty = skip_empty
        self.margin = margin
        self.empty_value = empty_value
        self.amp = amp
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.min_size = tuple(min_size)
        self.neighbours = neighbours
        self.fixed_shapes = fixed_shapes
        self.mirror_axes = each_mirror_axis(mirror_axes)
        self.window_overlap = window_overlap
        self.case_statistics = check_share(case_statistics)
        self.agreement = agreement

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Map volumes (B, C, H, W, D) to outputs (B, K, H, W, D).

        ``with_less_memory`` says what happens if accelerator memory is insufficient; the result may then be on the CPU.

        Raises:
            ValueError: if the input is not a batch of volumes; with ``case_statistics``, of one volume.
            ConfigError: if the network cannot use ``case_statistics``.
            NonFiniteOutputError: if a value of the result is NaN or infinite.
        """
        if inputs.ndim != 5:
            raise ValueError(f"input has shape {tuple(inputs.shape)}, expected a batch of volumes (B, C, H, W, D).")
        if self.case_statistics and len(inputs) > 1:
            raise ValueError(f"{len(inputs)} volumes in a batch; case_statistics expects 1. Set the batch size to 1.")
        if len(members_of(network)) > 1:
            with attempt(self.agreement):
                return infer_members(lambda member: self(inputs, member, *args, **kwargs), inputs, network)
        if self.case_statistics and is_compiled(network):
            raise ConfigError(
                "case_statistics changes the network for each case, and this one is compiled. Set case_statistics to "
                "0, or do not compile the network."
            )
        volume = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs

        def apply(batch_size: int, device: torch.device) -> Tensor:
            with moved(network, device), attempt(self.agreement):
                there = volume.to(device)
                result = self._restacked(there, self.axes[0], network, batch_size, *args, **kwargs)
                masks: list[Tensor] = []
                if self.agreement is not None and len(self.axes) > 1:
                    self.agreement.compare("axes", masks, result)
                for axis in self.axes[1:]:
                    output = self._restacked(there, axis, network, batch_size, *args, **kwargs)
                    if self.agreement is not None:
                        self.agreement.compare("axes", masks, output)
                    result += output
                return result / len(self.axes) if len(self.axes) > 1 else result

        with attempt(self.agreement):
            restacked = require_finite_output(with_less_memory(apply, self.batch_size, volume.device), inputs)
            # keeps the metadata of a MetaTensor
            return convert_to_dst_type(restacked, inputs, device=restacked.device)[0]

    def _restacked(
        self, volume: Tensor, axis: int, network: Callable[..., Tensor], batch_size: int, *args: Any, **kwargs: Any
    ) -> Tensor:
        stacked = volume.movedim(2 + axis, 1)  # (B, S, C, U, V)
        slices = stacked.flatten(0, 1)  # a view where B is 1
        wanted, rows, columns = self._content(slices)
        plane, size = slices.shape[2:], (rows.stop - rows.start, columns.stop - columns.start)
        fixed = is_compiled(network) if self.fixed_shapes is None else self.fixed_shapes
        wanted_size = fixed_size(size, self.min_size) if fixed else self.min_size
        padding = centre_padding(size, wanted_size)
        left, top = padding[0], padding[2]
        dtype = autocast_dtype(volume.device, self.amp)

        def cut(index: Tensor) -> Tensor:
            batch = neighbouring_slices(stacked[..., rows, columns], index, self.neighbours)
            return F.pad(batch, padding) if any(padding) else batch

        def whole(batch: Tensor) -> Tensor:
            return network(batch.contiguous(memory_format=self.memory_format), *args, **kwargs)

        def apply(batch: Tensor) -> Tensor:
            if self.window_overlap is None:
                return whole(batch)
            windows = SlidingWindowInferer(self.min_size, batch_size, self.window_overlap, mode="gaussian")
            return cast(Tensor, windows(batch, lambda window: whole(window).float()))

        output: Tensor | None = None
        with torch.autocast(volume.device.type, dtype=dtype, enabled=dtype is not None):
            if self.case_statistics and len(wanted) > 1:
                count = max(2, CASE_SLICES * batch_size // self.batch_size)  # fewer where memory is insufficient
                of_case = cut(evenly_spaced(wanted, count)).contiguous(memory_format=self.memory_format)
                network = with_case_statistics(network, of_case, self.case_statistics)
            for index in wanted.split(batch_size):
                batch = cut(index)
                if fixed:  # the last batch is smaller
                    batch = F.pad(batch, [0] * 7 + [batch_size - len(batch)])
                result = mean_of_mirrored(apply, batch, self.mirror_axes, axis, self.neighbours, self.agreement)[
                    : len(index)
                ]
                if output is None:
                    shape = (len(slices), result.shape[1], *plane)
                    output = torch.full(shape, self.empty_value, dtype=torch.float32, device=volume.device)
                output[index, :, rows, columns] = result[..., top : top + size[0], left : left + size[1]].float()
        if output is None:
            raise AssertionError("there is always at least one slice to segment")
        return output.unflatten(0, (volume.shape[0], -1)).movedim(1, 2 + axis)

    def _content(self, slices: Tensor) -> tuple[Tensor, slice, slice]:
        """Return the slices, rows and columns of (S, C, U, V) with content; one slice if the volume is empty."""
        every = torch.arange(len(slices), device=slices.device)
        whole = slice(0, slices.shape[2]), slice(0, slices.shape[3])
        if not self.skip_empty:
            return every, *whole
        used = (slices != 0).any(dim=1)
        box = content_box(used.any(dim=0), self.margin)
        if box is None:
            return every[:1], *whole
        rows, columns = box
        return every[used.flatten(1).any(dim=1)], rows, columns
