# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks that network output is finite, and an inferer for whole images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from monai.utils import convert_to_dst_type
from torch import Tensor

from segan_monai.finite import require_finite
from segan_monai.inferers.agreement import Agreement, attempt
from segan_monai.inferers.members import infer_members
from segan_monai.inferers.mirroring import mean_of_mirrored
from segan_monai.networks.ensemble import members_of
from segan_monai.transforms.mirroring import each_mirror_axis


def require_finite_output(output: Tensor, inputs: Tensor) -> Tensor:
    """Check that the output of an inferer is finite, and return it.

    Every inferer of this project calls it, so evaluation, validation, inference and MONAI Label share the check.

    Args:
        output: (B, K, ...), before sigmoid or softmax.
        inputs: images (B, C, ...).

    Raises:
        NonFiniteOutputError: if a value is NaN or infinite. The message names the first image concerned.
    """
    for index, of_image in enumerate(output):
        require_finite(of_image, image_name(inputs, index))
    return output


def image_name(inputs: Tensor, index: int = 0) -> str:
    """Return the name of an image of a batch, or its number if it has no name."""
    files: Any = inputs.meta.get("filename_or_obj") if isinstance(inputs, MetaTensor) else None
    file = files[index] if isinstance(files, list | tuple) and index < len(files) else files
    if not file or not isinstance(file, str):
        return f"image {index + 1} of the batch"
    return f"case {Path(file).name.removesuffix('.nii.gz').removesuffix('.png')}"


class FiniteInferer(SimpleInferer):
    """MONAI's ``SimpleInferer`` (one call of the network) with a check for NaN and infinite output.

    Args:
        mirror_axes: axes of the photograph along which it is mirrored, 0 (left-right) and 1 (up-down). The result is
            the mean of the logits over all combinations; each axis doubles the time.
        agreement: receives the overlap of these views, if the call succeeds; None to compare none.

    Raises:
        ConfigError: if ``mirror_axes`` is out of range.
        NonFiniteOutputError: on call, if a value is NaN or infinite.

    Examples:
        >>> FiniteInferer()(torch.ones(1, 3, 4, 4), torch.nn.Identity()).shape
        torch.Size([1, 3, 4, 4])
    """

    def __init__(self, mirror_axes: Sequence[int] = (), agreement: Agreement | None = None) -> None:
        super().__init__()
        self.mirror_axes = each_mirror_axis(mirror_axes, dimensions=2)
        self.agreement = agreement

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Map images (B, C, H, W) to (B, K, H, W)."""
        if len(members_of(network)) > 1:
            with attempt(self.agreement):
                return infer_members(lambda member: self(inputs, member, *args, **kwargs), inputs, network)
        plain = (
            inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        )  # torch.compile cannot trace MetaTensor

        def apply(batch: Tensor) -> Tensor:
            return SimpleInferer.__call__(self, batch, network, *args, **kwargs)

        with attempt(self.agreement):
            output = mean_of_mirrored(apply, plain, self.mirror_axes, agreement=self.agreement)
            output = require_finite_output(output, inputs)
            return convert_to_dst_type(output, inputs, dtype=output.dtype, device=output.device)[0]
