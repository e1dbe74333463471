# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a bundle, one after another: its files, its workflows on generated data, its exports."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out
from PIL import Image

from segan_monai.data import resolve_regions
from segan_monai.errors import ConfigError, UserError
from segan_monai.export import ExportedBundle, inference_recipe
from segan_monai.export.formats import run_exported
from segan_monai.networks import load_weights
from segan_monai.simulation.sample_data import write_sample_data
from segan_monai.typed import config_values
from segan_monai.verify.metadata_schema import METADATA_SCHEMA

# what makes a run take seconds; keys that a bundle's config does not have are left out
SMALL: dict[str, Any] = {
    "device": "cpu",
    "amp": False,
    "num_workers": 0,
    "seed": 2,
    "base_channels": 4,
    "localizer_depth": 18,
    "segmentor_depth": 18,
    "max_rois": 2,
    "slice_size": [32, 32],
    "image_size": [32, 32],
    "cached_size": [60, 45],
    "patch_size": [16, 16, 16],
    "patch_stride": [8, 8, 8],
    "spacing_mm": [1.0, 1.0, 1.0],
    "batch_size": 2,
    "slices_per_volume": 2,
    "patches_per_volume": 2,
    "discriminator_channels": [4, 8],
    "warm_up_epochs": 1,
    "folds": 2,
    "val_interval": 1,
    # weights stay near random ones, and RoIs are found anywhere: label maps that are not empty say more of an export
    "learning_rate": 1e-5,
    "heatmap_threshold": 0.05,
}
EPOCHS = 2
HEADINGS = (
    "Model Overview",
    "Data",
    "Training configuration",
    "Input",
    "Output",
    "Performance",
    "MONAI Bundle Commands",
    "References",
    "License",
)
ENDINGS = {"torchscript": ".ts", "onnx": ".onnx", "torch-export": ".pt2"}
TOLERANCE = 1e-4  # of logits
FILES = {"training": "train.json", "evaluating": "evaluate.json", "inference": "inference.json"}


@dataclass(frozen=True)
class Check:
    """Result of one check: ``ok``, ``FAILED`` or ``skipped``, and what was seen."""

    name: str
    result: str
    detail: str
    seconds: float


class CheckFailedError(Exception):
    """What was checked is not so."""


class SkippedError(Exception):
    """There is nothing to check."""


def expect(condition: bool, message: str) -> None:
    """Fail the check with the message unless the condition holds."""
    if not condition:
        raise CheckFailedError(message)


@dataclass
class Trial:
    """A bundle that is being checked.

    Args:
        bundle: its folder.
        work_dir: gets generated data and all that runs write.
        overrides: keys and values, instead of those of `SMALL`.
        dataset_dir: labelled data instead of generated ones.
    """

    bundle: Path
    work_dir: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    dataset_dir: Path | None = None

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Content of metadata.json."""
        return json.loads((self.bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))

    @property
    def channel_def(self) -> dict[int, str]:
        """Names of the label map's values."""
        channels = self.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        return {int(value): name for value, name in channels.items()}

    def config(self, run_id: str) -> dict[str, Any]:
        """Content of the config of a run."""
        file = self.bundle / "configs" / FILES[run_id]
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def settings(self, run_id: str) -> dict[str, Any]:
        """The overrides that the config knows."""
        folders = {
            "bundle_root": str(self.bundle),
            "dataset_dir": str(self.data),
            "output_dir": str(self.work_dir / run_id),
            "ckpt_dir": str(self.work_dir / "models"),
        }
        known = self.config(run_id)
        settings = config_values({**SMALL, **folders, **self.overrides})
        return {key: value for key, value in settings.items() if key.split("#")[0] in known}

    @cached_property
    def convention(self) -> str | None:
        """Name of a label convention, if the configs speak of one and not of regions."""
        regions = self.overrides.get("regions", self.config("inference").get("regions"))
        return regions if isinstance(regions, str) else None

    @cached_property
    def regions(self) -> dict[str, list[int]]:
        """Label values of each region in the data; without `regions` in the configs, those of the metadata."""
        regions = self.overrides.get("regions", self.config("inference").get("regions"))
        if regions is None:
            return {name: [value] for value, name in self.channel_def.items() if value}
        return resolve_regions(regions)

    @cached_property
    def data(self) -> Path:
        """Folder of the data."""
        if self.dataset_dir:
            return self.dataset_dir
        config = self.config("training")
        image = self.metadata["network_data_format"]["inputs"]["image"]
        modalities = self.overrides.get("modalities", config.get("modalities"))
        names = modalities or [image["channel_def"][key] for key in sorted(image["channel_def"], key=int)]
        domains = [config[key] for key in ("first_domain", "second_domain") if key in config]
        labels = sorted({value for values in self.regions.values() for value in values})
        photographs = self.metadata.get("data_type", "").startswith("jpeg")
        folder = self.work_dir / "data"
        return write_sample_data(folder, names, labels, domains, self.convention, photographs)

    def run(self, run_id: str, **overrides: Any) -> ConfigWorkflow:
        """Run a workflow as `python -m monai.bundle run` does, and check that no property is missing."""
        config = self.config(run_id)
        if not config:
            raise CheckFailedError(f"there is no configs/{FILES[run_id]}")
        settings = {**self.settings(run_id), **overrides}
        workflow = ConfigWorkflow(
            config_file=str(self.bundle / "configs" / FILES[run_id]),
            meta_file=str(self.bundle / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type="train" if run_id == "training" else "infer",
            run_id=run_id if run_id in config else "run",
            **settings,
        )
        workflow.initialize()
        missing = workflow.check_properties()
        expect(not missing, f"properties that MONAI asks for are missing in {FILES[run_id]}: {missing}")
        workflow.run()
        workflow.finalize()
        return workflow

    @cached_property
    def exported(self) -> ExportedBundle:
        """The bundle with the weights that the trial trained."""
        return ExportedBundle(self.bundle, self.work_dir / "models" / "model.pt", overrides=self.settings("inference"))


def check_files(trial: Trial) -> str:
    """What the zoo wants to lie in a bundle."""
    wanted = ["LICENSE", "docs/README.md", "docs/data_license.txt", "configs/metadata.json"]
    wanted += [f"configs/{file}" for file in FILES.values()]
    missing = [file for file in wanted if not (trial.bundle / file).is_file()]
    expect(not missing, f"missing: {', '.join(missing)}")
    return f"{len(wanted)} files"


def check_metadata(trial: Trial) -> str:
    """The schema, and the version in the changelog."""
    errors = list(jsonschema.Draft202012Validator(METADATA_SCHEMA).iter_errors(trial.metadata))
    found = [f"{'/'.join(map(str, error.path)) or 'metadata.json'}: {error.message}" for error in errors]
    expect(not found, "; ".join(found))
    version = trial.metadata["version"]
    expect(version in trial.metadata["changelog"], f"version {version} is not in the changelog")
    return f"valid, version {version}"


def check_document(trial: Trial) -> str:
    """README in the zoo's order, and a licence of the data."""
    text = (trial.bundle / "docs" / "README.md").read_text(encoding="utf-8")
    found = [heading.strip().lower() for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    missing = [heading for heading in HEADINGS if heading.lower() not in found]
    expect(not missing, f"docs/README.md has no section {', '.join(missing)}")
    positions = [found.index(heading.lower()) for heading in HEADINGS]
    expect(positions == sorted(positions), f"docs/README.md: expected the order {', '.join(HEADINGS)}")
    licence = trial.bundle / "docs" / "data_license.txt"
    expect(bool(licence.read_text(encoding="utf-8").strip()), f"{licence} is empty")
    return "sections in the zoo's order"


def check_labels(trial: Trial) -> str:
    """Background and regions, by voxel value."""
    values = sorted(trial.channel_def)
    expect(values[0] == 0, f"channel_def of the output has no 0 (background), only {values}")
    expect(len(values) == 1 + len(trial.regions), f"{len(values) - 1} values for {len(trial.regions)} regions")
    return ", ".join(f"{value} {trial.channel_def[value]}" for value in values)


def check_weights(trial: Trial) -> str:
    """The weights that the bundle ships fit its network as configured."""
    file = trial.bundle / "models" / "model.pt"
    if not file.is_file():
        raise SkippedError("no models/model.pt; the zoo asks for it (or large_files.yml): train first")
    parser = ConfigParser()
    parser.read_config(str(trial.bundle / "configs" / "inference.json"))
    parser["device"] = "cpu"
    load_weights(parser.get_parsed_content("network_def"), file)
    return f"{file.stat().st_size / 2**20:.1f} MiB"


def check_network(trial: Trial) -> str:
    """One tensor in, one out, of the shapes and types of the metadata."""
    configs = trial.bundle / "configs"
    files = str(configs / "metadata.json"), str(configs / "inference.json")
    verify_net_in_out("network_def", *files, n=2, **{**trial.settings("inference"), "device": "cpu"})
    return "as metadata.json says"


def check_training(trial: Trial) -> str:
    """Two epochs, weights and a checkpoint."""
    known = trial.config("training")
    epochs = {"epochs": EPOCHS} if "epochs" in known else {"train#trainer#max_epochs": EPOCHS}
    trainer = trial.run("training", **epochs).parser.get_parsed_content("train#trainer")
    expect(trainer.state.iteration >= 2, f"only {trainer.state.iteration} iteration in {EPOCHS} epochs")
    expect((trial.work_dir / "models" / "model.pt").is_file(), "no model.pt in ckpt_dir after training")
    return f"{trainer.state.iteration} iterations"


def check_resuming(trial: Trial) -> str:
    """A training that goes on from its last epoch."""
    if "resume" not in trial.config("training"):
        raise SkippedError("train.json has no key resume")
    trainer = trial.run("training", epochs=EPOCHS + 1, resume=True).parser.get_parsed_content("train#trainer")
    per_epoch = trainer.state.epoch_length
    expect(trainer.state.epoch == EPOCHS + 1, f"ended in epoch {trainer.state.epoch}, expected {EPOCHS + 1}")
    expect(
        trainer.state.iteration == (EPOCHS + 1) * per_epoch,
        f"iteration {trainer.state.iteration}, expected {(EPOCHS + 1) * per_epoch}: it began anew",
    )
    return f"from epoch {EPOCHS} to {EPOCHS + 1}"


def check_evaluation(trial: Trial) -> str:
    """Metrics of the cases kept out."""
    trial.run("evaluating")
    file = trial.work_dir / "evaluating" / "metrics.csv"
    if "output_dir" not in trial.config("evaluating"):
        return "ran"
    expect(file.is_file(), f"no {file.name} in output_dir")
    return f"{len(file.read_text(encoding='utf-8').splitlines()) - 1} rows in metrics.csv"


def check_inference(trial: Trial) -> str:
    """A label map a case, on the image's own grid, with values that the metadata names."""
    trial.run("inference")
    found = predictions(trial)
    expect(bool(found), "no <case>_seg file in output_dir")
    values: set[int] = set()
    for image_file, label_file in found.items():
        label, affine = read_voxels(label_file)
        image, wanted = read_voxels(image_file)
        expect(label.dtype == np.uint8, f"{label_file.name} has {label.dtype}, expected uint8")
        expect(
            label.shape == image.shape[: label.ndim],
            f"{label_file.name} has shape {label.shape}, the image {image.shape}",
        )
        expect(np.allclose(affine, wanted, atol=1e-4), f"{label_file.name} has another affine than its image")
        values |= set(np.unique(label).tolist())
    expect(
        values <= trial.channel_def.keys(), f"values {sorted(values)}; channel_def names {sorted(trial.channel_def)}"
    )
    return f"{len(found)} label maps on their images' grids, values {sorted(values)}"


def predictions(trial: Trial) -> dict[Path, Path]:
    """Image file to the label map that inference wrote."""
    images = sorted((trial.data / "imagesTr").glob("*")) if (trial.data / "imagesTr").is_dir() else []
    written = {file.name.split("_seg.")[0]: file for file in (trial.work_dir / "inference").glob("*_seg.*")}
    return {file: written[file.name.split(".")[0]] for file in images if file.name.split(".")[0] in written}


def read_voxels(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine; of a picture its pixels and the identity."""
    if file.name.endswith((".png", ".jpg")):
        return np.asarray(Image.open(file)), np.eye(4)
    image = nibabel.load(file)
    return np.asanyarray(image.dataobj), image.affine


def check_export(trial: Trial, kind: str) -> str:
    """The file gives what the network gives, for two batch and image sizes."""
    bundle = trial.exported
    file = bundle.export(kind, trial.work_dir / "exports" / f"model{ENDINGS[kind]}")
    images = [bundle.example(), bundle.example(other=True, any_size=kind != "torch-export")]
    differences = []
    for image in images:
        with torch.no_grad():
            expected = bundle.network(image)
        found = run_exported(kind, file, image)
        expect(found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
        differences.append(float((found - expected).abs().max()))
    worst = max(differences)
    expect(worst <= TOLERANCE, f"logits differ by {worst:.2g}, tolerance {TOLERANCE:g}")
    sizes = " and ".join("x".join(map(str, image.shape)) for image in images)
    fixed = "; image size fixed" if bundle.fixed_size else ""
    return f"{sizes}: logits differ by {worst:.1g}{fixed}"


def check_runner(trial: Trial) -> str:
    """ONNX runtime, NumPy and nibabel alone make the bundle's own label maps."""
    try:
        inference_recipe(trial.exported.parser)
    except ConfigError as error:
        raise SkippedError(str(error)) from error
    import onnxruntime

    from segan_monai.export.run_onnx import make_label_map

    network = onnxruntime.InferenceSession(
        str(trial.work_dir / "exports" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    voxels = 0
    for image_file, label_file in predictions(trial).items():
        expected = read_voxels(label_file)[0]
        found = np.asanyarray(make_label_map(network, [image_file]).dataobj)
        different = int((found != expected).sum())
        expect(different == 0, f"{different} of {expected.size} voxels differ in {label_file.name}")
        voxels += int((expected != 0).sum())
    return f"the same in every voxel, {voxels} of them labelled"


CHECKS: dict[str, Callable[[Trial], str]] = {
    "files": check_files,
    "metadata": check_metadata,
    "document": check_document,
    "labels": check_labels,
    "weights": check_weights,
    "network": check_network,
    "train": check_training,
    "resume": check_resuming,
    "evaluate": check_evaluation,
    "infer": check_inference,
    "torchscript": lambda trial: check_export(trial, "torchscript"),
    "onnx": lambda trial: check_export(trial, "onnx"),
    "torch-export": lambda trial: check_export(trial, "torch-export"),
    "run_onnx": check_runner,
}


def run_checks(
    bundle: str | Path,
    overrides: Mapping[str, Any] | None = None,
    dataset_dir: str | Path | None = None,
    work_dir: str | Path | None = None,
    names: Sequence[str] = (),
) -> Iterator[Check]:
    """Run the checks on small networks; a check that fails does not keep the next ones from running.

    Args:
        bundle: its folder.
        overrides: keys of its configs and their values, instead of the small ones that `SMALL` has.
        dataset_dir: labelled data; by default a generated data set in the decathlon's layout.
        work_dir: gets what is generated and written; by default a temporary folder.
        names: of the checks; by default all `CHECKS`.

    Yields:
        The result of each check, as soon as it is known.

    Raises:
        ConfigError: no such bundle, or no such check.
    """
    folder = Path(bundle)
    if not (folder / "configs" / "metadata.json").is_file():
        raise ConfigError(f"{folder} has no configs/metadata.json; expected the folder of a bundle, bundles/<name>.")
    if unknown := [name for name in names if name not in CHECKS]:
        raise ConfigError(f"there is no check {', '.join(unknown)}; expected some of {', '.join(CHECKS)}.")
    with tempfile.TemporaryDirectory() if work_dir is None else contextlib.nullcontext(str(work_dir)) as place:
        trial = Trial(folder.resolve(), Path(place), overrides or {}, Path(dataset_dir) if dataset_dir else None)
        for name in names or CHECKS:
            yield _checked(name, trial)


def _checked(name: str, trial: Trial) -> Check:
    begun = time.perf_counter()
    try:
        with _quiet():
            result, detail = "ok", CHECKS[name](trial)
    except SkippedError as error:
        result, detail = "skipped", str(error)
    except Exception as error:  # whatever a bundle's components raise
        result, detail = "FAILED", _reason(error)
    return Check(name, result, detail, time.perf_counter() - begun)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what runs print and log, and without what they set for their process."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, disabled = list(root.handlers), logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
        sys.excepthook = hook
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
            handler.close()


def _reason(error: BaseException) -> str:
    """The user's error in the chain, or else the first cause."""
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    last = next((e for e in chain if isinstance(e, UserError | CheckFailedError)), chain[-1])
    text = " ".join(str(last).split())
    return text if isinstance(last, UserError | CheckFailedError) else f"{type(last).__name__}: {text}"


def format_checks(checks: Sequence[Check]) -> str:
    """The results as a table of text."""
    width = max(len(check.name) for check in checks)
    lines = [f"{'check':{width}}  {'result':7}  {'s':>5}  detail"]
    lines += [f"{c.name:{width}}  {c.result:7}  {c.seconds:5.1f}  {c.detail}" for c in checks]
    return "\n".join(lines)
