# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The live view in trainings of every bundle: what appears, and that the training is the very same without it."""

from __future__ import annotations

import mlflow
import pytest
import torch
from monai.bundle import ConfigWorkflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segan_monai.handlers import LiveView, TrainingHandlers
from tests.bundles.workflow import (
    BRAIN,
    BRATS,
    BUNDLES,
    HIPPOCAMPUS,
    OVERLAYS,
    PANCREAS,
    SKIN,
    SMALL_BRAIN_TRAINING,
    SMALL_PANCREAS,
    SMALL_SKIN,
    SMALL_TRAINING,
)
from tests.comparing import assert_same

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]

COMPONENTS = "experiments/segan_components"
SEGAN = {**SMALL_TRAINING, "epochs": 2, "val_interval": 1, "critic_start": 1}
TRAININGS = {
    # critics with norm layers, whose running averages must not see the pictures; they join in the second epoch
    "segan": (BRATS, "phantoms", [], {**SEGAN, "critic_norm": True, "critic_start": 2}),
    "joint_critic": (BRATS, "phantoms", [f"{COMPONENTS}/s3_1c.json"], {**SEGAN, "slice_axis": 1}),
    "pairs": (HIPPOCAMPUS, "hippocampi", [f"{COMPONENTS}/s1_1c.json"], SEGAN),
    "unet": (HIPPOCAMPUS, "hippocampi", [f"{COMPONENTS}/unet.json"], SEGAN),
    "skin": (SKIN, "photographs", [], {**SMALL_SKIN, **SEGAN, "slice_size": None, "slices_per_volume": None}),
    "lsnet": (PANCREAS, "slices", ["ct_pictures.json"], {**SMALL_PANCREAS, "epochs": 2, "val_interval": 1}),
    "normalization": (BRAIN, "brains", [], {**SMALL_BRAIN_TRAINING, "val_interval": 1}),
}
PICTURES = {
    "segan": {"slices": [1, 2], "critic": [2]},
    "joint_critic": {"slices": [1, 2], "critic": [1, 2]},
    "pairs": {"slices": [1, 2], "critic": [1, 2]},
    "unet": {"slices": [1, 2]},
    "skin": {"slices": [1, 2], "critic": [1, 2]},
    "lsnet": {"slices": [1, 2], "localization": [1, 2]},
    "normalization": {"normalization": [1, 2]},
}


def train(name, data, folder, **overrides):
    bundle, _, overlays, settings = TRAININGS[name]
    configs = BUNDLES / bundle / "configs"
    files = [configs / "train.json", *(OVERLAYS / overlay for overlay in overlays)]
    settings = {key: value for key, value in settings.items() if value is not None}
    settings |= {"dataset_dir": str(data), "output_dir": str(folder), "ckpt_dir": str(folder), **overrides}
    workflow = ConfigWorkflow(
        config_file=[str(file) for file in files],
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        run_id="training",
        **settings,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


class BlindTrainingHandlers(TrainingHandlers):
    """The bundles' handlers without the live view."""

    def __init__(self, **settings):
        super().__init__(**settings)
        (view,) = (handler for handler in self.handlers if isinstance(handler, LiveView))
        self.handlers.remove(view)


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def state(folder):
    return torch.load(folder / "last.pt", weights_only=True)


@pytest.mark.parametrize("name", TRAININGS)
def test_all_that_there_is_to_see_and_the_training_is_bit_for_bit_the_same_without(name, request, tmp_path):
    data = request.getfixturevalue(TRAININGS[name][1])
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    tracked = {"mlflow": str(tmp_path / "mlflow")} if name == "unet" else {}
    trainer = train(name, data, seen, live_cases=1, **tracked).trainer
    train(name, data, unseen, **{"train#handlers#0#_target_": f"{__name__}.BlindTrainingHandlers"})
    assert_same(state(seen), state(unseen))  # weights, running averages, optimizers, random states

    found = events(seen)
    assert len(list(seen.glob("events.out.tfevents.*"))) == 1
    assert not list(unseen.glob("events.out.tfevents.*"))
    kinds: dict[str, list[int]] = {}
    for tag in found.Tags()["images"]:
        kinds[tag.split("/")[0]] = [picture.step for picture in found.Images(tag)]
    assert kinds == PICTURES[name]
    assert len({tag.split("/")[1] for tag in found.Tags()["images"]}) == 1, "one case"
    scalars = set(found.Tags()["scalars"])
    assert {"validation/mean_dice"} < scalars
    assert {f"training/{term}" for term in trainer.state.output["terms"]} <= scalars
    assert any(tag.startswith("learning_rate/") for tag in scalars)
    if tracked:
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlruns.db")
        (run,) = client.search_runs([client.get_experiment_by_name(HIPPOCAMPUS).experiment_id])
        assert run.data.params["epochs"] == "2"
        assert run.data.params["critic_base_channels"] == "2", "expressions by their values"
        assert run.data.metrics.keys() == scalars
        for tag in scalars:
            sent = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, tag)]
            assert sent == [(point.step, pytest.approx(point.value)) for point in found.Scalars(tag)]
        assert {"report.html", "run.json"} < {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_resumed_run_shows_the_same_cases_and_goes_on_where_it_was(phantoms, tmp_path):
    train("segan", phantoms, tmp_path, epochs=1, live_cases=2)
    before = events(tmp_path)
    assert len(before.Tags()["images"]) == 2
    train("segan", phantoms, tmp_path, resume=True, live_cases=2)
    after = events(tmp_path)
    assert {tag for tag in after.Tags()["images"] if tag.startswith("slices/")} == set(before.Tags()["images"])
    for tag in before.Tags()["images"]:
        first, second = after.Images(tag)
        assert (first.step, second.step) == (1, 2)
        assert first.encoded_image_string == before.Images(tag)[0].encoded_image_string
        assert (first.width, first.height) == (second.width, second.height)
    assert [value.step for value in after.Scalars("validation/mean_dice")] == [1, 2]
