# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from segan_monai.errors import ConfigError, DataError
from segan_monai.label_strategy import NAME, NEW_PER_REQUEST, strategies_of

QUALITY = {"a": (0.9, 0.8), "b": (0.2, 0.9), "c": (0.6, 0.7)}


class Images:
    """What a strategy asks of MONAI Label's datastore."""

    def __init__(self, names):
        self.names = list(names)

    def get_unlabeled_images(self, label_tag, labels):
        return [name for name in self.names if (label_tag, labels) == ("final", None)]


@pytest.fixture
def app(tmp_path):
    """Model folder with two bundles, the second of which has an estimate; and the requests that were inferred."""
    for name in ("plain_segmentation", "fitted_segmentation"):
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models" / "model.pt").write_bytes(b"weights")
    (tmp_path / "fitted_segmentation" / "models" / "quality.json").write_text("{}", encoding="utf-8")
    asked = []

    def infer(request):
        asked.append(request["image"])
        assert request["model"] == "fitted_segmentation"
        if request["image"].startswith("broken"):
            raise DataError(f"{request['image']} is damaged.")
        file = tmp_path / f"{request['image']}.nii.gz"
        file.write_bytes(b"label map")
        regions = zip(("left", "right"), QUALITY.get(request["image"], (1.0, 1.0)), strict=True)
        return {"file": str(file), "params": {"quality": {name: {"expected_dice": dice} for name, dice in regions}}}

    return tmp_path, asked, infer


def strategy_of(app):
    models = {"plain_segmentation": None, "fitted_segmentation": None}
    return strategies_of(app[0], models, app[2])[NAME]


REQUEST = {"strategy": NAME, "label_tag": "final"}


def test_the_image_of_the_lowest_mean_over_regions_is_proposed(app):
    strategy = strategy_of(app)
    assert strategy(REQUEST, Images("abc")) == {"id": "b", "weight": pytest.approx(0.45)}
    assert strategy(REQUEST, Images("ac"))["id"] == "c"
    assert app[1] == ["a", "b", "c"], "each image is segmented once"
    assert not list(app[0].glob("*.nii.gz")), "its label map is not kept"
    assert "fitted_segmentation" in strategy.info()["description"]
    assert strategy(REQUEST, Images("")) is None


def test_new_weights_need_new_estimates(app):
    strategy = strategy_of(app)
    strategy(REQUEST, Images("a"))
    models = app[0] / "fitted_segmentation" / "models"
    (models / "model.pt").write_bytes(b"trained")
    strategy(REQUEST, Images("a"))
    assert app[1] == ["a", "a"]
    (models / "quality.json").unlink()
    with pytest.raises(ConfigError, match=r"lowest_quality needs .*quality\.json, which a training has removed"):
        strategy(REQUEST, Images("a"))


def test_an_image_that_cannot_be_segmented_is_passed_over(app):
    strategy = strategy_of(app)
    assert strategy(REQUEST, Images(["broken", "a"]))["id"] == "a"
    assert strategy(REQUEST, Images(["broken", "a"]))["id"] == "a"
    assert app[1] == ["broken", "a"], "each image is tried once"
    with pytest.raises(ConfigError, match=r"none of 1 images: broken is damaged\. Correct them and start the server"):
        strategy(REQUEST, Images(["broken"]))


def test_images_that_cannot_be_segmented_do_not_hide_the_others(app):
    strategy = strategy_of(app)
    images = Images([*(f"broken_{number:02}" for number in range(NEW_PER_REQUEST)), "good"])
    with pytest.raises(ConfigError, match=rf"none of {NEW_PER_REQUEST} images: .*Ask again for the 1 others"):
        strategy(REQUEST, images)
    assert strategy(REQUEST, images)["id"] == "good"


def test_a_request_segments_a_limited_number(app):
    names = [f"image_{number:02}" for number in range(NEW_PER_REQUEST + 5)]
    strategy = strategy_of(app)
    strategy(REQUEST, Images(names))
    assert app[1] == names[:NEW_PER_REQUEST]
    strategy(REQUEST, Images(names))
    assert app[1] == names


def test_it_is_offered_only_where_weights_have_an_estimate(app):
    assert strategies_of(app[0], {"plain_segmentation": None}, app[2]) == {}
