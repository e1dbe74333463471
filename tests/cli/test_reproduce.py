# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from typer.testing import CliRunner

from segan_monai.cli.main import app
from segan_monai.cli.reproduce import parse_numbers
from segan_monai.errors import ConfigError

pytestmark = pytest.mark.slow

SMALL = ["base_channels=4", "slice_size=[32,32]", "epochs=1", "batch_size=4", "slices_per_volume=2", "folds=2"]


def test_the_command_prints_markdown_and_csv_and_goes_on_after_a_failure(phantoms, tmp_path):
    command = ["reproduce", "segan-vs-unet", "--dataset-dir", str(phantoms), "--output-dir", str(tmp_path / "out")]
    command += ["--seeds", "0", "--config", "configs/cpu.json"]
    rows = ["--row", "U-Net + Dice", "--row", "SegAN"]
    for setting in SMALL:
        command += ["--set", setting]
    # the second row's training finds a last.pt that is no checkpoint, and cannot resume from it
    broken = tmp_path / "out" / "s3_3c" / "seed_0" / "training"
    broken.mkdir(parents=True)
    (broken / "last.pt").write_text("not a checkpoint", encoding="utf-8")
    result = CliRunner().invoke(app, [*command, *rows])
    assert result.exit_code == 1
    assert "| U-Net + Dice |" in result.output
    assert "**SegAN failed**" in result.output
    assert "row,seed,region,cases,failures,dice" in result.output
    assert (tmp_path / "out" / "segan_vs_unet.md").read_text(encoding="utf-8").startswith("|  | Dice whole_tumour |")
    assert len((tmp_path / "out" / "segan_vs_unet.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3


@pytest.mark.parametrize("text", ["", "0,0", "1;2", "-1", "one"])
def test_seeds_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match="cannot read the seeds"):
        parse_numbers(text, "seeds")


def test_seeds():
    assert parse_numbers("0, 1,2", "seeds") == [0, 1, 2]
