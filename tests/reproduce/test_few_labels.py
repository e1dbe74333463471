# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables whose rows run with numbers of labelled cases: runs, comparison, share of the gap and curve."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from segan_monai.bundles_by_name import BUNDLES
from segan_monai.errors import ConfigError
from segan_monai.losses.domain_adversarial import KINDS
from segan_monai.reproduce import Plan, draw_curve, format_csv, format_markdown, load_tables, with_labels
from segan_monai.reproduce.curve import curve_points
from segan_monai.reproduce.labels import train_domains
from segan_monai.reproduce.paired import paired_differences, share_of_gap
from segan_monai.reproduce.plan import run_folder
from tests.reproduce.results import result

TABLE = load_tables("semi-supervised")[0]


def run(row, dice, labels=None, draw=None):
    few = {} if labels is None else {"labels": labels, "draw": draw}
    return {**result(row, 0, 0.5, 0.5), **few, "dice_of_cases": dice}


def test_each_row_runs_with_each_number_and_draw_but_that_of_all_labels():
    labels = with_labels(TABLE, [4, 8], [0, 1]).labels
    assert labels.of_row("supervised") == [(4, 0), (4, 1), (8, 0), (8, 1)]
    assert labels.of_row("all labels") == [None]
    assert with_labels(TABLE, None, [7]).labels.numbers == TABLE.labels.numbers
    assert set(TABLE.rows) >= {TABLE.baseline, TABLE.labels.all_labels}


def test_tables_without_numbers_refuse_them():
    (table,) = load_tables("segan-isic")
    assert with_labels(table) is table
    with pytest.raises(ConfigError, match=r"--labels and --draws are for tables .* 'segan_isic' has none"):
        with_labels(table, [4])
    with pytest.raises(ConfigError, match=r"labels: 0 labelled cases; expected at least 1"):
        with_labels(TABLE, [0, 4])


def test_rows_are_compared_at_the_same_number_and_draw():
    runs = [
        run("supervised", {"a": 0.5, "b": 0.6}, 4, 0),
        run("supervised", {"a": 0.4, "b": 0.5}, 4, 1),
        run("supervised", {"a": 0.7, "b": 0.7}, 8, 0),
        run("unpaired", {"a": 0.6, "b": 0.8}, 4, 0),  # +.1, +.2
        run("unpaired", {"a": 0.4, "b": 0.3}, 4, 1),  # 0, -.2
        run("unpaired", {"a": 0.8, "b": 0.8}, 8, 0),
        run("all labels", {"a": 0.9, "b": 0.9}),
    ]
    four, eight = paired_differences(runs, "supervised").to_dict("records")
    assert (four["row"], four["labels"], eight["labels"]) == ("unpaired", 4, 8)
    assert four["difference"] == pytest.approx((0.1 + 0.2 + 0 - 0.2) / 4)
    assert (four["draws"], four["draws_better"], eight["draws"]) == (2, 1, 1)
    assert eight["difference"] == pytest.approx(0.1)


def test_the_interval_covers_draws_as_well_as_patients():
    """If patients agree and draws do not, an interval over patients alone would have no width."""
    generator = np.random.default_rng(0)
    patients = [f"p{i}" for i in range(30)]
    effects = [0.0, 0.03, 0.06, 0.09, 0.12]
    runs = []
    for draw, effect in enumerate(effects):
        base = generator.uniform(0.5, 0.7, len(patients))
        runs.append(run("supervised", dict(zip(patients, base, strict=True)), 8, draw))
        runs.append(run("unpaired", dict(zip(patients, base + effect, strict=True)), 8, draw))
    (line,) = paired_differences(runs, "supervised").to_dict("records")
    assert line["difference"] == pytest.approx(0.06)
    spread = 1.96 * np.std(effects) / np.sqrt(len(effects))  # of the bootstrap over five draws
    assert line["low"] == pytest.approx(0.06 - spread, abs=0.006)
    assert line["high"] == pytest.approx(0.06 + spread, abs=0.006)
    assert line["draws_better"] == 4


def test_share_of_the_gap():
    runs = [
        run("supervised", {"a": 0.5, "b": 0.5, "c": 0.9}, 8, 0),
        run("unpaired", {"a": 0.6, "b": 0.6, "c": 0.9}, 8, 0),
        run("all labels", {"a": 0.7, "b": 0.9}),  # c was not held out
        run("supervised", {"a": 0.9, "b": 0.9}, 32, 0),
        run("unpaired", {"a": 0.9, "b": 0.9}, 32, 0),  # no gap
    ]
    assert share_of_gap(runs, "supervised", "all labels") == {("unpaired", 8): pytest.approx(0.1 / 0.3)}


def test_share_of_the_gap_counts_patients():
    """Patient a, with two cases, has half of the weight."""
    runs = [
        {**run(row, dice, labels, 0), "patient_of_cases": {"a1": "a", "a2": "a"}}
        for row, dice, labels in (
            ("supervised", {"a1": 0.5, "a2": 0.5, "b": 0.5}, 8),
            ("unpaired", {"a1": 0.6, "a2": 0.8, "b": 0.5}, 8),
            ("all labels", {"a1": 0.9, "a2": 0.9, "b": 0.9}, None),
        )
    ]
    assert share_of_gap(runs, "supervised", "all labels") == {("unpaired", 8): pytest.approx(0.1 / 0.4)}


@pytest.fixture
def runs():
    return [
        run(row, {"a": dice + 0.01 * labels, "b": dice + 0.02 * draw}, labels, draw)
        for row, dice in (("supervised", 0.5), ("unpaired", 0.6))
        for labels in (4, 8)
        for draw in (0, 1)
    ] + [run("all labels", {"a": 0.9, "b": 0.9})]


def test_points_of_the_curve(runs):
    points = curve_points(runs).set_index(["row", "labels"])
    assert points.loc[("supervised", 4.0)].tolist() == pytest.approx([0.525, 0.52, 0.53])  # mean, lowest, highest
    assert points["dice"].iloc[-1] == pytest.approx(0.9)


def test_the_curve_is_an_svg_with_every_row(runs):
    svg = draw_curve(TABLE, runs)
    ElementTree.fromstring(svg)
    assert svg.count("<!-- supervised -->") == svg.count("<!-- unpaired -->") == 1
    assert svg.count("<!-- all labels: 0.900 -->") == 1
    assert svg == draw_curve(TABLE, runs), "the same results give the same file"
    assert draw_curve(TABLE, [run("all labels", {"a": 0.9})]) == ""


def test_table_and_csv_name_numbers_and_draws(runs, tmp_path):
    text = format_markdown(Plan(replace(TABLE), tmp_path / "data", tmp_path), runs)
    assert "| unpaired, 8 labelled | " in text
    assert "| all labels | " in text
    assert "gap closed" in text
    assert "| unpaired, 4 labelled | 2 | +0.100 | +0.100 to +0.100 | 2 | 2 of 2 | 27% |" in text
    assert "± is the standard deviation over seeds and draws of labelled cases" in text
    header, first = format_csv(runs).splitlines()[:2]
    assert header.startswith("row,seed,labels,draw,region,")
    assert first.startswith("supervised,0,4,0,left,")


def test_a_failed_draw_is_named_beside_the_other_runs_of_its_row(runs, tmp_path):
    text = format_markdown(Plan(TABLE, tmp_path / "data", tmp_path), runs, {"unpaired": "draw 2 broke"})
    assert "**unpaired failed**: draw 2 broke" in text
    assert "| unpaired |" not in text, "the row has runs, and is no failed one"


def test_the_gap_of_a_table_without_numbers_of_labels(tmp_path):
    (table,) = load_tables("unlabelled-scanner")
    dice = {"source only": 0.4, "random contrast": 0.6, "target labelled": 0.8}
    found = [run(row, {"a": value, "b": value + 0.1}) for row, value in dice.items()]
    text = format_markdown(Plan(table, tmp_path / "data", tmp_path), found)
    assert "| random contrast | 2 | +0.200 | +0.200 to +0.200 | 2 | 50% |" in text
    assert "| target labelled | 2 | +0.400 | +0.400 to +0.400 | 2 |  |" in text


def test_the_table_of_an_unlabelled_scanner():
    (table,) = load_tables("unlabelled-scanner")
    assert (table.baseline, table.oracle, len(table.rows)) == ("source only", "target labelled", 9)
    hidden = {row: any(file.stem == "target_labelled" for file in files) for row, files in table.rows.items()}
    assert [row for row, given in hidden.items() if given] == ["target labelled"]


def test_all_domains_together_differ_in_normalizer_and_discriminator_alone():
    (table,) = load_tables("joint-domains")
    merged = {row: settings_of(table, row) for row in table.rows}
    assert table.baseline == "S alone"
    assert {row: settings["adversarial_weight"] for row, settings in merged.items()} == {
        "S alone": 0.0,
        "S alone, random contrast": 0.0,
        "G and S": 0.0,
        "G, S and D": 0.1,
        "G, S and D, confusion": 0.1,
    }
    assert [row for row, settings in merged.items() if "network_def#normalizer" in settings] == list(merged)[:2]
    common = [(one["train_domains"], one["test_domains"], one["intensity"]) for one in merged.values()]
    assert common == [(None, None, "standardize")] * 5


def test_the_tables_of_labels_in_part(tmp_path):
    regions, slices = load_tables("partial-labels")
    assert [table.baseline for table in (regions, slices)] == ["missing region: supervised", "one slice: supervised"]
    assert regions.oracle == slices.oracle == "all labels"
    assert len({run_folder(Plan(table, tmp_path, tmp_path), "all labels", 0) for table in (regions, slices)}) == 1
    for table, hidden in ((regions, {"missing_regions": {"posterior": 0.5}}), (slices, {"annotated_slices": 1})):
        kind = table.baseline.split(":")[0]
        supervised = settings_of(table, f"{kind}: supervised")
        assert supervised == {**settings_of(table, "all labels"), **hidden}
        for row, weight in (("mean teacher", "consistency_weight"), ("unpaired L1", "unpaired_weight")):
            assert settings_of(table, f"{kind}: {row}").items() > {**supervised, "unlabeled": "use"}.items()
            assert settings_of(table, f"{kind}: {row}")[weight] > 0
    complete = settings_of(regions, "missing region: complete cases only")["missing_regions"]
    train = json.loads((BUNDLES / regions.bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    assert complete == dict.fromkeys(train["regions"], 0.5), "they lose the label of every region"


def settings_of(table, row):
    merged = {}
    for file in table.rows[row]:
        merged |= json.loads(file.read_text(encoding="utf-8"))
    return {key: value for key, value in merged.items() if key != "_desc_"}


def test_the_domains_that_a_row_trains_on(tmp_path):
    (table,) = load_tables("unlabelled-scanner")
    (tmp_path / "set.json").write_text('{"first_domain": "A", "second_domain": "B"}', encoding="utf-8")
    train = BUNDLES / table.bundle / "configs" / "train.json"
    files = [str(file) for file in (train, tmp_path / "set.json", *table.rows["source only"])]
    assert train_domains(files) == ["A", "B"]
    assert train_domains(files[:2]) is None, "all"
    assert train_domains([str(BUNDLES / "hippocampus_mri_segan_segmentation" / "configs" / "train.json")]) is None


def test_each_loss_of_the_discriminator_has_one_row():
    (table,) = load_tables("discriminator-losses")
    settings = {row: settings_of(table, row) for row in table.rows}
    assert settings.pop(table.baseline)["adversarial_weight"] == 0
    assert sorted(merged.pop("adversarial_loss") for merged in settings.values()) == sorted(KINDS)
    others = list(settings.values())
    assert all(other == others[0] for other in others), "the rows differ in nothing else"
    assert others[0]["adversarial_weight"] > 0
