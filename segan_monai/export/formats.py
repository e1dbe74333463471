# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Export of a bundle's trained network to other formats, by ``monai.bundle``'s exporters where available."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export, onnx_export
from torch import Tensor, nn

from segan_monai.check import check_overlay_files
from segan_monai.errors import ConfigError
from segan_monai.export.recipe import class_names, inference_recipe
from segan_monai.export.run_onnx import RECIPE
from segan_monai.export.single_weights import single_weights
from segan_monai.member_weights import network_files
from segan_monai.networks import load_weights
from segan_monai.optional import require_modules
from segan_monai.trained import apply_trained_settings, given_keys, included_weights_dir, read_trained_settings
from segan_monai.transforms import ResizeSlicesd
from segan_monai.typed import config_values

FORMATS = ("torchscript", "onnx", "torch-export")
SETTINGS_FILE = "model.json"  # extra file of TorchScript and torch.export files
_PLANES = ((64, 96, 32), (96, 64, 64))  # two arbitrary sizes, multiples of the networks' divisors


class ExportedBundle:
    """Exporter of the network defined by a bundle's ``inference.json``.

    - Batch and image size are dynamic in ONNX and torch.export files. If the bundle resizes every slice to one size
      (``ResizeSlicesd``), the image size is fixed.
    - In a torch.export file, sizes must be multiples of the network's divisor, as its guards enforce. ONNX files accept
      the same sizes as the network.
    - Every file contains the settings of the training (``model.json``), if the weights have them: TorchScript and
      torch.export files as the extra file ``model.json``, ONNX files in the metadata.
    - An exported L-SNet always processes exactly ``max_rois`` RoIs.

    Args:
        bundle: Folder of the bundle.
        weights: File of weights, or folder with ``model.pt``; by default those that the bundle includes.
        overlays: Config files merged over ``inference.json``.
        overrides: Config keys and their values.

    Raises:
        ConfigError: The bundle does not exist, or the weights are missing, of another architecture or those of an
            ensemble; or an overlay or override contradicts the settings of the training in ``model.json``.
    """

    def __init__(
        self,
        bundle: str | Path,
        weights: str | Path | None = None,
        overlays: Sequence[str | Path] = (),
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self.bundle = Path(bundle)
        self.files = [str(self.bundle / "configs" / "inference.json"), *map(str, overlays)]
        self.meta_file = str(self.bundle / "configs" / "metadata.json")
        for file in (self.files[0], self.meta_file):
            if not Path(file).is_file():
                raise ConfigError(f"{file}: no such file; expected the folder of a bundle, with configs/ in it.")
        self._weights = weights
        if (overrides or {}).get("weights") is not None:
            raise ConfigError(f"weights={(overrides or {})['weights']} has no effect here. Pass --weights FILE.")
        self.overrides = config_values({"bundle_root": str(self.bundle), "device": "cpu", **(overrides or {})})
        self.trained: dict[str, Any] = {}  # settings of the training, once the config is read

    @cached_property
    def weights(self) -> Path:
        """The file of weights.

        Raises:
            ConfigError: The bundle includes an ensemble alone, or ``weights`` names one.
        """
        return single_weights(self._weights, self.included_weights_dir)

    @cached_property
    def included_weights_dir(self) -> Path:
        """The folder of the weights that the bundle includes, under overlays and overrides."""
        return included_weights_dir(self._config.config, self.bundle)  # type: ignore[arg-type]

    @cached_property
    def _config(self) -> ConfigParser:
        check_overlay_files(self.files)
        parser = ConfigParser()
        parser.read_config(self.files)
        parser.read_meta(self.meta_file)
        for key, value in self.overrides.items():
            parser[key] = value
        if "cases" in parser:
            parser["cases"] = []  # exports need no data
        return parser

    @cached_property
    def parser(self) -> ConfigParser:
        """The inference config with overlays, overrides, metadata and the settings of the training."""
        parser = self._config
        first = network_files(self.included_weights_dir)[0] if self._weights is None else self.weights
        self.trained = apply_trained_settings(parser, first, given_keys(self.files[1:], self.overrides))
        return parser

    @cached_property
    def network(self) -> nn.Module:
        """The network with its weights, in evaluation mode."""
        return load_weights(self.parser.get_parsed_content("network_def"), self.weights).eval()

    @cached_property
    def fixed_size(self) -> tuple[int, ...] | None:
        """The fixed image size of the network, or None if it is dynamic."""
        steps = getattr(self.parser.get_parsed_content("preprocessing"), "transforms", [])
        return next((step.size for step in steps if isinstance(step, ResizeSlicesd)), None)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of the training that the exported network has; empty for weights without ``model.json``."""
        trained = read_trained_settings(self.weights)
        found = {k: self.parser.get_parsed_content(k) if k in self.parser else value for k, value in trained.items()}
        if "regions" in found and "label_regions" in self.parser:  # a label convention as values by name
            found["regions"] = self.parser.get_parsed_content("label_regions")
        return found

    def example(self, other: bool = False, any_size: bool = False) -> Tensor:
        """Return a random input (B, C, H, W[, D]).

        Args:
            other: Whether to use another batch and image size.
            any_size: Whether the other size is odd, if the metadata allow any size.
        """
        image = self.parser["_meta_"]["network_data_format"]["inputs"]["image"]
        shape = image["spatial_shape"]
        if "spatial_dims" in self.parser:  # the config decides whether the network takes slices
            shape = ["*"] * self.parser.get_parsed_content("spatial_dims")
        dimensions = len(shape)
        sizes = [size // 2 if dimensions == 3 else size for size in _PLANES[other][:dimensions]]
        if other and any_size and set(shape) == {"*"}:
            sizes = [size - 13 for size in sizes]
        generator = torch.Generator().manual_seed(int(other))
        own = "in_channels" in self.parser  # the config decides whether neighbouring slices are channels
        channels = self.parser.get_parsed_content("in_channels") if own else image["num_channels"]
        return torch.rand(3 if other else 2, channels, *(self.fixed_size or sizes), generator=generator)

    def export(self, kind: str, file: str | Path) -> Path:
        """Write the network in one of ``FORMATS``; create the folder if missing.

        Returns:
            The file, with the ending ``.ts`` if it has none and is TorchScript.

        Raises:
            ConfigError: The format is unknown, or ONNX is wanted and its packages are not installed.
        """
        if kind not in FORMATS:
            raise ConfigError(f"unknown format '{kind}'; expected one of {', '.join(FORMATS)}, or map.")
        file = Path(file)
        if kind == "torchscript" and not file.suffix:
            file = file.with_suffix(".ts")  # as MONAI names it
        file.parent.mkdir(parents=True, exist_ok=True)
        _ = self.network  # raises an error if the weights cannot be loaded
        {"torchscript": self._torchscript, "onnx": self._onnx, "torch-export": self._program}[kind](file)
        return file

    def _torchscript(self, file: Path) -> None:
        ckpt_export(
            "network_def", str(file), str(self.weights), self.meta_file, self.files, **self.overrides, **self.trained
        )
        if self.settings:
            names = ["metadata.json", *(Path(config).name for config in self.files)]
            extra = dict.fromkeys(names, "")
            script = torch.jit.load(file, _extra_files=extra)
            torch.jit.save(script, file, _extra_files={**extra, **self._extra_files()})

    def _onnx(self, file: Path) -> None:
        require_modules("export", "export to ONNX", ("onnx", "onnxscript"))
        import onnx

        exporter = logging.getLogger("torch.onnx")
        level = exporter.level
        exporter.setLevel(logging.ERROR)  # it warns about torchvision, which no network here needs
        try:
            onnx_export(
                "network_def",
                str(file),
                str(self.weights),
                self.meta_file,
                self.files,
                use_trace=True,
                input_shape=list(self.example().shape),
                converter_kwargs={
                    "dynamo": True,
                    "verbose": False,
                    "external_data": False,
                    "input_names": ["image"],
                    "output_names": ["logits"],
                    "dynamic_shapes": (self._free_axes(),),
                },
                **self.overrides,
                **self.trained,
            )
        finally:
            exporter.setLevel(level)
        model = onnx.load(file)
        try:
            recipe = inference_recipe(self.parser)
        except ConfigError as error:
            recipe = {"without": str(error)}
        meta = self.parser["_meta_"]
        about = {"bundle": self.bundle.resolve().name, "version": meta["version"], "classes": class_names(self.parser)}
        if self.settings:
            about["settings"] = self.settings
        onnx.helper.set_model_props(model, {RECIPE: json.dumps({**about, **recipe})})
        onnx.save(model, file)

    def _program(self, file: Path) -> None:
        with torch.no_grad():
            program = torch.export.export(self.network, (self.example(),), dynamic_shapes=(self._free_axes(),))
        torch.export.save(program, file, extra_files=self._extra_files())

    def _extra_files(self) -> dict[str, str]:
        return {SETTINGS_FILE: json.dumps({"settings": self.settings}, indent=4)} if self.settings else {}

    def _free_axes(self) -> dict[int, Any]:
        dimensions = self.example().ndim
        free = [0] if self.fixed_size else [0, *range(2, dimensions)]
        return dict.fromkeys(free, torch.export.Dim.DYNAMIC)


def run_exported(kind: str, file: str | Path, image: Tensor) -> Tensor:
    """Run an exported network, to compare it with the original.

    Args:
        kind: One of ``FORMATS``.
        file: File written by ``ExportedBundle.export``.
        image: (B, C, H, W[, D]).

    Returns:
        Logits (B, K, H, W[, D]).
    """
    with torch.no_grad():
        if kind == "torchscript":
            return torch.jit.load(file)(image)
        if kind == "torch-export":
            return torch.export.load(file).module()(image)
    require_modules("export", "running an ONNX file", ("onnxruntime",))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
