# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the files of a bundle: the zoo's list, metadata, README, label names, weights and network shapes."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
from monai.bundle import ConfigParser, verify_net_in_out

from segan_monai.member_weights import network_files, weight_files
from segan_monai.networks import network_of_weights
from segan_monai.quality.file import quality_file, read_quality
from segan_monai.trained import apply_trained_settings, changed_files, require_same_settings
from segan_monai.verify.metadata_schema import METADATA_SCHEMA
from segan_monai.verify.trial import FILES, SkippedError, Trial, expect

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


def check_files(trial: Trial) -> str:
    """Check that all files required by the model zoo exist."""
    wanted = ["LICENSE", "docs/README.md", "docs/data_license.txt", "configs/metadata.json"]
    wanted += [f"configs/{file}" for file in FILES.values()]
    missing = [file for file in wanted if not (trial.bundle / file).is_file()]
    expect(not missing, f"missing: {', '.join(missing)}")
    return f"{len(wanted)} files"


def check_metadata(trial: Trial) -> str:
    """Check the metadata against the schema, and that the changelog has its version."""
    errors = list(jsonschema.Draft202012Validator(METADATA_SCHEMA).iter_errors(trial.metadata))
    found = [f"{'/'.join(map(str, error.path)) or 'metadata.json'}: {error.message}" for error in errors]
    expect(not found, "; ".join(found))
    version = trial.metadata["version"]
    expect(version in trial.metadata["changelog"], f"version {version} is not in the changelog")
    return f"valid, version {version}"


def check_document(trial: Trial) -> str:
    """Check that the README has the zoo's sections in order, and that the data's licence is not empty."""
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
    """Check that the output channels name the background and one value per region."""
    values = sorted(trial.channel_def)
    expect(values[0] == 0, f"channel_def of the output has no 0 (background), only {values}")
    expect(len(values) == 1 + len(trial.regions), f"{len(values) - 1} values for {len(trial.regions)} regions")
    return ", ".join(f"{value} {trial.channel_def[value]}" for value in values)


def check_weights(trial: Trial) -> str:
    """Check that included weights fit the network of their settings, and are those that their JSON files name.

    These are ``model.json``, and ``quality.json`` if one of the weights has it.

    Weights of an overlay lie in a folder of ``models``, and members of an ensemble in ``fold_0``, ``fold_1`` and so on.
    """
    models = trial.bundle / "models"
    parents = {file.parent for file in models.rglob("model.pt")}
    folders = {folder.parent if folder.name.startswith("fold_") else folder for folder in parents}
    if not folders:
        raise SkippedError("no models/model.pt; the zoo asks for it (or large_files.yml): train first")
    return "; ".join(_check_weights_in(folder, trial.bundle) for folder in sorted(folders))


def _check_weights_in(folder: Path, bundle: Path) -> str:
    files = network_files(folder)
    if files[0].parent == folder:
        unused = [file.relative_to(bundle).as_posix() for file in sorted(folder.glob("fold_*/model.pt"))]
        expect(
            not unused,
            f"{files[0].relative_to(bundle).as_posix()} lies beside members of an ensemble, which no run uses: "
            f"{', '.join(unused)}. Move either elsewhere",
        )
    require_same_settings([*files, *weight_files(None, folder)], ())  # those of an ensemble beside a network, too
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser["device"] = "cpu"
    apply_trained_settings(parser, files[0], {})
    network_of_weights(parser.get_parsed_content("network_def"), files)
    changed = [str(other) for file in files for other in changed_files(file)]
    expect(not changed, f"{', '.join(changed)}: another file than model.json beside it names, by its SHA-256")
    estimated = any(quality_file(file).is_file() for file in files)
    if estimated:
        read_quality(files, parser.get_parsed_content("quality_settings"))
    size = f"{sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"
    members = f"{len(files)} networks, " if len(files) > 1 else ""
    detail = f"{members}{size}{', with an estimate of quality' if estimated else ''}"
    place = folder.relative_to(bundle / "models").as_posix()
    return detail if place == "." else f"{place}: {detail}"


def check_network(trial: Trial) -> str:
    """Check that input and output of the network have the shapes and types of the metadata.

    The metadata describe the network of the bundle as it is. If an override makes it a 3-D network, shapes and channels
    are those of the config.
    """
    configs = trial.bundle / "configs"
    files = str(configs / "metadata.json"), str(configs / "inference.json")
    settings = {**trial.settings("inference"), "device": "cpu"}
    of_metadata = trial.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    if settings.get("spatial_dims", len(of_metadata)) != len(of_metadata):
        channels, *size = trial.exported.example().shape[1:]
        for side, name in (("inputs", "image"), ("outputs", "pred")):
            settings[f"_meta_::network_data_format::{side}::{name}::spatial_shape"] = ["*"] * len(size)
        settings["_meta_::network_data_format::inputs::image::num_channels"] = channels
    verify_net_in_out("network_def", *files, n=2, **settings)
    return "as metadata.json says"
