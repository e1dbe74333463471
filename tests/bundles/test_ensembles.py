# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The key ``weights``: the predictions of several networks are combined, in every bundle."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from segan_monai.errors import ConfigError, DataError, causes
from tests.bundles.workflow import (
    BRAIN,
    HIPPOCAMPUS,
    PANCREAS,
    SKIN,
    SMALL_BRAIN,
    SMALL_PANCREAS,
    SMALL_SKIN,
    make_workflow,
    run_workflow,
)

pytestmark = [pytest.mark.usefixtures("process_as_before"), pytest.mark.slow]

BUNDLES = {
    HIPPOCAMPUS: ("hippocampi", {}),
    SKIN: ("photographs", {"base_channels": 4, **SMALL_SKIN}),
}


def write_members(folder, bundle, settings, trained=None, count=2, common="-"):
    """Folders of ``count`` networks with random weights, as trainings write them; those of ``common`` are the same."""
    settings = {key: value for key, value in settings.items() if key != "cached_size"}
    network = make_workflow(bundle, "inference", **settings).parser.get_parsed_content("network_def")
    folders = []
    for number in range(count):
        torch.manual_seed(number)
        for name, parameter in network.named_parameters():
            if number == 0 or not name.startswith(common):
                torch.nn.init.normal_(parameter, std=0.3)
        folders.append(folder / f"fold_{number}")
        folders[-1].mkdir()
        torch.save(network.state_dict(), folders[-1] / "model.pt")
        if trained is not None:
            record = {"bundle": bundle, "settings": trained[number], "network": type(network).__name__}
            (folders[-1] / "model.json").write_text(json.dumps(record), encoding="utf-8")
    return [str(path) for path in folders]


def infer(bundle, data, output, weights, **settings):
    settings = {key: value for key, value in settings.items() if key != "cached_size"}
    run_workflow(bundle, "inference", dataset_dir=str(data), output_dir=str(output), weights=weights, **settings)
    return {file.name: np.asanyarray(nibabel.load(file).dataobj) for file in sorted(output.glob("*.nii.gz"))}


def refusal(workflow):
    """The error of the user with which a run begins."""

    def run():
        workflow.initialize()
        workflow.run()

    with pytest.raises(RuntimeError) as caught:
        run()
    return str(next(error for error in causes(caught.value) if isinstance(error, ConfigError | DataError)))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_an_ensemble_is_the_mean_of_its_members_probabilities(bundle, request, tmp_path):
    fixture, settings = BUNDLES[bundle]
    data = request.getfixturevalue(fixture)
    settings = {**settings, "save_probabilities": True, "save_overlays": False}
    weights = write_members(tmp_path, bundle, settings)
    alone = [infer(bundle, data, tmp_path / f"alone_{n}", [file], **settings) for n, file in enumerate(weights)]
    both = infer(bundle, data, tmp_path / "both", weights, **settings)
    names = [name for name in both if name.endswith("_probabilities.nii.gz")]
    assert names
    for name in names:
        first, second = (of_member[name] for of_member in alone)
        assert np.abs(first - second).max() > 0.01, "the members differ"
        mean = (first.astype(np.float64) + second) / 2
        assert np.abs(both[name] - mean).max() < 1e-5
        seg = name.replace("probabilities", "seg")
        if seg not in both:  # of a photograph
            continue
        regions = mean if mean.ndim == 4 else mean[..., None]
        expected = np.where(regions.max(-1) >= 0.5, regions.argmax(-1) + 1, 0)
        clear = np.abs(np.sort(regions)[..., -1:] - 0.5).min(-1) > 1e-4
        assert np.array_equal(both[seg][clear], expected[clear])


def test_an_ensemble_of_l_snets_has_the_rois_of_all(slices, tmp_path):
    settings = {**SMALL_PANCREAS, "picture_window": [0, 255], "save_probabilities": True, "save_overlays": False}
    weights = write_members(tmp_path, PANCREAS, settings, common="segmentor.")
    alone = [infer(PANCREAS, slices, tmp_path / f"alone_{n}", [file], **settings) for n, file in enumerate(weights)]
    both = infer(PANCREAS, slices, tmp_path / "both", weights, **settings)
    names = [name for name in both if name.endswith("_probabilities.nii.gz")]
    assert len(names) == 8
    for name in names:
        first, second = (of_member[name] for of_member in alone)
        assert np.abs(first - second).max() > 0.01, "the localizers differ"
        assert np.abs(both[name] - np.maximum(first, second)).max() < 1e-4


def test_an_ensemble_of_one_network_twice_is_that_network(hippocampi, tmp_path):
    (weights,) = write_members(tmp_path, HIPPOCAMPUS, {}, count=1)
    settings = {"save_overlays": False, "save_probabilities": True, "slice_axis": 2}
    once, twice = (
        infer(HIPPOCAMPUS, hippocampi, tmp_path / f"{count}", [weights] * count, **settings) for count in (1, 2)
    )
    assert all(np.abs(once[name].astype(float) - twice[name]).max() < 1e-6 for name in once)
    assert np.ptp(once["hippocampus_001_probabilities.nii.gz"]) > 0.05


def test_normalizing_networks_are_averaged_and_so_are_their_images(brains, tmp_path):
    settings = {**SMALL_BRAIN, "save_overlays": False, "pad_small_images": True}
    weights = write_members(tmp_path, BRAIN, settings)
    alone = [infer(BRAIN, brains, tmp_path / f"alone_{n}", [file], **settings) for n, file in enumerate(weights)]
    both = infer(BRAIN, brains, tmp_path / "both", weights, **settings)
    names = [name for name in both if name.endswith("_normalized.nii.gz")]
    assert names
    for name in names:
        mean = (alone[0][name] + alone[1][name]) / 2
        assert np.allclose(both[name], mean, atol=1e-3 * np.abs(mean).max())


def test_an_evaluation_takes_only_cases_that_no_member_was_trained_on(hippocampi, tmp_path):
    workflow = make_workflow(HIPPOCAMPUS, "inference", dataset_dir=str(hippocampi))
    names = [case["case"] for case in workflow.parser.get_parsed_content("cases")]
    weights = write_members(tmp_path, HIPPOCAMPUS, {})
    splits = [{"training": names[:1], "validation": names[1:2]}, {"training": names[1:2], "validation": names[:1]}]

    def evaluate(**settings):
        for folder, split in zip(weights, splits, strict=True):
            Path(folder, "split.json").write_text(json.dumps(split), encoding="utf-8")
        common = {"dataset_dir": str(hippocampi), "output_dir": str(tmp_path / "evaluation"), "weights": weights}
        return make_workflow(HIPPOCAMPUS, "evaluating", **common, **settings)

    workflow = evaluate()
    workflow.initialize()
    workflow.run()
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text(encoding="utf-8"))
    assert summary["cases"] == len(names) - 2
    assert "2 of" in refusal(evaluate(subset="all"))
    assert f"such as {names[0]}" in refusal(evaluate(subset="all"))
    splits[1] = {"training": names[1:], "validation": names[:1]}
    text = refusal(evaluate())
    assert "no case is left in subset 'held_out'" in text
    assert "Folds of one data set hold out each case once" in text


def test_members_that_were_trained_otherwise_are_refused(hippocampi, tmp_path):
    trained = [{"slice_axis": 2, "mirror_axes": [0]}, {"slice_axis": 1, "mirror_axes": [0]}]
    weights = write_members(tmp_path, HIPPOCAMPUS, {}, trained)
    common = {"dataset_dir": str(hippocampi), "output_dir": str(tmp_path / "out"), "weights": weights}
    text = refusal(make_workflow(HIPPOCAMPUS, "inference", **common))
    assert "slice_axis is 2 for" in text
    assert "but 1 for" in text
    assert "segan-monai ensemble averages" in text
    assert not (tmp_path / "out").exists()


def test_rules_of_regions_are_not_learnt_on_an_ensemble(hippocampi, tmp_path):
    weights = write_members(tmp_path, HIPPOCAMPUS, {})
    for folder in weights:
        split = {"training": [], "validation": ["hippocampus_001"]}
        Path(folder, "split.json").write_text(json.dumps(split), encoding="utf-8")
    common = {"dataset_dir": str(hippocampi), "output_dir": str(tmp_path / "out"), "weights": weights}
    workflow = make_workflow(HIPPOCAMPUS, "evaluating", **common, subset="validation", learn_region_rules=True)
    assert "learn_region_rules: there are 2 weights; expected one network" in refusal(workflow)
