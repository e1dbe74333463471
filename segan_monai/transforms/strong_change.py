# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Random strong change of the intensities of a batch, for training with unlabelled images."""

from __future__ import annotations

import torch
from torch import Tensor

from segan_monai.errors import ConfigError


class RandStrongChange:
    """Change contrast, brightness and noise of each image of a batch, and erase a rectangle.

    The segmentor must predict the same for the changed image as the teacher does for the unchanged one. The geometry
    stays, so that both predictions belong to the same pixels. Values are relative to the image's own standard deviation
    s and mean m, per modality: x becomes (x - m) * a + m + b * s + noise * s. The rectangle is filled with m. Where
    neighbouring slices are channels, all slices of a modality change alike.

    It works on the batch's device and draws from torch's random generator.

    Args:
        contrast: largest change of contrast; the factor a is uniform in [1 - contrast, 1 + contrast].
        brightness: largest shift b in standard deviations.
        noise: largest standard deviation of the Gaussian noise, relative to s.
        erased: largest side of the rectangle as a share of the side of the image; 0 for none.
        modalities: number of modalities (or colours) M of each slice. Images have S * M channels, the M of each slice
            in slice order, see ``neighbouring_slices``. None for one slice.

    Raises:
        ConfigError: if a value is negative, ``contrast`` or ``erased`` is above 1, or the channels of images are no
            multiple of ``modalities``.

    Examples:
        >>> image = torch.rand(2, 1, 8, 8)
        >>> torch.equal(RandStrongChange(0, 0, 0, 0)(image), image)
        True
    """

    def __init__(
        self,
        contrast: float = 0.4,
        brightness: float = 0.4,
        noise: float = 0.2,
        erased: float = 0.35,
        modalities: int | None = None,
    ) -> None:
        self.contrast, self.brightness, self.noise, self.erased = contrast, brightness, noise, erased
        self.modalities = modalities
        if min(contrast, brightness, noise, erased) < 0 or max(contrast, erased) > 1:
            raise ConfigError(
                f"strong change: contrast {contrast}, brightness {brightness}, noise {noise}, erased {erased}; "
                "expected 0 or more, and contrast and erased at most 1."
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Return changed images (B, S * M, H, W[, D]); the input stays as it is."""
        modalities = self.modalities or images.shape[1]
        if images.shape[1] % modalities:
            raise ConfigError(f"strong change: images have {images.shape[1]} channels, no multiple of {modalities}.")
        slices = images.unflatten(1, (-1, modalities))
        axes = (1, *range(3, slices.ndim))
        mean, std = slices.mean(dim=axes, keepdim=True), slices.std(dim=axes, keepdim=True)

        def draw(largest: float) -> Tensor:
            return (2 * torch.rand(std.shape, device=images.device) - 1) * largest

        changed = slices
        if self.contrast or self.brightness:
            changed = torch.lerp(changed, mean, -draw(self.contrast)) + draw(self.brightness) * std
        if self.noise:
            changed = changed + torch.randn_like(slices) * std * draw(self.noise).abs()
        if self.erased:
            changed = torch.where(self._rectangle(images)[:, None], mean, changed)
        return changed.flatten(1, 2)

    def _rectangle(self, images: Tensor) -> Tensor:
        """Return a mask (B, 1, H, W) of one random rectangle per image."""
        inside = torch.ones(len(images), 1, *[1 for _ in images.shape[2:]], dtype=torch.bool, device=images.device)
        for axis in range(2, images.ndim):
            size = images.shape[axis]
            shape = [len(images), *[1 for _ in images.shape[1:]]]
            length = torch.rand(shape, device=images.device) * self.erased * size
            start = torch.rand(shape, device=images.device) * (size - length)
            positions = torch.arange(size, device=images.device).view(
                [-1 if i == axis else 1 for i in range(images.ndim)]
            )
            inside = inside & (positions + 0.5 >= start) & (positions + 0.5 < start + length)
        return inside
