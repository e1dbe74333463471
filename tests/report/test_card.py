# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.errors import ConfigError, DataError
from segan_monai.report.card import BLANK, model_card
from segan_monai.report.claim import ITEMS, OF_ARTICLES, OF_RESULTS


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    about = {
        "name": "Lesions",
        "task": "Lesion segmentation | MRI",
        "data_source": "own",
        "changelog": {"0.1": "first"},
    }
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text(json.dumps(about), encoding="utf-8")
    return tmp_path / "bundle"


def test_fields_come_from_the_files_and_the_rest_is_blank(bundle, runs):
    training, evaluation = runs
    card = model_card(bundle, training, evaluation)
    for line in (
        "# Model card: Lesions",
        "| task | Lesion segmentation \\| MRI |",
        "| cases | training 2, validation 4 |",
        "| failures per region | lesion 1 |",
        f"| funding | {BLANK} | 44 |",
        f"| registration and protocol | {BLANK} | 34, 42 |",
        "| changes | 0.1 first |",
        "| lesion | 4 | 0.650 ± 0.451 |",
    ):
        assert line in card, line
    blanks = card.count(f"| {BLANK} |")
    assert f"; {blanks} are {BLANK}." in card


@pytest.mark.parametrize(
    ("hd95", "cell"),
    [
        ({"median": None, "infinite": 2}, "inf"),
        ({"median": None, "infinite": 1}, ""),
        ({"median": None, "infinite": 0}, ""),
        ({"median": 2.0, "infinite": 1}, "2.00"),
    ],
    ids=["half are infinite", "unknown spacing and one empty mask", "unknown spacing", "finite"],
)
def test_a_median_distance_that_is_infinite_is_told(bundle, runs, hd95, cell):
    file = runs[1] / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8"))
    summary["regions"]["lesion"]["hd95_mm"] = hd95
    file.write_text(json.dumps(summary), encoding="utf-8")
    (line,) = (line for line in model_card(bundle, *runs).splitlines() if line.startswith("| lesion | 4 |"))
    assert line.endswith(f"| {cell} |")


def test_an_evaluation_of_another_bundle_is_refused(bundle, runs):
    file = runs[1] / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**record, "bundle": "other_segmentation"}), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"has the results of the bundle other_segmentation; expected those of bundle"
    ):
        model_card(bundle, *runs)


def change_config(folder, **keys):
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["config"] |= keys
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def test_initial_weights_and_selection_follow_from_the_config(bundle, runs):
    training, _ = runs
    config = {"epochs": 30, "val_interval": 10, "seed": 7, "validate": {"key_metric": {"mean_dice": {}}}}
    change_config(training, **config, localizer_weights=None)
    card = model_card(bundle, training)
    assert "| initial weights | random, seed 7 | 24 |" in card
    chosen = "highest mean_dice of the 4 validation cases, measured every 10 epochs and after the last"
    assert f"| selection of the final model | {chosen} | 26 |" in card
    change_config(training, localizer_weights="resnet18.pth", ema_decay=0.99)
    card = model_card(bundle, training)
    assert "| initial weights | localizer_weights resnet18.pth, else random, seed 7 | 24 |" in card
    assert f"| {chosen}, of the averaged weights (decay 0.99) | 26 |" in card
    change_config(training, initialize=["$segan_monai.load_weights(@network, 'start.pt')"], validate={})
    card = model_card(bundle, training)
    assert f"| initial weights | {BLANK} | 24 |" in card, "nobody knows what a config of one's own loads"
    assert f"| selection of the final model | {BLANK} | 26 |" in card


def test_the_networks_of_an_ensemble_are_counted(bundle, runs):
    training, evaluation = runs
    assert f"| ensemble | {BLANK} | 27 |" in model_card(bundle, training), "there are no weights"
    for fold in range(3):
        (training / f"fold_{fold}").mkdir()
        (training / f"fold_{fold}" / "model.pt").touch()
    assert "| ensemble | mean probability of 3 networks | 27 |" in model_card(bundle, training)
    (training / "model.pt").touch()
    assert "| ensemble | none: one network | 27 |" in model_card(bundle, training, evaluation)
    change_config(evaluation, weights=["a", "b"])
    assert "| ensemble | mean probability of 2 networks | 27 |" in model_card(bundle, training, evaluation)
    change_config(evaluation, weights="a")
    assert "| ensemble | none: one network | 27 |" in model_card(bundle, training, evaluation)


def test_the_networks_of_an_ensemble_of_lsnets_are_not_averaged(bundle, runs):
    training, _ = runs
    for fold in range(2):
        (training / f"fold_{fold}").mkdir()
        (training / f"fold_{fold}" / "model.pt").touch()
        (training / f"fold_{fold}" / "model.json").write_text('{"network": "LSNet", "settings": {}}', encoding="utf-8")
    ensemble = "RoIs of 2 networks, each segmented by the mean of all, merged by their maximum"
    assert f"| ensemble | {ensemble} | 27 |" in model_card(bundle, training)


def test_licences_are_those_of_the_bundle(bundle):
    assert f"| licence of the data | {BLANK} |" in model_card(bundle)
    (bundle / "docs").mkdir()
    (bundle / "docs" / "data_license.txt").write_text("Task04:\n  CC BY-SA 4.0\n", encoding="utf-8")
    file = bundle / "configs" / "metadata.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**about, "weights_license": "CC-BY-SA-4.0"}), encoding="utf-8")
    card = model_card(bundle)
    assert "| licence of the data | Task04: CC BY-SA 4.0 |" in card
    assert "| licence of the weights | CC-BY-SA-4.0 |" in card


def test_every_item_of_claim_is_of_a_field(bundle):
    card = model_card(bundle)
    sections = {part.splitlines()[0]: part for part in card.split("## ")[1:]}
    for section, fields in ITEMS.items():
        for field in fields:
            assert f"\n| {field} | " in sections[section], (section, field)
    numbers = {number for fields in ITEMS.values() for items in fields.values() for number in items}
    assert numbers | {*OF_RESULTS, *OF_ARTICLES} == set(range(1, 45))


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "cases (the data name no patients)"),
        ({"subjects": {"x1": "x", "x2": "x"}}, "patients"),
        ({"subjects": {"x1": "x", "y1": "x"}}, "cases; patients are shared"),
        ({"validation": ["x2"]}, "none: parts share cases"),
        ({"split_by": "patch", "validation": ["x2"]}, "patches; patients are shared"),
    ],
)
def test_the_card_says_what_the_parts_share(bundle, tmp_path, changes, level):
    split = {"training": ["x1", "x2"], "validation": ["y1"], **changes}
    (tmp_path / "split.json").write_text(json.dumps(split), encoding="utf-8")
    assert f"| level at which partitions are disjoint | {level} |" in model_card(bundle, tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "is not valid JSON"),
        ("[]", r"contains a list\. Expected a JSON object"),
        ('{"training": 3, "validation": []}', "'training' is 3; expected a list of names of cases"),
    ],
)
def test_a_damaged_split_is_named(bundle, tmp_path, content, found):
    (tmp_path / "split.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"split\.json .*{found}.* Write it again by training"):
        model_card(bundle, tmp_path)


def test_settings_of_an_ensemble_are_those_of_its_first_network(bundle):
    for fold in range(2):
        folder = bundle / "models" / f"fold_{fold}"
        folder.mkdir(parents=True)
        (folder / "model.pt").touch()
        (folder / "model.json").write_text(json.dumps({"network": f"SegAN {fold}"}), encoding="utf-8")
        split = {"training": ["a"] * (3 + fold), "validation": ["b"]}
        (folder / "split.json").write_text(json.dumps(split), encoding="utf-8")
    card = model_card(bundle, bundle / "models")
    assert "\nSettings and partitions are those of fold_0, the first of 2 networks.\n" in card
    assert "| architecture | SegAN 0 |" in card
    assert "| cases | training 3, validation 1 |" in card


def test_without_runs_the_results_are_blank(bundle):
    card = model_card(bundle)
    assert f"## Results (items 37, 38)\n\n{BLANK}\n" in card
    assert f"| architecture | {BLANK} |" in card


def test_folders_without_the_files_are_refused(bundle, tmp_path):
    with pytest.raises(DataError, match=r"has no configs/metadata\.json; expected the folder of a bundle"):
        model_card(tmp_path)
    with pytest.raises(DataError, match=r"has no summary\.json; expected the output folder of an evaluation"):
        model_card(bundle, evaluation=tmp_path)


def test_the_command_says_how_many_fields_are_left(bundle, tmp_path):
    file = tmp_path / "out" / "card.md"
    done = CliRunner().invoke(app, ["card", str(bundle), "-o", str(file)])
    assert done.exit_code == 0, done.output
    blanks = file.read_text(encoding="utf-8").count(BLANK) - 1
    assert f"{blanks} fields are to be filled in" in " ".join(done.output.split())
    assert f"{bundle / 'models'} has no model.json: fields that follow from it are blank" in done.stderr
