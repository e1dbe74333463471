# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""SegAN's segmentor as the U-Net that it is compared with: softmax over exclusive classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.networks.exclusive import class_to_region_logits, exclusive_classes
from segan_monai.networks.segan import SegANSegmentor


class ExclusiveClassSegmentor(nn.Module):
    """The U-Net baseline (Xue et al. 2017, section 3): exactly the segmentor, but its last layer is a softmax.

    Overlapping regions are split into the classes that their overlaps make, see `exclusive_classes`, and background.
    In training the output is the logits of background and classes, for `ExclusiveClassLoss`; in evaluation it is the
    logits of the regions, whose sigmoid is the sum of the softmax probabilities of the classes within each. So all
    that follows a SegAN segmentor follows this one unchanged.

    Args:
        in_channels: modalities C.
        out_channels: regions K.
        regions: label values of each of the K regions.
        **settings: of `SegANSegmentor`.

    Raises:
        ConfigError: if `out_channels` is not the number of regions.

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
        """Map slices (B, C, H, W) to logits: (B, 1 + N, H, W) of classes in training, (B, K, H, W) of regions else."""
        logits = self.segmentor(x)
        # an annotation of the buffer would say that it is a Tensor, and TorchScript could not read it
        return logits if self.training else class_to_region_logits(logits, self.classes)  # type: ignore[arg-type]
