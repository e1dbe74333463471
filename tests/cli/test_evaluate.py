# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from segan_monai.cli.evaluate import parse_regions, parse_values
from segan_monai.cli.main import app
from segan_monai.errors import ConfigError, DataError
from tests.forked import run_python

pytestmark = pytest.mark.slow

# turned by about 37 degrees, 1 x 1 x 3 mm
OBLIQUE = np.array([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, -3], [0, 0, 3, 1], [0, 0, 0, 1]])


@pytest.fixture
def folders(tmp_path):
    """One case whose prediction is shifted by one of four slices, with other label values than the reference."""
    for folder, start, values in (("predictions", 3, (1, 2, 3)), ("references", 2, (1, 2, 4))):
        label_map = np.zeros((9, 10, 11), np.int16)
        label_map[2:8, 2:8, start : start + 4] = values[1]
        label_map[3:7, 3:7, start : start + 4] = values[0]
        label_map[4:6, 4:6, start : start + 4] = values[2]
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(label_map, OBLIQUE), tmp_path / folder / "case_1_seg.nii.gz")
    return ["--predictions", str(tmp_path / "predictions"), "--references", str(tmp_path / "references")]


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize(
    "regions",
    [
        ["--regions", "brats2021", "--prediction-regions", "brats2023"],
        [
            "--regions",
            "whole_tumour=1,2,4;tumour_core=1,4;enhancing_tumour=4",
            "--prediction-regions",
            "enhancing_tumour=3; tumour_core=1, 3; whole_tumour=1,2,3;",
        ],
    ],
)
def test_evaluate(folders, tmp_path, regions):
    result = run(*folders, "--output-dir", tmp_path / "out", *regions)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split()[:3] == ["region", "cases", "Dice"]
    assert result.stdout.splitlines()[1].split()[:3] == ["whole_tumour", "1", "0.750"]
    table = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert table["region"].tolist() == ["whole_tumour", "tumour_core", "enhancing_tumour"]
    assert table["dice"].tolist() == [0.75] * 3  # three of four slices are common
    # the end slice of each box lies one slice, 3 mm, from the other box
    assert table["hd95_mm"].tolist() == [3] * 3
    assert table["reference_ml"].tolist() == pytest.approx([0.432, 0.192, 0.048])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["regions"]["enhancing_tumour"]["prediction_values"] == [3]


def test_every_value_is_a_region_by_default(folders, tmp_path):
    result = run(*folders, "--output-dir", tmp_path, "--workers", 1)
    assert result.exit_code == 1
    assert isinstance(result.exception, DataError)  # which `main` prints in one line
    assert "predictions/case_1_seg.nii.gz holds the label values 3; expected 0, 1, 2, 4" in str(result.exception)


def test_wrong_usage(folders, tmp_path):
    assert run("--predictions", tmp_path / "missing", *folders[2:], "--output-dir", tmp_path).exit_code == 2
    assert run(*folders).exit_code == 2
    assert run(*folders, "--output-dir", tmp_path, "--workers", 0).exit_code == 2
    mistyped = run("--prediction", *folders[1:], "--output-dir", tmp_path)
    assert "no such option: --prediction. Did you mean --predictions?" in " ".join(mistyped.output.split())


def test_the_folder_of_a_run_is_refused(folders, tmp_path):
    (tmp_path / "run").mkdir()
    record = tmp_path / "run" / "run.json"
    record.write_text(json.dumps({"config": {"evaluating": ["$@evaluator.run()"]}}), encoding="utf-8")
    (tmp_path / "run" / "metrics.csv").touch()
    result = run(*folders, "--output-dir", tmp_path / "run", "--regions", "brats2021")
    message = "has the results of an evaluation, which a comparison of label maps would overwrite in part"
    assert message in str(result.exception)
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"run.json", "metrics.csv"}


def test_help_shows_an_example():
    result = run("--help")
    assert result.exit_code == 0
    assert "Example: segan-monai evaluate --predictions" in " ".join(result.stdout.split())


def test_piped_output_is_plain_and_quiet(folders, tmp_path):
    command = ["-m", "segan_monai", "evaluate"]
    arguments = [*folders, "--output-dir", str(tmp_path / "out"), "--regions"]
    done = run_python(*command, *arguments, "brats2021", "--prediction-regions", "brats2023")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    failed = run_python(*command, *arguments, "brats1999")
    assert failed.returncode == 1
    assert failed.stderr.startswith("segan-monai: error: cannot parse 'brats1999' in the regions")
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "WT", "WT=", "WT=1,a", "=1", "WT=1;WT=2", "WT=1;;TC=2", "WT=-1"])
def test_unreadable_regions(text):
    with pytest.raises(ConfigError, match=r"cannot parse .*; expected a label convention \(brats2015, .*'WT=1,2,4;TC"):
        parse_regions(text)


def test_label_values_are_parsed():
    assert parse_values("3, 4") == parse_values("[3, 4]") == [3, 4]
    for text in ("0", "3;4", "", "-1"):
        with pytest.raises(ConfigError, match=r"--background-labels .*: expected label values above 0, such as 3,4"):
            parse_values(text)
