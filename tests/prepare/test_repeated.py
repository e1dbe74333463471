# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Own fields and sections of a datalist in the result, and what a repeated preparation notices."""

from __future__ import annotations

import json

import numpy as np
import pytest

from segan_monai.data import decathlon_cases
from segan_monai.prepare import PrepareOptions, prepare_data_set
from segan_monai.prepare.manifest import file_records
from segan_monai.volume_files import read_volume


def prepare(source, **options):
    return prepare_data_set("msd", source, source.parent / "out", PrepareOptions(**options), workers=1)


def write_datalist(folder, modality=("T1", "T2"), **sections):
    names = {str(index): name for index, name in enumerate(modality)}
    (folder / "dataset.json").write_text(json.dumps({"modality": names, **sections}), encoding="utf-8")


def prepared(source):
    return json.loads((source.parent / "out/dataset.json").read_text(encoding="utf-8"))


@pytest.fixture
def source(tmp_path, write_volume):
    """A decathlon task of two cases with channels of 10 and 20."""
    folder = tmp_path / "Task"
    values = np.broadcast_to(np.array([10, 20], np.int16), (6, 5, 4, 2))
    for name in "ab":
        write_volume(folder / f"imagesTr/{name}.nii.gz", values)
        write_volume(folder / f"labelsTr/{name}.nii.gz", np.full((6, 5, 4), 5, np.uint8))
    write_datalist(folder, training=entries("a", "b"))
    return folder


def entries(*names, **fields):
    return [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz", **fields} for name in names]


def test_all_fields_of_a_case_are_kept(source):
    fields = {"subject": "P1", "fold": 1, "labelled_regions": ["liver"], "scanner": {"field strength": 3}}
    write_datalist(source, training=entries("a", "b", **fields, channels=[1], tissue_values={"5": 1}))
    assert prepare(source).succeeded
    assert prepared(source)["training"] == [*entries("a", case="a", **fields), *entries("b", case="b", **fields)]
    assert (read_volume(source.parent / "out/labelsTr/a.nii.gz").values == 1).all()


def test_the_section_unlabeled_is_kept(source):
    write_datalist(source, training=entries("a"), unlabeled=["imagesTr/b.nii.gz"])
    assert prepare(source).made == ["a", "b"]
    assert prepared(source)["unlabeled"] == [{"image": "imagesTr/b.nii.gz", "case": "b", "subject": "b"}]
    assert [case["section"] for case in decathlon_cases(source.parent / "out")] == ["training", "unlabeled"]
    write_datalist(source, training=entries("a", "b"))
    assert prepare(source).made == ["b"]
    assert "unlabeled" not in prepared(source)


def test_channels_in_another_order_are_selected_again(source):
    write_datalist(source, ("T2", "T1"), training=entries("a", "b"))
    prepare(source, modalities=("T1",))
    image = source.parent / "out/imagesTr/a.nii.gz"
    assert (read_volume(image).values == 20).all()
    write_datalist(source, ("T1", "T2"), training=entries("a", "b"))
    assert prepare(source, modalities=("T1",)).made == ["a", "b"]
    assert (read_volume(image).values == 10).all()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"subject": "P1"}, {"subject": "P2"}),
        ({"fold": 0}, {"fold": 1}),
        ({}, {"labelled_regions": ["liver"]}),
        ({"domain": "site"}, {}),
        ({"tissue_values": {"5": 1}}, {"tissue_values": {"5": 2}}),
    ],
)
def test_changed_fields_are_noticed(source, before, after):
    write_datalist(source, training=[*entries("a", **before), *entries("b")])
    prepare(source)
    assert prepare(source).kept == ["a", "b"]
    write_datalist(source, training=[*entries("a", **after), *entries("b")])
    outcome = prepare(source)
    assert (outcome.made, outcome.kept) == (["a"], ["b"])
    subject = {"case": "a", "subject": "a"}
    values = after.pop("tissue_values", {"5": 5})
    assert prepared(source)["training"][0] == {**entries("a")[0], **subject, **after}
    assert (read_volume(source.parent / "out/labelsTr/a.nii.gz").values == values["5"]).all()


def test_a_case_of_another_section_is_moved(source):
    prepare(source)
    write_datalist(source, training=entries("a"), test=entries("b"))
    outcome = prepare(source)
    assert (outcome.made, outcome.kept) == (["b"], ["a"])
    assert [entry["image"] for entry in prepared(source)["test"]] == ["imagesTs/b.nii.gz"]
    assert [path.name for path in (source.parent / "out/imagesTr").iterdir()] == ["a.nii.gz"]


def test_a_label_map_that_was_listed_as_an_image(source, write_volume):
    files = [str(write_volume(source / f"{name}.nii.gz", np.full((6, 5, 4), 3, np.uint8))) for name in ("one", "two")]
    write_datalist(source, training=[{"case": "a", "image": files}])
    prepare(source)
    write_datalist(source, ("T1",), training=[{"case": "a", "image": files[0], "label": files[1]}])
    assert prepare(source).made == ["a"]
    assert prepared(source)["training"][0]["label"] == "labelsTr/a.nii.gz"


def test_a_record_without_fields_is_made_again(source):
    prepare(source)
    file = source.parent / "out/manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    del manifest["cases"]["b"]["fields"]
    file.write_text(json.dumps(manifest), encoding="utf-8")
    outcome = prepare(source)
    assert (outcome.made, outcome.kept) == (["b"], ["a"])


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_voxels_beside_a_header_are_noticed(source, write_volume, name):
    image = write_volume(source / name, np.full((6, 5, 4), 1, np.int16))
    (data,) = (path for path in source.glob("a.*") if path != image)
    other = data.rename(source / "voxels.bin")
    image.write_text(image.read_text().replace(data.name, other.name))
    write_datalist(source, ("T1",), training=[{"case": "a", "image": name, "label": "labelsTr/a.nii.gz"}])
    prepare(source)
    assert prepare(source).kept == ["a"]
    other.write_bytes(write_volume(source / "b.mha", np.full((6, 5, 4), 2, np.int16)).read_bytes()[-240:])
    assert prepare(source).made == ["a"]
    assert (read_volume(source.parent / "out/imagesTr/a.nii.gz").values == 2).all()


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd", "a.hdr", "a.nii.gz"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        file_records([tmp_path / name], tmp_path)
