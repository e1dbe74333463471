# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the members of an ensemble."""

from __future__ import annotations

import json

import pytest

from segan_monai.errors import ConfigError
from segan_monai.trained import require_same_settings


def write(folder, *settings):
    files = [folder / f"fold{number}.pt" for number in range(len(settings))]
    for file, of_member in zip(files, settings, strict=True):
        file.with_suffix(".json").write_text(json.dumps({"settings": of_member}), encoding="utf-8")
    return files


def test_settings_of_the_same_meaning_and_unknown_ones_are_accepted(tmp_path):
    files = write(tmp_path, {"modalities": ["t1ce"], "neighbours": 1}, {"modalities": ["t1c"], "new_key": 3})
    require_same_settings([*files, tmp_path / "without_record.pt"], {})


def test_another_network_is_refused_with_both_values(tmp_path):
    files = write(tmp_path, {"spatial_dims": 2}, {"spatial_dims": 3})
    with pytest.raises(
        ConfigError, match=r"spatial_dims is 2 for .*fold0\.pt, but 3 for .*fold1\.pt .*segan-monai ensem"
    ):
        require_same_settings(files, {"spatial_dims"})


def test_post_processing_may_be_set_for_all(tmp_path):
    files = write(tmp_path, {"region_rules": None}, {"region_rules": {"a": {"threshold": 0.4}}})
    with pytest.raises(ConfigError, match=r"region_rules is None for .*Set --region_rules for the whole ensemble"):
        require_same_settings(files, {})
    require_same_settings(files, {"region_rules"})


@pytest.mark.parametrize(("key", "value"), [("region_rules", {"a": {"threshold": 0.4}}), ("pad_small_images", True)])
def test_what_one_member_alone_records_is_a_difference(key, value, tmp_path):
    """Rules are recorded where they were learnt, so the order of the members would decide whether they are applied."""
    for settings in (
        ({"neighbours": 1}, {"neighbours": 1, key: value}),
        ({"neighbours": 1, key: value}, {"neighbours": 1}),
    ):
        files = write(tmp_path, *settings)
        with pytest.raises(ConfigError, match=rf"{key} is .*Set --{key} for the whole ensemble"):
            require_same_settings(files, {})
        require_same_settings(files, {key})
