# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Where results may be written, however the paths are spelt."""

from __future__ import annotations

from pathlib import Path

import pytest

import segan_monai
from segan_monai.errors import ConfigError
from segan_monai.places import require_outside_package, require_results_outside


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


PACKAGE = Path(segan_monai.__file__).parent


@pytest.mark.parametrize("folder", [PACKAGE, PACKAGE / "reports" / "new", PACKAGE / "run" / ".." / "out"])
def test_nothing_is_written_into_the_package(folder):
    with pytest.raises(ConfigError, match=r"ckpt_dir .* is inside the installed package.*your.*: --ckpt_dir FOLDER\."):
        require_outside_package("ckpt_dir", folder)


def test_a_link_into_the_package_is_refused_too(tmp_path):
    (tmp_path / "link").symlink_to(PACKAGE)
    with pytest.raises(ConfigError, match=r"output_dir .*link/out is inside the installed package"):
        require_outside_package("output_dir", tmp_path / "link" / "out")


@pytest.mark.parametrize("folder", ["models", PACKAGE / "bundles" / "new", PACKAGE.parent / "output"])
def test_bundles_of_a_checkout_are_outside_the_package(folder):
    require_outside_package("ckpt_dir", folder)
