# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The key ``mirror_axes``, from a training to whatever applies its weights."""

from __future__ import annotations

import json

import pytest

from segan_monai.export import ExportedBundle, inference_recipe
from tests.bundles.workflow import BRATS, BUNDLES, HIPPOCAMPUS, SKIN, SMALL_SKIN, run_workflow

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]


@pytest.mark.parametrize(("bundle", "data"), [(BRATS, "phantoms"), (SKIN, "photographs")])
def test_a_training_mirrors_and_its_settings_say_so(bundle, data, request, tmp_path):
    settings = {"dataset_dir": str(request.getfixturevalue(data)), "ckpt_dir": str(tmp_path / "run")}
    settings |= SMALL_SKIN if bundle == SKIN else {}
    training = run_workflow(bundle, "training", output_dir=str(tmp_path / "run"), mirror_axes=[0, 1], **settings)
    record = json.loads((tmp_path / "run" / "model.json").read_text(encoding="utf-8"))
    assert record["settings"]["mirror_axes"] == [0, 1]
    assert training.parser.get_parsed_content("validate#inferer").mirror_axes == (0, 1)
    if bundle == BRATS:
        steps = training.parser.get_parsed_content("train#random_slices")
        assert [step.mirror_axes for step in steps if hasattr(step, "mirror_axes")] == [(0, 1)]
    evaluation = run_workflow(bundle, "evaluating", output_dir=str(tmp_path / "evaluation"), **settings)
    assert evaluation.parser.get_parsed_content("inferer").mirror_axes == (0, 1)


def test_onnx_files_name_the_axes_for_the_script():
    def inferer(**settings):
        return inference_recipe(ExportedBundle(BUNDLES / HIPPOCAMPUS, overrides=settings).parser)["inferer"]

    assert "mirror_axes" not in inferer(), "earlier copies of the script do not know it"
    assert inferer(mirror_axes=[0, 1]) == {**inferer(), "mirror_axes": [0, 1]}
