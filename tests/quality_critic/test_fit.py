# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from segan_monai.errors import ConfigError
from segan_monai.quality_critic import Critic, critic_signals, fit_critic, read_critic, write_critic
from tests.quality_critic.conftest import REGIONS

SETTINGS = {"modalities": ["T1"], "regions": REGIONS, "skull_stripped": True, "slice_axis": 2}


@pytest.fixture(scope="module")
def fitted(critic_cases):
    return fit_critic(critic_cases, REGIONS, 50)


def estimate(fitted, case, mask):
    signals = critic_signals(fitted.network, case.stack.image, mask, case.stack.voxel_ml)
    return fitted.model.estimate(case.features, dict(zip(REGIONS, signals, strict=True)))


def test_the_critic_ranks_predictions_of_patients_that_it_has_not_seen(fitted):
    for region in REGIONS:
        measured = fitted.predictions[region].measures()
        assert measured["cases"] == 20
        assert measured["spearman"] > 0.5
        assert measured["mae"] < 0.15
        wrong = fitted.corrupted[region]
        assert len(wrong.dice) == 60
        assert np.corrcoef(wrong.dice, wrong.expected)[0, 1] > 0.7


def test_a_wrong_mask_is_expected_to_be_worse(fitted, critic_cases):
    case = critic_cases[3]
    right = estimate(fitted, case, case.truth)
    empty = estimate(fitted, case, torch.zeros_like(case.truth))
    swapped = estimate(fitted, case, case.truth.flip(1))
    for region in REGIONS:
        assert right[region]["expected_dice"] > 0.7
        assert swapped[region]["expected_dice"] < right[region]["expected_dice"] - 0.3
        assert (empty[region]["expected_dice"], empty[region]["lower_bound"]) == (0, 0)
        assert empty[region]["flag"].startswith("empty, unlike every case of the fit")
        assert right[region]["lower_bound"] <= right[region]["expected_dice"]


def test_networks_have_not_seen_the_patients_that_they_estimate(critic_cases, monkeypatch):
    seen = []

    def train(cases, steps, seed):
        from segan_monai.quality_critic.network import CriticNetwork

        seen.append({case.name for case in cases})
        return CriticNetwork(1, 2)

    monkeypatch.setattr("segan_monai.quality_critic.fit.train_critic", train)
    fit_critic(critic_cases, REGIONS, 1)
    groups = [{case.name for case in critic_cases if case.group != group} for group in (0, 1, 2)]
    assert seen == [*groups, {case.name for case in critic_cases}]


@pytest.fixture
def folder(fitted, tmp_path):
    critic = Critic(fitted.network, fitted.model, REGIONS, 16)
    return write_critic(tmp_path, critic, 1, SETTINGS, {"cases": 20})


def test_what_was_written_is_read(folder, fitted, critic_cases, tmp_path):
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
    torch.load(folder / "critic.pt", weights_only=True)
    critic = read_critic(tmp_path, {**SETTINGS, "slice_axis": 0})  # another inference is no other image
    case = critic_cases[0]
    assert (critic.regions, critic.size) == (REGIONS, 16)
    assert critic_signals(critic.network, case.stack.image, case.prediction, 1.0) == critic_signals(
        fitted.network, case.stack.image, case.prediction, 1.0
    )
    assert critic.model == fitted.model


def test_a_critic_of_other_images_or_another_version_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"made with skull_stripped true; expected false as in this run. Fit it"):
        read_critic(tmp_path, {**SETTINGS, "skull_stripped": False})
    file = folder / "critic.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"version": 1', '"version": 9'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"critic\.json has version 9; expected 1"):
        read_critic(tmp_path, SETTINGS)
    file.write_text(text.replace('"size"', '"sizes"'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"critic\.json is not complete \(KeyError: 'size'\)"):
        read_critic(tmp_path, SETTINGS)
    file.write_text(text.replace('"settings"', '"setting"'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"critic\.json has no 'settings'; expected an object"):
        read_critic(tmp_path, SETTINGS)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"critic\.json"):
        read_critic(tmp_path, SETTINGS)


def test_a_missing_or_other_network_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"critic\.json does not exist; expected a quality critic beside the weights"):
        read_critic(tmp_path / "elsewhere", SETTINGS)
    (folder / "critic.pt").write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"critic\.pt is missing or not the file of critic\.json; expected SHA-256"):
        read_critic(tmp_path, SETTINGS)
