# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from segan_monai.ensembles import read_predictions
from segan_monai.errors import DataError
from segan_monai.folds import FoldRun, ensemble_name, ensembles_of
from segan_monai.folds.maps import mean_map, regions_of


def write_map(folder, values, regions=("r",)):
    folder.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(values, np.float32), np.eye(4)), folder / "a_probabilities.nii.gz")
    summary = {"regions": {name: {"reference_values": [index + 1]} for index, name in enumerate(regions)}}
    for name, content in (("summary.json", summary), ("run.json", {})):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return read_predictions(folder)


def test_the_mean_of_maps_has_regions_first(tmp_path):
    first, second = np.zeros((3, 4, 5, 2)), np.zeros((3, 4, 5, 2))
    first[2, 3, 4], second[2, 3, 4] = (0.9, 0.25), (0.3, 0.75)
    members = [write_map(tmp_path / name, values, "rs") for name, values in (("1", first), ("2", second))]
    mean = mean_map(members, "a", (2, 3, 4, 5))
    assert mean.shape == (2, 3, 4, 5)
    assert mean[:, 2, 3, 4] == pytest.approx([0.6, 0.5])
    assert mean.sum() == pytest.approx(1.1)


@pytest.mark.parametrize(("saved", "shape"), [((3, 4, 5), (1, 3, 4, 5)), ((3, 4), (1, 3, 4)), ((3, 4), (1, 3, 4, 1))])
def test_files_leave_out_axes_of_length_one(tmp_path, saved, shape):
    assert mean_map([write_map(tmp_path / "1", np.ones(saved))], "a", shape).shape == shape


def test_a_map_of_another_shape_is_refused(tmp_path):
    member = write_map(tmp_path / "1", np.zeros((3, 4, 5)))
    with pytest.raises(DataError, match=r"maps of case a in .*1 have shape \(1, 3, 4, 5\); expected \(1, 3, 4, 6\)"):
        mean_map([member], "a", (1, 3, 4, 6))


def test_members_need_the_same_regions(tmp_path):
    runs = []
    for name, values in (("A", [1]), ("B", [1, 2])):
        (tmp_path / name).mkdir()
        summary = {"regions": {"tumour": {"reference_values": values}}}
        (tmp_path / name / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        runs.append(FoldRun(name, 0, 0, tmp_path, tmp_path / name))
    assert regions_of(runs[:1]) == {"tumour": [1]}
    with pytest.raises(DataError, match=r"rows 'A' and 'B' have different regions.*Use --no-ensembles"):
        regions_of(runs)


def test_pairs_of_configurations_and_all_together():
    assert ensembles_of(["A"]) == []
    assert ensembles_of(["A", "B"]) == [("A", "B")]
    assert ensembles_of(["A", "B", "C"]) == [("A", "B"), ("A", "C"), ("B", "C"), ("A", "B", "C")]
    assert ensemble_name(("A", "B")) == "A + B"
