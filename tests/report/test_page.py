# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.errors import DataError
from segan_monai.metrics import format_table
from segan_monai.report import write_report
from segan_monai.report.folder import read_run
from segan_monai.report.plots import curve_names, curves, dice_by_size
from segan_monai.simulated_data import MARK


def change_record(folder: Path, **changes) -> None:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["config"] |= changes.pop("config", {})
    (folder / "run.json").write_text(json.dumps(record | changes), encoding="utf-8")


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_page_says_what_the_run_was_and_found(runs):
    _, evaluation = runs
    file = write_report([evaluation])
    assert file == evaluation / "report.html"
    page = file.read_text(encoding="utf-8")
    text = text_of(page)
    for expected in (
        "tumour segmentation",
        "2 training, 4 validation",
        "fold 1 of 4, by subject",
        "3 epochs in 2 min 30 s",
        "103 MiB",
        "network 2.5 M",
        "mean Dice 0.800 in epoch 2",
        "0.650 ± 0.451",  # of .9, 0, .7 and 1
        "1.50 (1 infinite)",  # the median of 1.5, infinite, 1.5 and 1.5
        "HD95 in mm, median",
        "If exactly one mask is empty",
        "Dice 0.85",
        "Published: Table 9.",
        "Failures and empty masks (1)",
        "b, lesion: missed: the prediction is empty",
    ):
        assert expected in text, expected
    assert text.index("Evaluation: evaluation") < text.index("Training: training")  # brought in by ckpt_dir


@pytest.mark.parametrize("several", [False, True])
def test_the_training_of_given_weights_is_brought_in(several, runs):
    training, evaluation = runs
    record = json.loads((evaluation / "run.json").read_text(encoding="utf-8"))
    record["config"] |= {"ckpt_dir": "elsewhere", "weights": [str(training)] if several else str(training)}
    (evaluation / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert "Training: training" in text_of(write_report([evaluation]).read_text(encoding="utf-8"))


def test_one_statistic_in_terminal_and_page(runs):
    metrics = pd.read_csv(runs[1] / "metrics.csv")
    metrics.loc[1:2, "hd95_mm"] = [float("inf"), 2.5]
    metrics.to_csv(runs[1] / "metrics.csv", index=False)
    assert re.search(r"lesion +4 .* 2\.00 +0\.50", format_table(metrics))  # HD95 of 1.5, 1.5, 2.5 and infinite, ASSD
    text = text_of(write_report([runs[1]]).read_text(encoding="utf-8"))
    assert "2.00 (1 infinite) 0.50" in text
    metrics["hd95_mm"] = float("inf")
    metrics.to_csv(runs[1] / "metrics.csv", index=False)
    assert "∞ (4 infinite) 0.50" in text_of(write_report([runs[1]]).read_text(encoding="utf-8"))
    metrics.loc[0, "hd95_mm"] = float("nan")
    metrics.to_csv(runs[1] / "metrics.csv", index=False)
    assert "(unknown in some cases) 0.50" in text_of(write_report([runs[1]]).read_text(encoding="utf-8"))


def test_simulated_data_are_announced_and_have_no_published_figures(runs):
    page = write_report([runs[1]]).read_text(encoding="utf-8")
    assert "SIMULATED" not in page
    change_record(runs[1], simulated=True)
    page = write_report([runs[1]]).read_text(encoding="utf-8")
    assert "<b>SIMULATED DATA</b>" in page
    assert "No published figures are shown, because these data are simulated." in page
    assert "Dice 0.85" not in text_of(page)


def test_an_earlier_record_asks_the_folder_of_the_data(runs, tmp_path):
    (tmp_path / "README.txt").write_text(f"...{MARK}...", encoding="utf-8")
    change_record(runs[1], config={"dataset_dir": str(tmp_path)})
    assert "SIMULATED DATA" in write_report([runs[1]]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("published", "shown", "note"),
    [
        ({"cases": "[a-d]", "regions": {"lesion": [1]}}, True, "Published: Table 9."),
        ({"cases": "[a-c]"}, False, "Not shown, because the cases are named otherwise than those of the publication"),
        ({"cases": "[a-c]?"}, False, "Not shown, because the cases are named otherwise"),
        ({"regions": {"lesion": [1, 2]}}, False, "Not shown, because the regions are not those of the publication"),
    ],
)
def test_published_figures_stand_only_beside_their_own_data_and_regions(published, shown, note, runs):
    figures = {"source": "Table 9", "values": {"lesion": {"dice": 0.85}}}
    change_record(runs[1], config={"published": figures | published})
    text = text_of(write_report([runs[1]]).read_text(encoding="utf-8"))
    assert ("Dice 0.85" in text) == shown
    assert note in text


def test_the_command_can_be_copied_alone(runs):
    page = write_report([runs[1]]).read_text(encoding="utf-8")
    command = re.search(r'<pre class="command">(.*?)</pre>', page)[1]
    assert html.unescape(command) == "python -m monai.bundle run training --key '<x>'"


def test_terms_of_losses_and_of_the_validation_are_told_apart(runs):
    history = pd.read_csv(runs[0] / "history.csv")
    assert curve_names(history, "training/") == ["training/critic"]
    assert curve_names(history, "validation/") == ["validation/mean_dice", "validation/lesion"]


def test_the_best_value_is_marked_whichever_way_is_better():
    names = {"mean_dice": (0.2, 0.9, 0.5), "loss": (0.8, 0.3, 0.6), "jsd_input": (0.4, 0.2, 0.1)}
    rows = [(epoch, f"validation/{name}", of_name[epoch - 1]) for name, of_name in names.items() for epoch in (1, 2, 3)]
    history = pd.DataFrame(rows, columns=["epoch", "name", "value"])
    assert re.findall(r"<!-- (\d\.\d{3}) -->", curves(history, "validation/")) == ["0.900", "0.300", "0.100"]
    unknown = history.assign(value=float("nan"))
    assert "<svg" in curves(unknown, "validation/")


def test_nothing_comes_from_elsewhere_and_names_are_no_markup(runs):
    page = write_report(runs).read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "&lt;x&gt;" in page
    assert "<x>" not in page
    assert "<FLAIR>" not in page


def test_infinite_distances_are_marked_not_dropped(runs):
    page = write_report([runs[1]]).read_text(encoding="utf-8")
    assert "∞" in page
    assert 'data-value="inf"' in page
    assert "<title>d: 1</title>" in page  # a point of the plot


def test_dice_is_plotted_against_the_size_of_the_lesion(runs):
    _, evaluation = runs
    page = write_report([evaluation]).read_text(encoding="utf-8")
    assert "<title>b: 2 ml, Dice 0.000</title>" in page
    metrics = pd.read_csv(evaluation / "metrics.csv")
    # Dice .9, 0, .7 and 1 of sizes 1 to 4: ranks 3, 1, 2, 4; rho = 1 - 6 (4 + 1 + 1 + 0) / 60
    assert "Spearman 0.40" in page
    metrics["reference_ml"] = float("nan")
    assert "<title>b: 2000 voxels, Dice 0.000</title>" in dice_by_size(metrics)
    assert dice_by_size(metrics.drop(columns="reference_voxels")) == ""
    assert dice_by_size(metrics.head(2)) == ""


def test_a_training_alone(runs):
    page = write_report([runs[0]]).read_text(encoding="utf-8")
    assert "Loss terms" in page
    assert "Table of cases" not in page


@pytest.mark.parametrize(
    ("bundle", "root", "title"),
    [
        ("liver_segmentation", "$segan_monai.bundle_root('other')", "liver segmentation"),
        (None, "bundles/tumour_segmentation", "tumour segmentation"),
        (None, "$segan_monai.bundle_root('other')", "training"),
    ],
)
def test_the_title_is_the_bundle_of_the_record_or_the_folder(bundle, root, title, runs):
    record = json.loads((runs[0] / "run.json").read_text(encoding="utf-8"))
    record |= {"bundle": bundle, "config": {"bundle_root": root}}
    (runs[0] / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert f"<title>{title}</title>" in write_report([runs[0]]).read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(DataError, match=r"contains neither history.csv .* nor metrics.csv .* expected the output_dir"):
        write_report([tmp_path])


def test_a_damaged_file_is_named(runs):
    (runs[1] / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"evaluation: a file of the run cannot be read: .* Run the training or"):
        write_report([runs[1]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", b"[]", r"run\.json \(.*contains a list"),
        ("run.json", b'{"config": 3}', r"run\.json \('config' is 3\)"),
        ("run.json", b"\xff\x00\x81", r"run\.json \(.*is not valid JSON"),
        ("summary.json", b'{"regions": []}', r"summary\.json \('regions' is \[\]\)"),
        ("split.json", b"3", r"split\.json \(.*contains a int"),
        ("split.json", b"", r"split\.json \(.*is not valid JSON"),
        ("split.json", b"[]", r"split\.json \(.*contains a list\. Expected a JSON object"),
        ("split.json", b'{"training": ["x", "y"], "vali', r"split\.json \(.*is not valid JSON"),
        ("split.json", b'{"unlabeled": ["x"]}', r"split\.json \(.*it has no 'training'; expected a list of names"),
        ("split.json", b'{"training": 3}', r"split\.json \(.*'training' is 3; expected a list of names"),
        ("split.json", b'{"training": [], "validation": [], "unlabeled": 3}', r"split\.json \(.*'unlabeled' is 3;"),
        ("history.csv", b"\xff\xfe\x00", r"history\.csv \("),
        ("history.csv", b"", r"history\.csv \("),
        ("history.csv", b"a,b\n1,2\n", r"history\.csv \(it has no column epoch, seconds, name, value\)"),
        ("history.csv", b"epoch,seconds,name,value\n1,2,critic,three\n", r"history\.csv \(could not convert"),
        ("metrics.csv", b"case,region\na,b\n", r"metrics\.csv \(it has no column dice, iou"),
        ("previews.npz", b"PK\x03\x04", r"previews\.npz \("),
    ],
)
def test_what_is_damaged_and_what_to_do(name, content, message, runs):
    folder = runs[0] if (runs[0] / name).is_file() else runs[1]
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"a file of the run cannot be read: {message}.* or delete that file"):
        write_report([folder])


def test_the_report_counts_the_cases_of_the_split(runs):
    assert "2 training, 4 validation" in text_of(write_report([runs[0]]).read_text(encoding="utf-8"))
    split = json.loads((runs[0] / "split.json").read_text(encoding="utf-8"))
    split = {"labeled_cases": ["x", "y"], **split, "unlabeled": ["u", "v", "w"]}
    (runs[0] / "split.json").write_text(json.dumps(split), encoding="utf-8")
    text = text_of(write_report([runs[0]]).read_text(encoding="utf-8"))
    assert "2 labelled, 3 unlabelled for training, 4 validation" in text
    assert "labeled_cases" not in text
    hidden = {"annotated_slices": 1, "missing_regions": {"left": 0.5}}
    (runs[0] / "split.json").write_text(json.dumps({**split, **hidden}), encoding="utf-8")
    text = text_of(write_report([runs[0]]).read_text(encoding="utf-8"))
    assert "for training (1 annotated slice per case, left missing in 50%), 4 validation" in text
    counts = {"a": {"training": 1, "validation": 3, "unlabeled": 2}, "b": {"training": 1, "validation": 1}}
    (runs[0] / "split.json").write_text(json.dumps({**split, "counts": counts}), encoding="utf-8")
    record = json.loads((runs[0] / "run.json").read_text(encoding="utf-8"))
    record["config"]["train_domains"] = ["a"]
    (runs[0] / "run.json").write_text(json.dumps(record), encoding="utf-8")
    text = text_of(write_report([runs[0]]).read_text(encoding="utf-8"))
    assert "1 labelled, 2 unlabelled for training, 3 validation" in text


def test_a_last_row_that_was_cut_off_and_a_byte_order_mark(runs):
    before = text_of(write_report([runs[0]]).read_text(encoding="utf-8"))
    history, split = runs[0] / "history.csv", runs[0] / "split.json"
    history.write_bytes(history.read_bytes() + b"4,50.0")
    split.write_text(split.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert text_of(write_report([runs[0]]).read_text(encoding="utf-8")) == before


def test_a_case_may_be_called_na(runs):
    metrics = runs[1] / "metrics.csv"
    metrics.write_text(metrics.read_text(encoding="utf-8").replace("\na,", "\nNA,"), encoding="utf-8")
    assert read_run(runs[1]).metrics["case"].tolist() == ["NA", "b", "c", "d"]


def test_the_command(runs, tmp_path):
    result = CliRunner().invoke(app, ["report", str(runs[1]), "--file", str(tmp_path / "page" / "a.html")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page" / "a.html").is_file()


def test_the_page_says_where_the_error_of_parts_lies(runs):
    summary = json.loads((runs[1] / "summary.json").read_text(encoding="utf-8"))
    assert "All regions together" not in text_of(write_report([runs[1]]).read_text(encoding="utf-8"))
    union = {"regions": ["head", "tail"], "dice": {"mean": 0.9}, "at_outline": 0.75, "between_regions": 0.25}
    (runs[1] / "summary.json").write_text(json.dumps({**summary, "union": union}), encoding="utf-8")
    text = text_of(write_report([runs[1]]).read_text(encoding="utf-8"))
    assert "All regions together (head, tail): Dice 0.900. Of the wrong voxels, 75% are background in one" in text


def test_the_page_of_an_inference_shows_the_worst_cases_first(tmp_path):
    lines = ["case,region,expected_dice,lower_bound,flag", "a,lesion,0.9,0.8,", "b,lesion,0.7,0.4,"]
    lines += ["c,lesion,0.95,0.9,parts disagree"]
    (tmp_path / "quality.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "run.json").write_text(json.dumps({"config": {"folds": 5}}), encoding="utf-8")
    for case in "bc":
        (tmp_path / f"{case}_overlay.png").write_bytes(b"\x89PNG" + case.encode())
    page = write_report([tmp_path]).read_text(encoding="utf-8")
    text = text_of(page)
    assert "Inference: " in text
    assert "1 of 3 cases are flagged. About 90 % of cases like those of the fit exceed the bound." in text
    assert "c, lower bound 0.900: lesion: parts disagree b, lower bound 0.400 " in text
    assert page.count("data:image/png") == 2, "a has no picture"
    assert text.index("c lesion 0.950 0.900 parts disagree") < text.index("b lesion 0.700") < text.index("a lesion")


def test_scanners_are_those_of_an_inference_and_not_of_another_run_in_its_folder(runs, tmp_path):
    nearest = {"domain": "A", "distance": 3.0, "limit": 1.0, "far": True}
    content = json.dumps({"cases": {"new": {"nearest_domain": nearest}, "failed": {"error": "damaged"}}})
    (runs[1] / "inference.json").write_text(content, encoding="utf-8")
    assert "unlike every training domain" not in text_of(write_report([runs[1]]).read_text(encoding="utf-8"))
    (runs[1] / "inference.json").write_text("{", encoding="utf-8")
    assert write_report([runs[1]]).is_file()
    for name, text in (
        ("quality.csv", "case,region,expected_dice,lower_bound,flag\nnew,lesion,0.9,0.8,\n"),
        ("run.json", "{}"),
        ("inference.json", content),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    text = text_of(write_report([tmp_path]).read_text(encoding="utf-8"))
    assert "scanners 1 of 1 cases are unlike every training domain: new (nearest: A); inspect them" in text
