# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""A bundle under verification: its configs, the small settings and generated data of its runs, its exports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from segan_monai.data import resolve_regions
from segan_monai.export import ExportedBundle
from segan_monai.label_values import label_values
from segan_monai.simulation.sample_data import write_sample_data
from segan_monai.typed import config_values

# Settings that shorten a run to seconds. Keys that a bundle's config lacks are omitted.
SMALL: dict[str, Any] = {
    "device": "cpu",
    "amp": False,
    "num_workers": 0,
    "live_cases": 1,  # a figure costs more than an iteration
    "seed": 2,
    "base_channels": 4,
    "localizer_depth": 18,
    "segmentor_depth": 18,
    "max_rois": 2,
    # Rows and columns differ, and planes are no multiple of slices: what is exchanged or rounded shows
    "plane_size": [70, 96],
    "slice_size": [32, 48],
    "roi_size": [32, 40],
    "image_size": [32, 32],
    "cached_size": [60, 45],
    "patch_size": [16, 16, 16],
    "patch_stride": [8, 8, 8],
    "spacing_mm": [1.0, 1.0, 1.0],
    "batch_size": 2,
    "slices_per_volume": 2,
    "patches_per_volume": 2,
    "discriminator_channels": [4, 8],
    "warm_up_epochs": 1,
    "folds": 2,
    "val_interval": 1,
    # Weights stay near their random start and RoIs are found anywhere, because an export is compared best on label
    # maps that are not empty.
    "learning_rate": 1e-5,
    "heatmap_threshold": 0.05,
}
FILES = {"training": "train.json", "evaluating": "evaluate.json", "inference": "inference.json"}


class CheckFailedError(Exception):
    """Failed expectation of a check."""


class SkippedError(Exception):
    """Check that does not apply to this bundle."""


def expect(condition: bool, message: str) -> None:
    """Raise ``CheckFailedError`` with the message unless the condition holds."""
    if not condition:
        raise CheckFailedError(message)


@dataclass
class Trial:
    """Bundle under verification.

    Args:
        bundle: its folder.
        work_dir: receives the generated data and the files that runs write.
        overrides: config keys and values, which replace those of ``SMALL``.
        dataset_dir: labelled data; by default a data set is generated.

    Attributes:
        inferred: image files and written label map of each case, once inference was checked.
    """

    bundle: Path
    work_dir: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    dataset_dir: Path | None = None
    inferred: list[tuple[list[Path], Path]] = field(default_factory=list, init=False)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Content of ``metadata.json``."""
        return json.loads((self.bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))

    @property
    def channel_def(self) -> dict[int, str]:
        """Names of the label map's values."""
        channels = self.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        return {int(value): name for value, name in channels.items()}

    def config(self, run_id: str) -> dict[str, Any]:
        """Return the content of the config of a run, or an empty dictionary if there is none."""
        file = self.bundle / "configs" / FILES[run_id]
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def settings(self, run_id: str) -> dict[str, Any]:
        """Return the overrides of those keys that the config has."""
        folders = {
            "bundle_root": str(self.bundle),
            "dataset_dir": str(self.data),
            "output_dir": str(self.work_dir / run_id),
            "ckpt_dir": str(self.work_dir / "models"),
        }
        known = self.config(run_id)
        # a bundle that does not resample stays so
        small = {key: value for key, value in SMALL.items() if key != "spacing_mm" or known.get(key) is not None}
        settings = config_values({**small, **folders, **self.overrides})
        return {key: value for key, value in settings.items() if key.split("#")[0] in known}

    @cached_property
    def convention(self) -> str | None:
        """Name of the label convention if ``regions`` in the configs is one, else None."""
        regions = self.overrides.get("regions", self.config("inference").get("regions"))
        return regions if isinstance(regions, str) else None

    @cached_property
    def regions(self) -> dict[str, list[int]]:
        """Label values of each region in the data; without ``regions`` in the configs, those of the metadata."""
        regions = self.overrides.get("regions", self.config("inference").get("regions"))
        if regions is None:
            return {name: [value] for value, name in self.channel_def.items() if value}
        return resolve_regions(regions)

    @cached_property
    def data(self) -> Path:
        """Folder of the data."""
        if self.dataset_dir:
            return self.dataset_dir
        config = self.config("training")
        image = self.metadata["network_data_format"]["inputs"]["image"]
        modalities = self.overrides.get("modalities", config.get("modalities"))
        names = modalities or [image["channel_def"][key] for key in sorted(image["channel_def"], key=int)]
        domains = [config[key] for key in ("first_domain", "second_domain") if key in config]
        labels = label_values(self.regions)
        photographs = self.metadata.get("data_type", "").startswith("jpeg")
        folder = self.work_dir / "data"
        return write_sample_data(folder, names, labels, domains, self.convention, photographs)

    def run(self, run_id: str, **overrides: Any) -> ConfigWorkflow:
        """Run a workflow as ``python -m monai.bundle run`` does, and check that no property is missing."""
        config = self.config(run_id)
        if not config:
            raise CheckFailedError(f"there is no configs/{FILES[run_id]}")
        settings = {**self.settings(run_id), **overrides}
        workflow = ConfigWorkflow(
            config_file=str(self.bundle / "configs" / FILES[run_id]),
            meta_file=str(self.bundle / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type="train" if run_id == "training" else "infer",
            run_id=run_id if run_id in config else "run",
            **settings,
        )
        workflow.initialize()
        missing = workflow.check_properties()
        expect(not missing, f"properties that MONAI asks for are missing in {FILES[run_id]}: {missing}")
        workflow.run()
        workflow.finalize()
        return workflow

    @cached_property
    def exported(self) -> ExportedBundle:
        """Bundle with the weights trained by this trial."""
        return ExportedBundle(self.bundle, self.work_dir / "models" / "model.pt", overrides=self.settings("inference"))
