# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Name the image whose network output is not finite; one call of the network for a whole image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from torch import Tensor

from segan_monai.finite import require_finite


def require_finite_output(output: Tensor, inputs: Tensor) -> Tensor:
    """Return the output of an inferer, unless it is not finite.

    Every inferer of this project ends with it: the one place that evaluation, validation, inference and MONAI Label
    have in common.

    Args:
        output: (B, K, ...), before sigmoid or softmax.
        inputs: (B, C, ...), the images.

    Raises:
        NonFiniteOutputError: names the first image with a value that is NaN or infinite.
    """
    for index, of_image in enumerate(output):
        require_finite(of_image, image_name(inputs, index))
    return output


def image_name(inputs: Tensor, index: int = 0) -> str:
    """Return the name of an image of a batch, or its number where it has no name."""
    files: Any = inputs.meta.get("filename_or_obj") if isinstance(inputs, MetaTensor) else None
    file = files[index] if isinstance(files, list | tuple) and index < len(files) else files
    if not file or not isinstance(file, str):
        return f"image {index + 1} of the batch"
    return f"case {Path(file).name.removesuffix('.nii.gz').removesuffix('.png')}"


class FiniteInferer(SimpleInferer):
    """MONAI's `SimpleInferer`, one call of the network, that refuses output with NaN or infinite values.

    Raises:
        NonFiniteOutputError: on call.

    Examples:
        >>> FiniteInferer()(torch.ones(1, 3, 4, 4), torch.nn.Identity()).shape
        torch.Size([1, 3, 4, 4])
    """

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Map images (B, C, H, W) to (B, K, H, W)."""
        return require_finite_output(super().__call__(inputs, network, *args, **kwargs), inputs)
