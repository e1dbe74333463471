# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from segan_monai.bundles_by_name import BUNDLES, find_overlay
from segan_monai.errors import ConfigError
from segan_monai.reproduce import check_rows, load_tables, parse_overrides
from segan_monai.reproduce.published import recorded_name

TABLES = sorted(file.parent.name for file in Path("configs/experiments").glob("*/table.json"))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_whole(name):
    (table,) = load_tables(name)
    assert table.rows
    assert table.metrics
    assert set(table.published) == set(table.rows)


def test_tables_that_are_asked_for():
    assert {"segan_components", "segan_vs_unet"} <= set(TABLES)
    assert list(load_tables("segan-vs-unet")[0].rows) == ["SegAN", "U-Net", "U-Net + Dice", "Dice, no critic"]


def test_an_unknown_table_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no table 'segan-unet'.*Known tables: .*segan-components"):
        load_tables("segan-unet")


def test_an_unknown_bundle_is_named():
    with pytest.raises(ConfigError, match=r"bundles/no_such_bundle/configs/train.json does not exist, but the table"):
        load_tables("segan-components", bundle="no_such_bundle")


def test_bundles_without_critics_have_fewer_rows_of_few_labels():
    (table,) = load_tables("semi-supervised", bundle="pancreas_ct_lsnet_segmentation")
    assert list(table.rows) == ["supervised", "mean teacher", "all labels"]
    assert {table.baseline, table.labels.all_labels} < set(table.rows)
    with pytest.raises(ConfigError, match=r"bundle brain\w+ cannot run the table 'semi_supervised': .* labeled_cases"):
        load_tables("semi-supervised", bundle="brain_mri_adversarial_normalization_segmentation")


def test_rows_are_chosen_by_name():
    tables = load_tables("segan-vs-unet")
    assert check_rows(tables, []) == [list(tables[0].rows)]
    assert check_rows(tables, ["U-Net"]) == [["U-Net"]]
    with pytest.raises(ConfigError, match=r"no row 'Unet' in 'segan_vs_unet'; there are: SegAN, U-Net"):
        check_rows(tables, ["Unet"])


def test_all_tables_of_a_paper_share_their_common_rows():
    tables = [table for table in load_tables("lsnet") if "paper" in table.source]
    assert [table.source for table in tables] == [f"L-SNet paper, Table {number}" for number in (1, 2, 3, 4)]
    methods, components, first_stage, decay = (table.rows for table in tables)
    assert methods["U-Net"] == components["S-Net + loss"]
    assert methods["Coarse-to-fine U-Net"] == first_stage["U-Net"]
    assert components["S-Net + loss + L-Net"] == first_stage["L-Net"]
    assert methods["L-SNet (U-Net)"] == components["S-Net + loss + L-Net + RR"] == decay["decay 0.1"]
    folders = {"+".join(file.stem for file in files) for table in tables for files in table.rows.values()}
    assert len(folders) == len({tuple(files) for table in tables for files in table.rows.values()}) == 12
    assert check_rows(tables, ["decay 1"]) == [[], [], [], ["decay 1"]]


def test_overrides_are_literals_or_text():
    (table,) = load_tables("segan-vs-unet")
    texts = ["epochs=3", "amp=false", "regions={'lesion': [1]}", 'modalities=["FLAIR"]', "output_dir=a=b"]
    assert parse_overrides(texts, table) == {
        "epochs": 3,
        "amp": False,
        "regions": {"lesion": [1]},
        "modalities": ["FLAIR"],
        "output_dir": "a=b",
    }
    with pytest.raises(ConfigError, match=r"unknown key 'epoch'.*Did you mean epochs"):
        parse_overrides(["epoch=3"], table)
    with pytest.raises(ConfigError, match=r"has no such key\. Did you mean base_channels\?$"):
        parse_overrides(["base_width=3"], table)
    with pytest.raises(ConfigError, match=r"has no such key\.$"):
        parse_overrides(["xyzzy=3"], table)
    with pytest.raises(ConfigError, match="cannot parse the setting 'epochs'; expected KEY=VALUE"):
        parse_overrides(["epochs"], table)


def test_tables_and_overlays_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (table,) = load_tables("segan-vs-unet")
    assert all(file.is_file() for files in table.rows.values() for file in files)
    assert recorded_name(table.rows["SegAN"][0]) == "configs/experiments/segan_components/s3_3c.json"
    assert recorded_name(find_overlay(Path("configs/cpu.json"))) == "configs/cpu.json"
    evaluate = BUNDLES / table.bundle / "configs" / "evaluate.json"
    assert recorded_name(evaluate) == f"bundles/{table.bundle}/configs/evaluate.json"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "cpu.json").write_text("{}", encoding="utf-8")
    assert find_overlay(Path("configs/cpu.json")) == Path("configs/cpu.json")  # the user's own comes first
    with pytest.raises(ConfigError, match=r"there is no config mine.json.*or one of configs/axial_slices.json"):
        find_overlay(Path("mine.json"))
