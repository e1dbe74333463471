# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from segan_monai.reproduce import Plan, ResultTable, format_csv, format_markdown
from segan_monai.reproduce.domains import domain_rows, read_accuracy, read_domains
from tests.reproduce.results import result

TABLE = ResultTable(
    "t", "Title", "a paper", "its data", "some_bundle", ["dice"], {"G": [], "S": []}, {"G": {}, "S": {}}
)
PLAN = Plan(TABLE, Path("data"), Path("out"))
METRICS = pd.DataFrame(
    [("a1", "GM", 0.2), ("a1", "WM", 0.4), ("a2", "GM", 0.6), ("a2", "WM", 0.8), ("b1", "GM", 0.5), ("b1", "WM", 1.0)],
    columns=["case", "region", "dice"],
)


@pytest.fixture
def record():
    change = {"ssim_to_input": 0.5, "total_variation_input": 2.0, "total_variation_normalized": 1.0}
    flat = {"ssim_to_input": None, "total_variation_input": 0.0, "total_variation_normalized": 0.0}
    divergence = {"input": {"whole image": 0.4, "GM": 0.1}, "normalized": {"whole image": 0.3, "GM": 0.2}}
    return {
        "domains": ["A", "B", "C"],
        "jensen_shannon_divergence_nats": divergence,
        "change": {"A": change, "B": {**change, "ssim_to_input": 0.9, "total_variation_normalized": 3.0}, "C": flat},
        "cases": {case: {"domain": domain} for case, domain in (("a1", "A"), ("a2", "A"), ("b1", "B"))},
    }


def test_dice_and_realism_are_read_by_domain(tmp_path, record):
    assert read_domains(tmp_path, METRICS, "") == {}, "a bundle without domains"
    (tmp_path / "normalization.json").write_text(json.dumps(record), encoding="utf-8")
    found = read_domains(tmp_path, METRICS, "")
    assert found.pop("dice_of_domains") == {
        "A": pytest.approx({"GM": 0.4, "WM": 0.6}),
        "B": pytest.approx({"GM": 0.5, "WM": 1.0}),
    }
    # an image without contrast has neither: it is in no mean
    expected = {"ssim_to_input": 0.7, "total_variation_ratio": (0.5 + 1.5) / 2}
    assert found == pytest.approx({**expected, "jsd_input_nats": 0.4, "jsd_normalized_nats": 0.3})
    of_one = read_domains(tmp_path, METRICS[METRICS["case"] == "b1"], "")
    assert not any(name.startswith("jsd") for name in of_one), "one domain has no divergence"


def test_the_accuracy_is_that_of_the_last_tenth_of_the_epochs():
    lines = [
        (epoch, f"training/accuracy_{name}", value if epoch > 18 else 0.0)
        for epoch in range(1, 21)
        for name, value in (("A", 0.2), ("generated", 0.6), ("chance", 0.5))
    ]
    history = pd.DataFrame(lines, columns=["epoch", "name", "value"])
    assert read_accuracy(history) == pytest.approx({"discriminator_accuracy": 0.4, "discriminator_chance": 0.5})
    assert read_accuracy(history.assign(name="training/segmentation")) == {}


def test_the_table_has_a_second_one_by_domain():
    of_domains = {"A": {"left": 0.4, "right": 0.6}, "B": {"left": 0.5, "right": 1.0}}
    with_normalizer = [
        {**result("G", seed, 0.8, 0.6), "dice_of_domains": of_domains, "ssim_to_input": 0.7 + seed / 10}
        for seed in (0, 2)
    ]
    of_one = {**result("S", 0, 0.7, 0.5), "dice_of_domains": {"B": {"left": 0.1, "right": 0.2}}}
    second = format_markdown(PLAN, [*with_normalizer, of_one]).split("\n\n")[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in second]
    g, s = (dict(zip(cells[0], row, strict=True)) for row in cells[2:])
    assert (g["by domain"], g["Dice A, left/right"], g["Dice B, left/right"]) == ("G", "0.400/0.600", "0.500/1.000")
    assert (g["SSIM to input"], s["SSIM to input"]) == ("0.800", "")
    assert (s["Dice A, left/right"], s["Dice B, left/right"]) == ("", "0.100/0.200")
    rows = list(csv.DictReader(io.StringIO(format_csv([*with_normalizer, of_one]))))
    assert [row["dice_A"] for row in rows] == ["0.4", "0.6", "0.4", "0.6", "", ""]
    assert [row["ssim_to_input"] for row in rows] == ["0.7", "0.7", "0.9", "0.9", "", ""]
    without = format_markdown(PLAN, [result("G", 0, 0.8, 0.6)])
    assert "by domain" not in without


def test_a_region_that_no_case_of_a_domain_is_labelled_for_is_left_empty():
    found = [{"A": {"left": 0.4}}, {"A": {"left": 0.6, "right": 0.5}}, {"B": {"right": 0.7}}]
    by_row = {"G": [{"dice_of_domains": of_run} for of_run in found]}
    (line,) = domain_rows(by_row)
    assert (line["Dice A, left/right"], line["Dice B, right"]) == ("0.500/0.500", "0.700")
