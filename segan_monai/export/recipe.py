# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Pre- and postprocessing of a bundle as plain values that are stored in an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CropForegroundd,
    Invertd,
    NormalizeIntensityd,
    Orientationd,
    SaveImaged,
    ScaleIntensityRanged,
    Spacingd,
)

from segan_monai.errors import ConfigError
from segan_monai.inferers import VolumeSliceInferer, VolumeWindowInferer
from segan_monai.quality import QualitySignalsd
from segan_monai.transforms import (
    LoadCased,
    PatchFitsd,
    RegionRulesd,
    RegionsToLabelMapd,
    ResizeSlicesd,
    ScaleForegroundd,
    ScaleHeadd,
    SplitNormalizedd,
)
from segan_monai.transforms.regions import paint_order, regions_are_exclusive


def inference_recipe(parser: ConfigParser) -> dict[str, Any]:
    """Read preprocessing, inferer and postprocessing of a bundle's inference config.

    Args:
        parser: Parser of the config, with overrides applied.

    Returns:
        The recipe that ``segan_monai/export/run_onnx.py`` reads: ``channels`` of the image, ``steps`` before the
        network, ``inferer``, ``activation``, ``labels``, and ``rules`` of the regions if there are any.

    Raises:
        ConfigError: A component is not supported by the script, which runs without MONAI.
    """
    channels, steps = 0, []
    for transform in _transforms(parser, "preprocessing"):
        if isinstance(transform, LoadCased):
            channels = transform.num_channels or 1
        elif not isinstance(transform, PatchFitsd):
            steps.append(_step(transform))
    return {
        "channels": channels,
        "steps": steps,
        "inferer": _inferer(parser.get_parsed_content("inferer")),
        **_after(_transforms(parser, "postprocessing")),
    }


def class_names(parser: ConfigParser) -> dict[str, str]:
    """Return the name of each value of a bundle's label maps, in the order of the network's outputs.

    Names are the labels of the metadata's ``segments``, or those of the regions.

    Args:
        parser: Parser of the config and its metadata, with overrides applied.
    """
    metadata = parser["_meta_"]
    if "label_regions" not in parser:
        return metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    regions: Mapping[str, Any] = parser.get_parsed_content("label_regions")
    values: Sequence[int] = range(1, len(regions) + 1)
    for transform in _transforms(parser, "postprocessing"):
        values = transform.values if isinstance(transform, RegionsToLabelMapd) else values
    labels = [metadata.get("segments", {}).get(name, {}).get("label", name) for name in regions]
    return {"0": "background", **dict(zip(map(str, values), labels, strict=True))}


def _transforms(parser: ConfigParser, name: str) -> Sequence[Any]:
    content = parser.get_parsed_content(name)
    return content.transforms if isinstance(content, Compose) else content


def _step(transform: Any) -> dict[str, Any]:
    if isinstance(transform, Orientationd):
        return {"kind": "orientation", "axcodes": transform.ornt_transform.axcodes}
    if isinstance(transform, ScaleForegroundd):
        return {"kind": "foreground_percentiles", "lower": transform.lower, "upper": transform.upper}
    if isinstance(transform, ScaleHeadd):
        return {"kind": "head_median"}
    if isinstance(transform, ResizeSlicesd):
        return {"kind": "resize_planes", "size": list(transform.size)}
    if isinstance(transform, Spacingd):
        return {"kind": "spacing", "mm": [float(mm) for mm in transform.spacing_transform.pixdim]}
    if isinstance(transform, CropForegroundd) and transform.source_key == transform.keys[0]:
        return {"kind": "crop"}
    if isinstance(transform, NormalizeIntensityd) and transform.normalizer.subtrahend is None:
        return {"kind": "standardize", "nonzero": transform.normalizer.nonzero}
    if isinstance(transform, ScaleIntensityRanged):
        scaler = transform.scaler
        if (scaler.b_min, scaler.b_max, scaler.clip) == (0, 1, True):
            return {"kind": "window", "lower": float(scaler.a_min), "upper": float(scaler.a_max)}
    raise _unknown(transform)


def _inferer(inferer: Any) -> dict[str, Any]:
    if isinstance(inferer, VolumeSliceInferer) and inferer.window_overlap is not None:
        raise ConfigError("window_overlap has no counterpart without MONAI for slices. Set window_overlap to null.")
    if isinstance(inferer, VolumeSliceInferer) and inferer.case_statistics:
        raise ConfigError("case_statistics has no counterpart in exported networks. Set case_statistics to 0.")
    if isinstance(inferer, VolumeSliceInferer):
        names = ("axes", "batch_size", "skip_empty", "margin", "empty_value", "neighbours")
        settings = {"kind": "slices", **{n: getattr(inferer, n) for n in names}, "min_size": list(inferer.min_size)}
        # earlier copies of the script do not know the key
        return {**settings, "mirror_axes": list(inferer.mirror_axes)} if inferer.mirror_axes else settings
    if isinstance(inferer, SlidingWindowInferer) and str(inferer.mode) == "gaussian":
        settings = {
            "size": "roi_size",
            "overlap": "overlap",
            "batch_size": "sw_batch_size",
            "sigma_scale": "sigma_scale",
        }
        found = {"kind": "windows", **{name: getattr(inferer, of_inferer) for name, of_inferer in settings.items()}}
        # earlier copies of the script do not know these keys
        if isinstance(inferer, VolumeWindowInferer) and inferer.mirror_axes:
            found["mirror_axes"] = list(inferer.mirror_axes)
        if isinstance(inferer, VolumeWindowInferer) and inferer.skip_empty:
            found |= {"margin": inferer.margin, "empty_value": inferer.empty_value}
        return found
    raise _unknown(inferer)


def _after(transforms: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for transform in transforms:
        if isinstance(transform, Activationsd) and (transform.sigmoid[0] or transform.softmax[0]):
            found["activation"] = "softmax" if transform.softmax[0] else "sigmoid"
        elif isinstance(transform, RegionRulesd):
            # earlier copies of the script do not know fill_holes
            found["rules"] = [list(rule if rule.fill_holes else rule[:3]) for rule in transform.rules]
        elif isinstance(transform, RegionsToLabelMapd):
            exclusive = regions_are_exclusive(transform.regions) and len(transform.values) > 1
            found["labels"] = {
                "values": transform.values,
                "rule": "highest" if exclusive else "paint",
                "threshold": transform.threshold,
                "order": paint_order(transform.regions),
            }
        elif isinstance(transform, AsDiscreted) and transform.argmax[0]:
            values = list(range(256))
            found["labels"] = {"values": values, "rule": "argmax", "threshold": 0.0, "order": []}
        elif not isinstance(transform, Invertd | QualitySignalsd | SaveImaged | SplitNormalizedd):
            raise _unknown(transform)
    if not {"activation", "labels"} <= found.keys():
        raise ConfigError("the postprocessing has no activation (sigmoid or softmax) or creates no label map.")
    return found


def _unknown(component: Any) -> ConfigError:
    return ConfigError(f"{type(component).__name__} of the inference config has no counterpart without MONAI")
