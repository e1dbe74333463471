# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from segan_monai.errors import DataError
from segan_monai.handlers import DomainProfiles, ScannerCheck
from segan_monai.handlers.domain_profiles import Nearest, nearest, profile


def image(seed, skewness):
    """A standardized image of 4,096 voxels of a skewed distribution, dark background 0."""
    torch.manual_seed(seed)
    voxels = torch.exp(skewness * torch.randn(1, 16, 16, 16)) * (1 if skewness > 0 else -1)
    voxels = (voxels - voxels.mean()) / voxels.std()
    return torch.cat([torch.zeros(1, 4, 16, 16), voxels], dim=1)


def test_profile_is_of_the_voxels_alone():
    voxels = torch.cat([torch.arange(1.0, 34), torch.zeros(100)])
    np.testing.assert_allclose(profile(voxels), np.arange(2, 33))
    assert (profile(torch.zeros(4)) == 0).all()


def test_nearest_by_hand():
    known = np.array([[0.0] * 31, [1.0] * 31, [5.0] * 31, [5.5] * 31])
    # nearest others of one domain: 1, 1, .5, .5; median .75, limit 1.5
    assert nearest(np.full(31, 4.0), ["a", "a", "b", "b"], known) == Nearest("b", 1.0, 1.5)
    assert not nearest(np.full(31, 4.0), ["a", "a", "b", "b"], known).far
    assert nearest(np.full(31, 2.9), ["a", "a", "b", "b"], known) == Nearest("a", pytest.approx(1.9), 1.5)
    assert nearest(np.full(31, 2.9), ["a", "a", "b", "b"], known).far


def run(handler, batch, output=None):
    def step(engine, _):
        engine.state.batch = batch
        return output

    engine = Engine(step)
    handler.attach(engine)
    engine.run([0])


def test_a_scanner_never_seen_is_named_with_the_nearest_domain(tmp_path, caplog):
    skewness = {"A": 0.3, "B": 0.8}
    output = [
        {"input": image(seed, value), "domain_number": torch.tensor(number)}
        for number, value in enumerate(skewness.values())
        for seed in range(4)
    ]
    run(DomainProfiles(tmp_path, list(skewness)), None, output)
    written = json.loads((tmp_path / "domains.json").read_text(encoding="utf-8"))["profiles"]
    assert {name: len(images) for name, images in written.items()} == {"A": 4, "B": 4}
    run(ScannerCheck(tmp_path), [{"case": "known", "image": image(9, 0.3)}], [{}])
    assert not caplog.records
    found = [{}, {}]
    cases = [{"case": "new", "image": image(9, -0.8)}, {"case": "old", "image": image(8, 0.8)}]
    run(ScannerCheck(tmp_path), cases, found)
    new, old = (result["nearest_domain"] for result in found)
    assert (new["domain"], new["far"], old["domain"], old["far"]) == ("A", True, "B", False)
    assert new["distance"] > new["limit"] == old["limit"] > old["distance"]
    assert "case new is unlike the images of every training domain: the nearest, A, is" in caplog.text
    assert "1 of 2 cases are unlike" in caplog.text
    assert "case old" not in caplog.text


def test_images_of_all_members_are_known_and_one_of_two_members_counts_once(tmp_path):
    """Distances to the nearest other of the domain: 1, 1, 2; the median is 1, the limit 2."""
    members = {"fold_0": {"A": [[0.0] * 31, [1.0] * 31]}, "fold_1": {"A": [[1.0] * 31], "B": [[9.0] * 31]}}
    members["fold_2"] = {"A": [[3.0] * 31]}
    for name, profiles in members.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "domains.json").write_text(json.dumps({"profiles": profiles}), encoding="utf-8")
    found = [{}]
    run(
        ScannerCheck([tmp_path / name for name in (*members, "none")]),
        [{"case": "c", "image": torch.full((1, 2, 2, 2), 8.5)}],
        found,
    )
    assert found[0]["nearest_domain"] == {"domain": "B", "distance": 0.5, "limit": 2.0, "far": False}


def test_weights_without_profiles_and_a_damaged_file(tmp_path, caplog):
    run(ScannerCheck(tmp_path), [{"case": "any", "image": image(0, -0.8)}])
    assert not caplog.records
    (tmp_path / "domains.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"domains\.json"):
        run(ScannerCheck(tmp_path), [{"case": "any", "image": image(0, -0.8)}])
