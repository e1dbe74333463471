# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Where results may be written, however the paths are spelt."""

from __future__ import annotations

import pytest

from segan_monai.errors import ConfigError
from segan_monai.places import require_results_outside


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data set in the current folder, and a link to it."""
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.mark.parametrize("dataset_dir", ["data", "data/", "./data/../data", "link", "~/data"])
@pytest.mark.parametrize("output_dir", ["data", "link", "data/", "link/../data/.", "~/data"])
def test_the_data_set_itself_is_refused(data, output_dir, dataset_dir):
    with pytest.raises(ConfigError, match=rf"output_dir .* is the data set .*--output_dir {data}_results\."):
        require_results_outside(output_dir, dataset_dir)


@pytest.mark.parametrize("output_dir", ["data/out", "link/out/of/depth", "data/../link/out", "~/data/out"])
def test_a_folder_in_a_data_set_that_is_searched_is_refused(data, output_dir):
    with pytest.raises(ConfigError, match=rf"output_dir {output_dir} is inside the data set link, so a later run"):
        require_results_outside(output_dir, "link")


@pytest.mark.parametrize("output_dir", ["out", "data_results", "data/../out", "."])
@pytest.mark.parametrize("dataset_dir", ["data", "link", "missing", None])
def test_other_places_are_free(data, output_dir, dataset_dir):
    require_results_outside(output_dir, dataset_dir)


@pytest.mark.parametrize("listed_by", ["datalist", "dataset.json", "imagesTr"])
def test_where_files_are_listed_only_their_folders_and_the_top_are_refused(data, listed_by):
    datalist = "cases.json" if listed_by == "datalist" else None
    if listed_by == "dataset.json":
        (data / "dataset.json").touch()
    if listed_by == "imagesTr":
        (data / "imagesTr").mkdir()
    require_results_outside("data/my_bundle/output/training", "data", datalist)
    for refused in ("data", "data/imagesTr", "data/labelsTs/out", "data/masks"):
        with pytest.raises(ConfigError, match="the data set"):
            require_results_outside(refused, "data", datalist)
