# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Parts of a bundle as Python objects: network, preprocessing and inferer, with the settings of ``inference.json``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from torch import nn

from segan_monai.errors import user_error_in
from segan_monai.export.formats import ExportedBundle
from segan_monai.member_weights import weight_files
from segan_monai.networks import network_of_weights

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def load_network(
    bundle: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None, **settings: Any
) -> nn.Module:
    """Load the network of a bundle with its weights, in evaluation mode on the CPU.

    An ensemble that the bundle includes becomes a ``NetworkEnsemble``, which the bundle's inferer takes as any network.

    Example:
        ``network = load_network("bundles/hippocampus_mri_segan_segmentation")``

    Args:
        bundle: folder of the bundle.
        weights: file of weights; default: those that the bundle includes.
        **settings: keys of the config and their values, such as ``base_channels=32``.

    Returns:
        The network, which returns one logit per region, see the bundle's page.

    Raises:
        ConfigError: The bundle does not exist, or the weights are missing or of another architecture.
    """
    exported = ExportedBundle(Path(bundle), Path(weights) if weights else None, overrides=settings)
    files = weight_files(None, exported.included_weights_dir) if weights is None else [exported.weights]
    return network_of_weights(exported.parser.get_parsed_content("network_def"), files).eval()


def load_preprocessing(bundle: str | os.PathLike[str], **settings: Any) -> Callable[[Files], MetaTensor]:
    """Return the preprocessing of a bundle as a function of image files.

    The function takes the path of an image, or the paths of its modalities in the bundle's order. It returns the image
    as the inferer expects it: (C, H, W, D) for a volume, (C, H, W) for a photograph. Its ``affine`` places the voxels
    in the scanner's coordinates in mm.

    Args:
        bundle: folder of the bundle.
        **settings: keys of the config and their values.

    Raises:
        ConfigError: The bundle does not exist.
        DataError: On call, if a file cannot be used.
    """
    transform = _content(bundle, "preprocessing", settings)

    def preprocess(image: Files) -> MetaTensor:
        files = [image] if isinstance(image, (str, os.PathLike)) else image
        paths = [os.fspath(file) for file in files]
        case = {"image": paths if len(paths) > 1 else paths[0], "case": Path(paths[0]).name}
        try:
            return transform(case)["image"]
        except RuntimeError as error:  # MONAI's, around an error of a transform
            raise user_error_in(error) or error from None

    return preprocess


def load_inferer(bundle: str | os.PathLike[str], **settings: Any) -> Any:
    """Return the inferer of a bundle: called with a batch (B, C, ...) and the network, it returns the logits.

    Args:
        bundle: folder of the bundle.
        **settings: keys of the config and their values.

    Raises:
        ConfigError: The bundle does not exist.
    """
    return _content(bundle, "inferer", settings)


def _content(bundle: str | os.PathLike[str], name: str, settings: dict[str, Any]) -> Any:
    return ExportedBundle(Path(bundle), overrides=settings).parser.get_parsed_content(name)
