# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Keys that pages name exist, and pages name every key."""

from __future__ import annotations

import json
import re
from itertools import takewhile

import pytest

from tests.docs.pages import PAGES, TOP

BUNDLES = sorted((TOP / "bundles").iterdir(), key=lambda folder: folder.name)
ROW = re.compile(r"^\| (`[^|]+)\|", re.MULTILINE)
WITH_KEYS = 4  # the bundle for adversarial normalization has its table in docs/adversarial_normalization.md
NOT_SET_BY_USERS = {"imports", "bundle_root"}


def documented(page):
    """Names in the first column of the table whose header is ``key``."""
    _, _, table = page.read_text(encoding="utf-8").partition("\n| key | meaning | default |\n")
    cells = ROW.findall(table.partition("\n\n")[0])
    return {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}


def settings(bundle):
    """Keys of each config of a bundle that stand above its components."""
    configs = [json.loads((bundle / "configs" / f"{name}.json").read_text("utf-8")) for name in CONFIGS]
    return {key for config in configs for key in takewhile(lambda key: key != "_components_", config) if key[0] != "_"}


CONFIGS = ("train", "evaluate", "inference")


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda folder: folder.name)
def test_every_key_of_a_readme_exists(bundle):
    assert documented(bundle / "docs" / "README.md") - settings(bundle) == set()


def test_the_tables_are_found():
    tables = [documented(bundle / "docs" / "README.md") for bundle in BUNDLES]
    assert sum(bool(keys) for keys in tables) == WITH_KEYS
    assert {"region_rules", "mirror_axes", "unpaired_weight"} <= documented(
        TOP / "bundles" / "brats_mri_segan_segmentation" / "docs" / "README.md"
    )


def test_keys_that_are_those_of_the_brain_tumour_bundle_are_documented_there():
    there = documented(TOP / "bundles" / "brats_mri_segan_segmentation" / "docs" / "README.md")
    for bundle in BUNDLES:
        rows = (bundle / "docs" / "README.md").read_text(encoding="utf-8").splitlines()
        for row in rows:
            if row.startswith("| `") and "| as in the [brain tumour bundle]" in row:
                assert set(re.findall(r"`(\w+)`", row.split("|")[1])) <= there, bundle.name


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda folder: folder.name)
def test_every_key_is_on_some_page(bundle):
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    computed = {"num_classes", "in_channels", "train"}  # from other keys; `train` is empty
    assert {key for key in settings(bundle) if not re.search(rf"\b{key}\b", text)} <= NOT_SET_BY_USERS | computed
