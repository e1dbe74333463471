# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Configs find every public class and function by its full path and by its short name."""

from __future__ import annotations

import inspect
from pydoc import locate

import pytest
from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator

import segan_monai
import segan_monai.export
import segan_monai.verify  # what they define must not take a name from a component

PACKAGES = ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks", "transforms")
COMPONENTS = sorted(
    {
        (name, component.__module__)
        for package in PACKAGES
        for name in getattr(segan_monai, package).__all__
        if inspect.isclass(component := getattr(getattr(segan_monai, package), name)) or inspect.isfunction(component)
    }
)


def test_there_is_something_to_find():
    names = {name for name, _ in COMPONENTS}
    assert {"SegANSegmentor", "SegANCritics", "MultiScaleL1Loss", "SegANTrainer", "VolumeSliceInferer"} <= names


@pytest.mark.parametrize(("name", "module"), COMPONENTS)
def test_short_name_and_full_path(name, module):
    assert ComponentLocator().get_component_module_name(name) == module, "a name that MONAI has too is found twice"
    assert locate(f"{module}.{name}") is getattr(inspect.getmodule(locate(f"{module}.{name}")), name)


def test_a_config_builds_a_component_by_its_short_name():
    content = {"_target_": "SegANSegmentor", "in_channels": 1, "out_channels": 2, "base_channels": 4}
    network = ConfigParser({"network": content}).get_parsed_content("network")
    assert isinstance(network, segan_monai.networks.SegANSegmentor)


def test_importing_twice_registers_once():
    assert list(ComponentLocator.MOD_START).count("segan_monai") == 1
    assert "monai" in ComponentLocator.MOD_START
