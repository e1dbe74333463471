# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Installation of a bundle in MONAI Label's app, with configs adapted to interactive viewers.

Usage: ``python -m segan_monai.label_bundle BUNDLE MODELS_DIR [OVERLAY.json ...]``, as in ``scripts/monai_label.sh``.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

import segan_monai
from segan_monai.check.config_files import read_config_file
from segan_monai.check.overlay_keys import require_places
from segan_monai.console import escape_what_cannot_be_printed
from segan_monai.data import resolve_regions
from segan_monai.errors import ConfigError, UserError
from segan_monai.files import whole_file
from segan_monai.json_files import write_json
from segan_monai.member_weights import DOMAINS, QUALITY, network_files
from segan_monai.quality.file import has_quality_file, read_record, write_record
from segan_monai.trained import (
    apply_trained_settings,
    given_keys,
    included_weights_dir,
    require_same_settings,
    settings_file,
)
from segan_monai.unlabeled_terms import WEIGHTS, terms_in_use

logger = logging.getLogger(__name__)

CONTINUED_LEARNING_RATE = 0.1  # fraction of the learning rate for training from scratch

_OTHER_KINDS = ("deepedit", "deepgrow", "detection", "classification")


def check_bundle_name(name: str) -> None:
    """Check that MONAI Label recognizes a bundle of this name as a segmentation model.

    Raises:
        ConfigError: MONAI Label would treat it as another kind of model, or not as a model at all.
    """
    if "segmentation" not in name or any(word in name for word in _OTHER_KINDS):
        raise ConfigError(
            f"{name}: MONAI Label derives the kind of a model from its folder name. Expected a name with "
            f"'segmentation' and without {', '.join(map(repr, _OTHER_KINDS))}, such as "
            f"{re.sub('|'.join(_OTHER_KINDS), '', name.replace('segmentation', '')).strip('_') or 'my'}_segmentation."
        )


def place_bundle(bundle: str | Path, models_dir: str | Path, overlays: Sequence[str | Path] = ()) -> Path:
    """Copy a bundle into the app for inference and for training on labels from a viewer.

    - MONAI Label reads one file for inference and one for training, so overlays are merged into both.
    - A viewer saves label maps with the values that the bundle predicts. Training therefore defines the regions by
      these values, regardless of the data set's convention.
    - A viewer chooses the number of epochs, and the training schedules follow it.
    - Training starts from the served weights with new optimizers: without warm-up and with a tenth of the learning
      rate [ours], because steps at the full rate would undo earlier training (docs/monai_label.md).
    - Training uses the images with a label map only: the loss terms of unlabelled images are switched off.
    - The settings of the training, in ``model.json`` beside the weights, are written into both.
    - The quality estimate of the weights, ``quality.json``, is served with them; ``domains.json`` is copied too.
    - MONAI Label loads the matching part of a checkpoint and ignores the rest, so the weights are checked here.

    - An ensemble, of the key ``weights`` or included in the bundle, is served as one network with one file of weights.
      It is not trained from a viewer. Of a bundle that includes one network besides, that network is served.

    Weights from earlier training in the app are kept; otherwise those of the bundle are copied.

    Args:
        bundle: the bundle's folder.
        models_dir: the app's model folder; receives a folder named after the bundle.
        overlays: config files that the weights were trained with.

    Returns:
        The bundle's folder in the app.

    Raises:
        ConfigError: MONAI Label would treat the folder name as another kind of model, the weights are missing, or they
            do not match the network in the configs; or an overlay contradicts the settings of the training, or an
            ensemble would replace the weights of a training in the app.
    """
    bundle, name = Path(bundle), Path(bundle).resolve().name
    check_bundle_name(name)
    placed = Path(models_dir) / name
    runs = [str(bundle / "configs" / file) for file in ("inference.json", "train.json")]
    require_places(
        {file: read_config_file(file) for file in runs}, {str(file): read_config_file(file) for file in overlays}
    )
    inference, training = (ConfigParser.load_config_files([file, *overlays]) for file in runs)
    overlaid = given_keys(overlays, ())
    weights = placed / "models" / "model.pt"
    if not weights.is_file():
        weights = included_weights_dir(inference, bundle) / "model.pt"
    members = _members(inference, bundle)
    if members:
        _require_no_other_weights(placed / "models" / "model.pt")
        require_same_settings(members, overlaid)
        weights = members[0]
    if weights.parent == placed / "models":
        overlaid.pop("regions", None)  # trained in the app, on the regions of the overlay with a viewer's label values
    inference, with_settings = _with_trained_settings(inference, weights, overlaid)
    training, _ = _with_trained_settings(training, weights, overlaid)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    regions = segan_monai.merged_regions(resolve_regions(inference["regions"]))
    inference["output_labels"] = "consecutive"
    if "included_weights_dir" in inference:
        inference["included_weights_dir"] = "$@bundle_root + '/models'"  # where they are placed
    _continue_in_viewer(training, regions)
    if "regions" in {**given_keys(overlays, ()), **with_settings}:
        names = ["background", *regions]
        metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {str(i): n for i, n in enumerate(names)}

    if members:
        of_member = inference["network_def"]
        ensemble = {"_target_": "NetworkEnsemble", "network": of_member, "count": len(members)}
        inference |= {"weights": None, "network_def": ensemble}
    network = ConfigParser(dict(inference)).get_parsed_content("network_def")
    segan_monai.load_members(network, members or [weights])

    for folder in ("configs", "models"):
        (placed / folder).mkdir(parents=True, exist_ok=True)
    for file in (bundle / "configs").iterdir():
        shutil.copy(file, placed / "configs")
    for content, file_name in ((inference, "inference"), (training, "train"), (metadata, "metadata")):
        write_json(placed / "configs" / f"{file_name}.json", content)
    if members:
        _place_ensemble(network, placed, read_record(members) if has_quality_file(members) else None)
    elif weights.parent != placed / "models":
        for file in (weights, settings_file(weights), weights.with_name(QUALITY), weights.with_name(DOMAINS)):
            if file.is_file():
                shutil.copy(file, placed / "models")
    return placed


def _continue_in_viewer(training: dict[str, Any], regions: Mapping[str, Sequence[int]]) -> None:
    """Adapt a training to the viewer's label values and number of epochs, and to trained weights."""
    training["regions"] = regions
    training["ckpt_dir"] = "$@bundle_root + '/models'"  # served from there
    training["epochs"] = "@train#trainer#max_epochs"
    training["train"]["trainer"]["max_epochs"] = 1  # MONAI Label always sets it
    if "warm_up_epochs" in training:
        training["warm_up_epochs"] = 0
    training["learning_rate"] *= CONTINUED_LEARNING_RATE
    _switch_off_unlabelled_images(training)


def _members(inference: Mapping[str, Any], bundle: Path) -> list[Path]:
    """Return the files of weights of an ensemble, or none for a single network."""
    if not inference.get("weights"):
        included = network_files(included_weights_dir(inference, bundle))
        return included if len(included) > 1 else []
    parser = ConfigParser({**inference, "bundle_root": str(bundle)})
    files = segan_monai.weight_files(parser.get_parsed_content("weights"), bundle / "models")
    if len(files) < 2:
        raise ConfigError(
            f"--weights names one file, {files[0]}. Copy it with its model.json to "
            f"{included_weights_dir(inference, bundle)}, or name several for an ensemble."
        )
    return files


def _place_ensemble(network: torch.nn.Module, placed: Path, quality: Mapping[str, Any] | None) -> None:
    """Write the weights of all members into one file, and remove the configs of training, which is then not offered.

    Args:
        network: the ensemble with its weights.
        placed: the bundle's folder in the app.
        quality: content of the members' ``quality.json``, which is written for the one file; None for no estimate.
    """
    weights = placed / "models" / "model.pt"
    with whole_file(weights) as file:
        torch.save(network.state_dict(), file)
    weights.with_name(QUALITY).unlink(missing_ok=True)  # of an earlier start
    if quality is not None:
        write_record(weights, quality)
    for file in (placed / "configs").glob("*train.json"):
        file.unlink()


def _require_no_other_weights(served: Path) -> None:
    """Refuse to replace weights that were trained in the app."""
    if served.is_file() and not any(
        name.startswith("members.") for name in segan_monai.networks.read_checkpoint(served)
    ):
        raise ConfigError(
            f"{served} holds one network, which was placed or trained there before; an ensemble would replace it. Move "
            "it elsewhere, or serve the ensemble from another app folder."
        )


def _switch_off_unlabelled_images(training: dict[str, Any]) -> None:
    """Let a training use the labelled images of the viewer only, all of them, and log the terms that are omitted."""
    if used := terms_in_use(training):
        logger.warning("a training from a viewer uses labelled images only, so it omits %s", " and ".join(used))
    hidden = dict.fromkeys(("labeled_cases", "annotated_slices", "missing_regions"))
    without = {**dict.fromkeys(WEIGHTS, 0.0), "unlabeled": "ignore", **hidden}
    if isinstance(training.get("cases_per_epoch"), str):  # an expression about the cases of a data set
        without["cases_per_epoch"] = None
    training.update({key: value for key, value in without.items() if key in training})


def _with_trained_settings(
    config: dict[str, Any], weights: Path, given: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a config with the settings that the weights were trained with, and the keys that have changed."""
    parser = ConfigParser(config)
    changed = apply_trained_settings(parser, weights, given)
    return parser.get(), changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Install a bundle in MONAI Label's app, print which weights will be served and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m segan_monai.label_bundle", description=main.__doc__)
    parser.add_argument("bundle", help="folder of the bundle")
    parser.add_argument("models_dir", help="the folder 'model' of MONAI Label's app")
    parser.add_argument("overlays", nargs="*", help="config files that the weights were trained with")
    given = parser.parse_args(arguments)
    escape_what_cannot_be_printed()
    kept = (Path(given.models_dir) / Path(given.bundle).resolve().name / "models" / "model.pt").is_file()
    try:
        placed = place_bundle(given.bundle, given.models_dir, given.overlays)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    served = placed / "models" / "model.pt"
    if not (placed / "configs" / "train.json").is_file():
        print(f"serving an ensemble, {served}; it is not trained from viewers", flush=True)
        return 0
    source = "from an earlier start or training here; delete the file to serve the bundle's" if kept else "the bundle's"
    print(f"serving {served} ({source})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
