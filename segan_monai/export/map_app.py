# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Application of MONAI Deploy: a study in DICOM to DICOM-SEG, with a bundle of segan-monai.

``segan-monai export map`` copies this file as ``app/__main__.py``. It needs monai-deploy-app-sdk, and
segan-monai with its extra ``dicom``::

    python app -i STUDY -o RESULTS -m models

The SDK finds the series by the rules in ``selections.json``. ``segan-monai dicom`` reads and segments them, because it
refuses what it would place wrongly, such as gaps and unequal distances, and writes overlapping regions.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Operator, OperatorSpec
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator

SELECTIONS = Path(__file__).with_name("selections.json")
OPTIONS: tuple[str, ...] = ()
"""Further options of ``segan-monai dicom``, such as ``--rtstruct`` or ``--anonymous``."""


class SegmentStudy(Operator):
    """Segment the selected series of a study and write the DICOM results.

    Named input:
        study_selected_series_list: one study, with one series for each modality of the bundle.

    Args:
        fragment: the application.
        study: folder of the study.
        bundle: folder of the bundle.
        output: folder of the results.
    """

    def __init__(self, fragment: Any, *args: Any, study: Path, bundle: Path, output: Path, **kwargs: Any) -> None:
        self.study, self.bundle, self.output = study, bundle, output
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the input."""
        spec.input("study_selected_series_list")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Run ``segan-monai dicom``, and copy its DICOM results to the output folder.

        Raises:
            ValueError: Not one study, or not one series for each selection.
            subprocess.CalledProcessError: The series cannot be segmented; the command has printed why.
        """
        series = chosen_series(op_input.receive("study_selected_series_list"))
        words = [word for name, uid in series.items() for word in ("--series", f"{name}={uid}")]
        with tempfile.TemporaryDirectory(prefix="segan_monai_") as scratch:
            command = [sys.executable, "-m", "segan_monai", "dicom", self.bundle, self.study, "-o", scratch]
            subprocess.run([*map(str, command), *words, *OPTIONS], check=True)
            self.output.mkdir(parents=True, exist_ok=True)
            for file in Path(scratch).glob("*.dcm"):
                shutil.copy(file, self.output)


def chosen_series(studies: list[Any]) -> dict[str, str]:
    """Return the UID of the series for each selection, or raise an error that names what is missing or ambiguous."""
    names = [selection["name"] for selection in json.loads(SELECTIONS.read_text(encoding="utf-8"))["selections"]]
    if len(studies) != 1:
        raise ValueError(
            f"{len(studies)} studies have series that match {SELECTIONS}. Expected one: give another input folder, or "
            "change the conditions."
        )
    found: dict[str, list[str]] = {name: [] for name in names}
    for selected in studies[0].selected_series:
        found[selected.selection_name].append(str(selected.series.SeriesInstanceUID))
    for name, uids in found.items():
        if len(uids) != 1:
            raise ValueError(
                f"{len(uids)} series match the selection {name} in {SELECTIONS} ({', '.join(uids) or 'none'}). "
                "Expected one: change its conditions, for example SeriesDescription."
            )
    return {name: uids[0] for name, uids in found.items()}


def only_bundle(models: Path) -> Path:
    """Return the folder of the bundle in the folder of the models, or raise an error that names those found."""
    found = sorted(file.parents[1] for file in models.rglob("configs/inference.json"))
    if len(found) != 1:
        raise ValueError(
            f"{models} has {len(found)} bundles ({', '.join(map(str, found)) or 'none'}). Expected one, with "
            "configs/inference.json: give the folder models of the application by -m."
        )
    return found[0]


class SegmentationApp(Application):
    """DICOM loader, series selector and segmentation."""

    def compose(self) -> None:
        """Connect the operators."""
        context = Application.init_app_context(self.argv)
        logging.getLogger().setLevel(logging.WARNING)  # the selector logs descriptions, which may name the patient
        study, output = Path(context.input_path), Path(context.output_path)
        bundle = only_bundle(Path(context.model_path))
        loader = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=study, name="loader")
        rules = SELECTIONS.read_text(encoding="utf-8")
        selector = DICOMSeriesSelectorOperator(self, rules=rules, all_matched=True, name="selector")
        segment = SegmentStudy(self, study=study, bundle=bundle, output=output, name="segment")
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, segment, {("study_selected_series_list", "study_selected_series_list")})


if __name__ == "__main__":
    SegmentationApp().run()
