# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from segan_monai.verify import METADATA_SCHEMA
from tests.bundles.workflow import BUNDLES, HIPPOCAMPUS

METADATA = json.loads((BUNDLES / HIPPOCAMPUS / "configs" / "metadata.json").read_text(encoding="utf-8"))
IMAGE = ("network_data_format", "inputs", "image")


def errors(metadata):
    return [error.message for error in jsonschema.Draft202012Validator(METADATA_SCHEMA).iter_errors(metadata)]


def changed(path, value):
    metadata = copy.deepcopy(METADATA)
    place = metadata
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return metadata


def test_the_schema_is_one_and_a_good_file_passes():
    jsonschema.Draft202012Validator.check_schema(METADATA_SCHEMA)
    assert errors(METADATA) == []


@pytest.mark.parametrize("key", METADATA_SCHEMA["required"])
def test_what_is_required(key):
    without = {name: value for name, value in METADATA.items() if name != key}
    assert errors(without) == [f"'{key}' is a required property"]


@pytest.mark.parametrize("key", ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"])
def test_what_is_required_of_a_tensor(key):
    tensor = {name: value for name, value in METADATA["network_data_format"]["inputs"]["image"].items() if name != key}
    assert errors(changed(IMAGE, tensor)) == [f"'{key}' is a required property"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), "first"),
        (("schema",), "meta_schema.json"),
        (("changelog",), {}),
        (("required_packages_version",), {"torch": 2}),
        ((*IMAGE, "num_channels"), "1"),
        ((*IMAGE, "spatial_shape"), ["any", "*"]),
        ((*IMAGE, "spatial_shape"), [0, 16]),
        ((*IMAGE, "dtype"), "float"),
        ((*IMAGE, "value_range"), [0, 0.5, 1]),
        ((*IMAGE, "is_patch_data"), "false"),
        ((*IMAGE, "channel_def"), {"T1": "0"}),
        ((*IMAGE, "type"), "picture"),
        (("network_data_format", "outputs"), {"label": METADATA["network_data_format"]["outputs"]["pred"]}),
    ],
)
def test_what_is_refused(path, value):
    assert len(errors(changed(path, value))) == 1


@pytest.mark.parametrize("shape", [["16*n", "16*n"], ["2**p", "2**p*n"], [160, 160, 160], ["*"]])
def test_ways_to_write_a_shape(shape):
    assert errors(changed((*IMAGE, "spatial_shape"), shape)) == []
