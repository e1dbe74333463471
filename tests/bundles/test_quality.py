# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The estimate of quality, from an evaluation to the table and the report of an inference."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from segan_monai.errors import causes
from segan_monai.networks import SegANSegmentor
from segan_monai.quality import FitCase, fit_quality, write_quality
from segan_monai.quality.calibration import calibration_of, read_counts
from tests.bundles.workflow import BRAIN, HIPPOCAMPUS, SMALL_BRAIN, make_workflow, run_workflow

pytestmark = pytest.mark.usefixtures("process_as_before")


@pytest.fixture
def evaluated(hippocampi, tmp_path):
    """Settings of a run of an untrained network, and the folder of its evaluation."""
    (tmp_path / "models").mkdir()
    torch.manual_seed(0)
    network = SegANSegmentor(in_channels=7, out_channels=2, base_channels=4, num_levels=4, full_resolution_channels=8)
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    split = {"training": ["hippocampus_001"], "validation": []}
    (tmp_path / "models" / "split.json").write_text(json.dumps(split), encoding="utf-8")
    settings = {"dataset_dir": str(hippocampi), "ckpt_dir": str(tmp_path / "models")}
    run_workflow(HIPPOCAMPUS, "evaluating", output_dir=str(tmp_path / "evaluation"), subset="all", **settings)
    return settings, tmp_path / "evaluation"


def fit_to(content):
    """Model of the content of ``signals.json``, from its first case with noise."""
    (signals, *_), rng = content["cases"].values(), np.random.default_rng(0)
    cases = [
        FitCase(
            number % 5,
            {name: value + rng.normal(0, 0.01) for name, value in signals["image"].items()},
            signals["regions"],
            {"anterior": 0.6 + 0.01 * (number % 5), "posterior": 0.5},
        )
        for number in range(30)
    ]
    return fit_quality(cases)


def read_table(file):
    with file.open(encoding="utf-8") as stream:
        return {(row["case"], row["region"]): row for row in csv.DictReader(stream)}


def test_from_evaluation_to_inference(evaluated, tmp_path):
    settings, evaluation = evaluated
    content = json.loads((evaluation / "signals.json").read_text(encoding="utf-8"))
    assert content["settings"]["slice_axis"] == [2, 1, 0]
    assert content["trained_on"] == ["hippocampus_001"]
    calibration = json.loads((evaluation / "calibration.json").read_text(encoding="utf-8"))
    assert calibration["posterior"]["error_at_temperature"] <= calibration["posterior"]["expected_calibration_error"]
    assert calibration_of(read_counts(evaluation / "calibration.csv")) == calibration
    assert "Calibration of the probabilities" in (evaluation / "report.html").read_text(encoding="utf-8")
    (first, *_), signals = content["cases"], content["cases"]
    assert 0 <= signals[first]["regions"]["anterior"]["agreement_axes"] <= 1
    write_quality(tmp_path / "models" / "model.pt", fit_to(content), content["settings"], {})
    output = tmp_path / "inference"
    workflow = run_workflow(HIPPOCAMPUS, "inference", output_dir=str(output), **settings)
    rows = read_table(output / "quality.csv")
    assert set(rows) == {(case, region) for case in signals for region in ("anterior", "posterior")}
    assert float(rows[first, "anterior"]["expected_dice"]) == pytest.approx(0.62, abs=0.01)
    assert float(rows[first, "anterior"]["lower_bound"]) < 0.62
    (found,) = workflow.parser.get_parsed_content("evaluator").state.output
    assert found["result"]["quality"]["posterior"]["expected_dice"] == 0.5, "for MONAI Label"
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Quality, estimated without references" in page
    assert "lower bound" in page
    assert page.count("<figure>") == page.count("data:image/png") == 4
    run_workflow(HIPPOCAMPUS, "inference", output_dir=str(output), **settings)  # resumes: all cases are finished
    assert len((output / "quality.csv").read_text(encoding="utf-8").splitlines()) == len(rows) + 1
    run_workflow(HIPPOCAMPUS, "inference", output_dir=str(output), estimate_quality=False, **settings)
    assert not (output / "quality.csv").exists()
    assert not (output / "report.html").exists()
    other = {**settings, "output_dir": str(tmp_path / "other"), "mirror_axes": [0]}
    run_workflow(HIPPOCAMPUS, "inference", **other)  # the log says why there is no estimate
    assert not (tmp_path / "other" / "quality.csv").exists()
    with pytest.raises(Exception) as error:
        run_workflow(HIPPOCAMPUS, "inference", estimate_quality=True, **other)
    text = " ".join(str(link) for link in causes(error.value))
    assert "was made with mirror_axes []; expected [0] as in this run. Set --estimate_quality false" in text


def test_an_ensemble_is_estimated_by_the_signals_of_its_mean(evaluated, tmp_path):
    settings, evaluation = evaluated
    content = json.loads((evaluation / "signals.json").read_text(encoding="utf-8"))
    model = fit_to(content)
    members = [tmp_path / "models" / f"fold_{number}" / "model.pt" for number in range(2)]
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    for number, file in enumerate(members):
        file.parent.mkdir()
        torch.save({name: value * (1 + number) for name, value in state.items()}, file)
        shutil.copy(tmp_path / "models" / "split.json", file.parent)
        write_quality(file, model, content["settings"], {})
    (tmp_path / "models" / "model.pt").unlink()  # an included ensemble
    run_workflow(HIPPOCAMPUS, "evaluating", output_dir=str(tmp_path / "of_mean"), **settings)
    of_mean = json.loads((tmp_path / "of_mean" / "signals.json").read_text(encoding="utf-8"))
    assert of_mean["settings"]["members"] == 2
    assert set(content["cases"]) - set(of_mean["cases"]) == {"hippocampus_001"}, "members were trained on it"
    assert of_mean["cases"]["hippocampus_000"] != content["cases"]["hippocampus_000"]
    run_workflow(HIPPOCAMPUS, "inference", output_dir=str(tmp_path / "inference"), **settings)
    rows = read_table(tmp_path / "inference" / "quality.csv")
    expected = {case: model.estimate(found["image"], found["regions"]) for case, found in of_mean["cases"].items()}
    assert len(rows) == 2 * len(content["cases"])
    for case, regions in expected.items():
        for region, found in regions.items():
            assert float(rows[case, region]["expected_dice"]) == pytest.approx(found["expected_dice"], abs=2e-4)
            assert rows[case, region]["flag"] == found["flag"]
    members[1].with_name("quality.json").unlink()
    run_workflow(HIPPOCAMPUS, "inference", output_dir=str(tmp_path / "inference"), **settings)
    assert not (tmp_path / "inference" / "quality.csv").exists()


def test_without_a_model_nothing_is_estimated(evaluated, tmp_path):
    workflow = run_workflow(HIPPOCAMPUS, "inference", output_dir=str(tmp_path / "inference"), **evaluated[0])
    assert workflow.parser.get_parsed_content("evaluator").inferer.agreement is None
    assert not (tmp_path / "inference" / "quality.csv").exists()
    assert not (tmp_path / "inference" / "report.html").exists()


def test_a_softmax_is_estimated_alike(brains, tmp_path):
    settings = {"dataset_dir": str(brains), "ckpt_dir": str(tmp_path / "models"), **SMALL_BRAIN}
    torch.manual_seed(0)
    network = make_workflow(BRAIN, "inference", **settings).parser.get_parsed_content("network_def")
    (tmp_path / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    evaluation = tmp_path / "evaluation"
    run_workflow(BRAIN, "evaluating", output_dir=str(evaluation), subset="all", **settings)
    content = json.loads((evaluation / "signals.json").read_text(encoding="utf-8"))
    with (evaluation / "metrics.csv").open(encoding="utf-8") as stream:
        volumes = {(row["case"], row["region"]): float(row["prediction_ml"]) for row in csv.DictReader(stream)}
    signals = content["cases"]["iSEG_subject-1"]["regions"]
    for region in ("CSF", "GM", "WM"):  # the mask of the signals is the label map, which has the network's spacing
        assert np.exp(signals[region]["log_ml"]) - 0.1 == pytest.approx(volumes["iSEG_subject-1", region], rel=1e-3)
        assert set(signals[region]) == {"soft_dice", "outline_certainty", "largest_part", "log_ml"}
    assert set(json.loads((evaluation / "calibration.json").read_text(encoding="utf-8"))) == {"CSF", "GM", "WM"}
    cases = [
        FitCase(number % 10, of_case["image"], of_case["regions"], {"CSF": 0.5, "GM": 0.6, "WM": 0.7})
        for number, of_case in enumerate([*content["cases"].values()] * 10)
    ]
    write_quality(tmp_path / "models" / "model.pt", fit_quality(cases), content["settings"], {})
    run_workflow(BRAIN, "inference", output_dir=str(tmp_path / "inference"), **settings)
    rows = read_table(tmp_path / "inference" / "quality.csv")
    assert set(rows) == {(case, region) for case in content["cases"] for region in ("CSF", "GM", "WM")}
    assert float(rows["iSEG_subject-1", "GM"]["expected_dice"]) == pytest.approx(0.6)
    assert (tmp_path / "inference" / "report.html").is_file()
