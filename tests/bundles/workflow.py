# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Run the bundles' workflows in this process, on small generated data."""

from __future__ import annotations

from pathlib import Path

import pytest
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

BUNDLES = Path(__file__).parents[2] / "bundles"
OVERLAYS = BUNDLES.parent / "configs"
BRATS = "brats_mri_segan_segmentation"
HIPPOCAMPUS = "hippocampus_mri_segan_segmentation"
SKIN = "skin_dermoscopy_segan_segmentation"
PANCREAS = "pancreas_ct_lsnet_segmentation"
BRAIN = "brain_mri_adversarial_normalization_segmentation"
SMALL = {"device": "cpu", "base_channels": 4, "slice_size": [32, 32]}
SMALL_TRAINING = {**SMALL, "epochs": 1, "batch_size": 4, "slices_per_volume": 2, "num_workers": 0, "folds": 2}
SMALL_TRAINING["live_cases"] = 0  # figures take longer than the training; test_live_view.py draws them
# networks and batches of each bundle that fit a small data set
SMALL_SKIN = {"image_size": [32, 32], "cached_size": [60, 45]}
SMALL_PANCREAS = {
    "plane_size": [64, 64],
    "slice_size": [32, 32],
    "roi_size": [32, 32],
    "localizer_masks": False,
    "base_channels": 4,
    "segmentor_depth": 18,
    "device": "cpu",
}
SMALL_BRAIN = {"device": "cpu", "base_channels": 4, "num_levels": 3, "patch_size": [8, 16, 8]}
SMALL_BRAIN_TRAINING = {
    **SMALL_BRAIN,
    "epochs": 2,
    "batch_size": 4,
    "patches_per_volume": 2,
    "patch_stride": [4, 4, 4],
    "warm_up_epochs": 1,
    "folds": 2,
    "discriminator_channels": [4, 8],
}
FILES = {"training": "train.json", "evaluating": "evaluate.json", "inference": "inference.json"}


def make_workflow(bundle: str, run_id: str, overlay: str | list[str] | None = None, **overrides) -> ConfigWorkflow:
    """The workflow as `python -m monai.bundle run` makes it, with small networks."""
    configs = BUNDLES / bundle / "configs"
    overlays = [] if overlay is None else [overlay] if isinstance(overlay, str) else overlay
    return ConfigWorkflow(
        config_file=[str(configs / FILES[run_id]), *(str(OVERLAYS / file) for file in overlays)],
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type="train" if run_id == "training" else "infer",
        run_id=run_id,
        **{**(SMALL_TRAINING if run_id == "training" else SMALL), **overrides},
    )


def run_workflow(bundle: str, run_id: str, overlay: str | list[str] | None = None, **overrides) -> ConfigWorkflow:
    """Initialize and run."""
    workflow = make_workflow(bundle, run_id, overlay, **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


class StopError(Exception):
    """Ends a training in its middle."""


def stop_after(trainer: Engine, epoch: int) -> None:
    """Run a trainer to the end of an epoch."""

    def stop() -> None:
        raise StopError

    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=epoch), stop)
    with pytest.raises(StopError):
        trainer.run()
