# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from segan_monai.data import find_cases
from segan_monai.errors import ConfigError, DataError
from segan_monai.new_bundle import describe_data, new_bundle
from tests.new_bundle.data import MRI, write_raw


def write_brats(folder, cases=3, modalities=("t1", "t1c", "flair"), lacking=(), values=(1, 2, 4), joined="_"):
    """Cases ``s0``, ``s1``, ... with a box of each label value; the first case lacks some modalities."""
    label = np.zeros((36, 40, 12), np.uint8)
    for number, value in enumerate(values):
        label[8 + 6 * number : 14 + 6 * number, 10:20, 3:9] = value
    for number in range(cases):
        case = folder / f"s{number}"
        case.mkdir(parents=True)
        for name in modalities:
            if number or name not in lacking:
                image = nibabel.Nifti1Image((label * 50 + 100).astype(np.int16), np.eye(4))
                nibabel.save(image, case / f"s{number}{joined}{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), case / f"s{number}{joined}seg.nii.gz")
    return folder


def test_modalities_of_all_cases_and_regions_of_the_convention(tmp_path):
    found = describe_data(write_brats(tmp_path / "data", lacking=("t1",)))
    assert found.channels == ["t1c", "flair"]
    assert found.regions == {"whole_tumour": [1, 2, 4], "tumour_core": [1, 4], "enhancing_tumour": [4]}
    assert [len(case["image"]) for case in found.cases] == [2, 2, 2]


def test_names_of_2023(tmp_path):
    folder = write_brats(tmp_path / "data", modalities=("t1n", "t2f"), values=(1, 2, 3), joined="-")
    found = describe_data(folder)
    assert (found.channels, found.regions["enhancing_tumour"]) == (["t1", "flair"], [3])


def test_written_configs_find_the_cases_again(tmp_path):
    data = write_brats(tmp_path / "data")
    folder, *_ = new_bundle(
        "glioma_segmentation",
        "segan",
        data,
        tmp_path,
        modalities=["flair"],
        regions={"tumour": [1, 2, 4], "core": [1, 4]},
    )
    config = json.loads((folder / "configs" / "train.json").read_text(encoding="utf-8"))
    assert (config["modalities"], config["regions"]) == (["flair"], {"tumour": [1, 2, 4], "core": [1, 4]})
    assert config["cases"]["modalities"] == "@modalities"
    assert [case["case"] for case in find_cases(data, modalities=config["modalities"])] == ["s0", "s1", "s2"]


def test_modalities_and_regions_of_nnunet(tmp_path):
    content = {**MRI, "channel_names": {"0": "T1w", "1": "FLAIR"}}
    data = write_raw(tmp_path / "data", cases=2, channels=2, content=content)
    found = describe_data(data, ["flair"], {"lesion": [1]})
    assert (found.channels, found.regions) == (["FLAIR"], {"lesion": [1]})
    images = [case["image"] for case in found.cases]
    assert all("_0001" in str(image) and "_0000" not in str(image) for image in images)


def test_years_of_different_label_values_in_one_folder(tmp_path):
    write_brats(tmp_path / "data", cases=1)
    year_2023 = tmp_path / "data" / "BraTS-GLI-00001-000"
    write_brats(tmp_path / "other", cases=1, modalities=("t1n", "t1c", "t2f"), values=(1, 2, 3), joined="-")
    (tmp_path / "other" / "s0").rename(year_2023)
    for file in year_2023.iterdir():
        file.rename(file.with_name(file.name.replace("s0", year_2023.name)))
    message = r"several label conventions, .*: brats2021 \(case s0\), brats2023 \(case BraTS-GLI-00001-000\). Give the"
    with pytest.raises(DataError, match=message):
        describe_data(tmp_path / "data")


def test_wrong_modalities_and_regions(tmp_path):
    data = write_brats(tmp_path / "brats", lacking=("t1",))
    with pytest.raises(ConfigError, match=r"BraTS has t1, t1c, t2, flair"):
        describe_data(data, ["dwi"])
    with pytest.raises(DataError, match=r"case s0 .* has no file for t1"):
        describe_data(data, ["t1", "flair"])
    with pytest.raises(ConfigError, match=r"region 'tumour' needs one or more positive integer label values"):
        describe_data(data, regions={"tumour": [0]})
    raw = write_raw(tmp_path / "raw", cases=2)
    with pytest.raises(ConfigError, match=r"has no flair. Expected names from dataset.json: T1"):
        describe_data(raw, ["flair"])
    with pytest.raises(DataError, match=r"no label map of .* has a value of core. Found the values 1, 2, 4"):
        new_bundle("a_segmentation", "segan", data, tmp_path, regions={"core": [7]})


def test_only_segan_selects_modalities(tmp_path):
    data = write_brats(tmp_path / "data")
    with pytest.raises(
        ConfigError, match="--method lsnet uses all channels of a data set and cannot select modalities"
    ):
        new_bundle("glioma_segmentation", "lsnet", data, tmp_path, modalities=["flair"])
