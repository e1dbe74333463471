# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""U-Net baseline of SegAN: the same segmentor with a softmax over exclusive classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.networks.exclusive import class_to_region_logits, exclusive_classes
from segan_monai.networks.segan import SegANSegmentor


class ExclusiveClassSegmentor(nn.Module):
    """U-Net baseline of Xue et al. (2018), Section 3: SegAN's segmentor with a softmax as its last layer.

    Overlapping regions are split into exclusive classes and background, see ``exclusive_classes``.

    - In training mode the output is the logits of background and classes, for ``ExclusiveClassLoss``.
    - In evaluation mode it is the region logits, whose sigmoid is the sum of the softmax probabilities of the region's
      classes. Postprocessing of a SegAN segmentor therefore works unchanged.

    Args:
        in_channels: number of modalities C.
        out_channels: number of regions K.
        regions: label values of each of the K regions.
        **settings: other arguments of ``SegANSegmentor``.

    Raises:
        ConfigError: if ``out_channels`` is not the number of regions.

    Examples:
        >>> network = ExclusiveClassSegmentor(1, 2, {"tumour": [1, 2], "core": [2]}, base_channels=8)
        >>> network(torch.zeros(2, 1, 32, 32)).shape, network.eval()(torch.zeros(2, 1, 32, 32)).shape
        (torch.Size([2, 3, 32, 32]), torch.Size([2, 2, 32, 32]))
    """

    def __init__(
        self, in_channels: int, out_channels: int, regions: Mapping[str, Sequence[int]], **settings: int | None
    ) -> None:
        super().__init__()
        if out_channels != len(regions):
            raise ConfigError(f"out_channels is {out_channels}, but there are {len(regions)} regions: {list(regions)}.")
        classes = exclusive_classes(regions)
        self.register_buffer("classes", classes, persistent=False)
        self.segmentor = SegANSegmentor(in_channels, 1 + len(classes), **settings)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (B, C, H, W) to class logits (B, 1 + N, H, W) in training, else region logits (B, K, H, W)."""
        logits = self.segmentor(x)
        # annotating the buffer as a Tensor would satisfy mypy but break TorchScript
        return logits if self.training else class_to_region_logits(logits, self.classes)  # type: ignore[arg-type]
