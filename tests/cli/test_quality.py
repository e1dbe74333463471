# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""``segan-monai fit-quality``: whether the evaluations are of the network that gets the estimate."""

from __future__ import annotations

import json

import pytest

from segan_monai.cli.quality import _require_same_network
from segan_monai.errors import ConfigError


@pytest.fixture
def trained(tmp_path):
    """A folder of weights whose results are post-processed."""
    settings = {"regions": {"lesion": [255]}, "region_rules": {"lesion": {"fill_holes": True}}}
    (tmp_path / "model.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")
    return tmp_path


def test_evaluations_of_other_regions_are_refused(trained):
    with pytest.raises(ConfigError, match=r"evaluations are of the regions pancreas, but the network in .* segments l"):
        _require_same_network(trained, {"regions": ["pancreas"], "region_rules": None})


def test_evaluations_without_the_post_processing_of_predict_are_named(trained, capsys):
    _require_same_network(trained, {"regions": ["lesion"], "region_rules": None})
    said = capsys.readouterr().err
    assert "predict applies region_rules {'lesion': {'fill_holes': True}}" in said
    assert "were evaluated with None" in said
    _require_same_network(trained, {"regions": ["lesion"], "region_rules": {"lesion": {"fill_holes": True}}})
    _require_same_network(trained / "of an earlier version", {"regions": ["pancreas"]})
    assert capsys.readouterr().err == ""
