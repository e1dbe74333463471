# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re

import pytest

from segan_monai.check.config_files import read_configs, run_id_of
from segan_monai.check.overlay_keys import keys_with_place
from segan_monai.errors import ConfigError
from segan_monai.run import read_arguments
from tests.check.good_config import GOOD

TRAIN = {"amp": True, "train": {"trainer": {"max_epochs": 3}, "handlers": [1]}}
EVALUATE = {"amp": True, "handlers": [1]}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("learning_rte", "unknown key --learning_rte: .*train.json has no such key. Did you mean --learning_rate"),
        ("_network_", "unknown key --_network_: .*train.json has no such key. Did you mean --network"),
        ("network#in_features#x", "unknown key --network#in_features#x: .*'network#in_features' is 2 and has no keys"),
        ("transforms#tranforms#0", "has no 'tranforms' in 'transforms'. Did you mean --transforms#transforms"),
        ("transforms::transforms::3::keys", "has no '3' in 'transforms#transforms'. Known there: 0"),
    ],
)
def test_overrides_that_name_no_key(tmp_path, key, message):
    titled = {"_network_": "---- the title of a section ----", **GOOD}
    (tmp_path / "train.json").write_text(json.dumps(titled), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_configs({"config_file": str(tmp_path / "train.json"), key: 1})


def test_overrides_reach_into_components_and_may_add_an_argument(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(GOOD), encoding="utf-8")
    arguments = {
        "config_file": str(tmp_path / "train.json"),
        "network#bias": False,
        "transforms#transforms#0#keys": "x",
    }
    parser = read_configs(arguments)
    assert parser["network::bias"] is False
    assert parser["transforms::transforms::0::keys"] == "x"


def test_a_missing_config_file_names_what_is_there(tmp_path):
    (tmp_path / "train.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"trian.json: there is no such file. Did you mean .*/train.json"):
        read_configs({"config_file": [str(tmp_path / "trian.json")]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,}', r"bad.json cannot be read \(.*line 1 column 9"),
        ("[1]", "bad.json holds a list; expected an object of keys"),
        ('{"a": "%nowhere"}', r"a macro \(text that starts with %\) leads nowhere"),
    ],
)
def test_a_damaged_config_file(tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_configs({"config_file": str(tmp_path / "bad.json")})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_with_a_byte_order_mark(tmp_path, encoding):
    file = tmp_path / "overlay.json"
    file.write_text("{}", encoding=encoding)
    message = r"overlay\.json begins with a UTF-.* byte order mark, .* Save the file as UTF-8"
    with pytest.raises(ConfigError, match=message):
        read_configs({"config_file": [str(file)]})


def test_a_damaged_metadata_file(tmp_path):
    (tmp_path / "train.json").write_text("{}", encoding="utf-8")
    (tmp_path / "metadata.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"metadata.json cannot be read"):
        read_configs({"config_file": str(tmp_path / "train.json")})


def test_an_unknown_run_id_names_the_nearest(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(GOOD), encoding="utf-8")
    parser = read_configs({"config_file": str(tmp_path / "train.json")})
    assert run_id_of(parser, "training") == "training"
    with pytest.raises(ConfigError, match=r"nothing to run is called 'trainig'. Did you mean training"):
        run_id_of(parser, "trainig")


@pytest.mark.parametrize("name", ["patient #2", "20240131", "a,b", "$x", "@x"])
def test_paths_are_what_was_typed(tmp_path, name):
    config = GOOD | {"dataset_dir": "data", "cache_dir": "c #1"}
    (tmp_path / "train.json").write_text(json.dumps(config), encoding="utf-8")
    parser = read_configs(read_arguments([f"--config_file={tmp_path / 'train.json'}", f"--dataset_dir={name}"]))
    assert parser.get_parsed_content("dataset_dir") == name
    assert parser.get_parsed_content("cache_dir") == "c #1"


@pytest.mark.parametrize("path", ["%x", "$x", "@x", "a@##b"])
def test_a_path_that_stops_monai_is_refused_with_what_to_write(tmp_path, path):
    (tmp_path / "train.json").write_text(json.dumps(GOOD | {"output_dir": "out"}), encoding="utf-8")
    arguments = read_arguments([f"--config_file={tmp_path / 'train.json'}", f"--output_dir={path}"])
    with pytest.raises(ConfigError, match=rf"--output_dir {re.escape(path)}: monai.bundle takes .* Write ./"):
        read_configs(arguments)


def test_keys_below_a_part_that_the_config_lacks_are_left_out():
    overlay = {"amp": False, "+train#handlers": [2], "train#trainer#amp": True, "handlers::0": 3, "new": 1}
    own = [("own.json", overlay)]
    assert keys_with_place(TRAIN, own) == [{key: overlay[key] for key in overlay if key != "handlers::0"}]
    assert list(keys_with_place(EVALUATE, own)[0]) == ["amp", "handlers::0", "new"]
    assert TRAIN["train"]["handlers"] == [1], "the config itself is not changed"


def test_an_earlier_overlay_may_make_the_place():
    first, second = {"train": {"trainer": {}}}, {"train#trainer#amp": True}
    assert keys_with_place(EVALUATE, [("a", first), ("b", second)]) == [first, second]
    assert keys_with_place(EVALUATE, [("b", second), ("a", first)]) == [{}, first]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("+amp", r"config must be dict or list.*: False\). Omit the \+"),
        ("+amp#x", r"invalid literal .*\). Correct the key"),
        ("amp#x", r"invalid literal .*\). Correct the key"),
        ("amp#0", r".* item assignment\). Correct the key"),
        ("train#handlers#first", r"invalid literal .*\). Correct the key"),
        ("train#handlers#99", r".* out of range\). Correct the key"),
    ],
)
def test_a_key_that_cannot_be_set_is_named_with_its_file(key, reason):
    message = rf"^own\.json has the key '{re.escape(key)}', which cannot be set \({reason}\.$"
    with pytest.raises(ConfigError, match=message):
        keys_with_place(TRAIN, [("first.json", {}), ("own.json", {key: False})])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("+zzz#handlers", r"has no place for it\. Correct the key, or omit the overlay here if it is for another"),
        ("+transfroms#x", r"has no place for it\. Did you mean \+transforms"),
        ("transforms#tranforms#0", r"has no place for it\. Did you mean transforms#transforms\? Correct the key"),
    ],
)
def test_a_key_without_a_place_is_named_with_its_file_and_the_nearest_key(tmp_path, key, message):
    contents = {"evaluate.json": GOOD, "own.json": {"learning_rate": 0.5, key: []}}
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    files = [str(tmp_path / name) for name in contents]
    with pytest.raises(ConfigError, match=rf"own\.json has the key '{re.escape(key)}', and .*evaluate\.json {message}"):
        read_configs({"config_file": files})


def test_a_mistyped_key_of_an_overlay_is_refused(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(GOOD), encoding="utf-8")
    (tmp_path / "own.json").write_text('{"learning_rate": 0.5, "learnin_rate": 9}', encoding="utf-8")
    message = (
        r"own\.json has the key 'learnin_rate', which nothing reads: .*train\.json has no such key, and no part of "
        r"them refers to it\. Did you mean learning_rate\? Correct the key, or omit the overlay here if it is for "
    )
    with pytest.raises(ConfigError, match=message):
        read_configs({"config_file": [str(tmp_path / "train.json"), str(tmp_path / "own.json")]})


@pytest.mark.parametrize(
    "content",
    [
        {"_learnin_rate": 9},
        {"momentun": 0.9, "learning_rate": "$0.1 * @momentun"},
        {"parts": {"rate": 0.1}, "learning_rate": "%parts::rate"},
        {"momentun": 0.9, "network#bias": "@##momentun"},
        {"tuning": ["$print('a run of the user')"]},
        {"of_the_evaluation": True},
        {"slice_size": [64, 64]},
        {"discriminator_def": None},
    ],
    ids=["comment", "reference", "macro", "relative", "run", "config beside", "key of bundles", "part of bundles"],
)
def test_keys_of_an_overlay_that_something_may_read(tmp_path, content):
    contents = {"train.json": GOOD, "evaluate.json": {"of_the_evaluation": False}, "own.json": content}
    for name, of_file in contents.items():
        (tmp_path / name).write_text(json.dumps(of_file), encoding="utf-8")
    (tmp_path / "inference.json").write_text("[1]", encoding="utf-8")
    (tmp_path / "inference.yaml").write_text("{", encoding="utf-8")
    parser = read_configs({"config_file": [str(tmp_path / "train.json"), str(tmp_path / "own.json")]})
    assert parser.get() is not None
