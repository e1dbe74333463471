# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Put a bundle where MONAI Label's app looks for models, with configs that fit what a viewer shows and sends back.

``python -m segan_monai.label_bundle BUNDLE MODELS_DIR [OVERLAY.json ...]``, as scripts/monai_label.sh does.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from monai.bundle import ConfigParser

import segan_monai
from segan_monai.console import escape_what_cannot_be_printed
from segan_monai.data import resolve_regions
from segan_monai.errors import ConfigError, UserError
from segan_monai.json_files import refuse_byte_order_mark

CONTINUED_LEARNING_RATE = 0.1  # of that of a training from scratch


_OTHER_KINDS = ("deepedit", "deepgrow", "detection", "classification")


def check_bundle_name(name: str) -> None:
    """Whether MONAI Label takes a bundle of that name for what it is.

    Raises:
        ConfigError: it would take it for another kind of model, or for none.
    """
    if "segmentation" not in name or any(word in name for word in _OTHER_KINDS):
        raise ConfigError(
            f"{name}: MONAI Label takes the kind of a model from the name of its folder. Expected a name with "
            f"'segmentation' and without {', '.join(map(repr, _OTHER_KINDS))}, such as "
            f"{re.sub('|'.join(_OTHER_KINDS), '', name.replace('segmentation', '')).strip('_') or 'my'}_segmentation."
        )


def place_bundle(bundle: str | Path, models_dir: str | Path, overlays: Sequence[str | Path] = ()) -> Path:
    """Copy a bundle into the app, so that it can be served, and trained on what a viewer sends back.

    - MONAI Label reads one file for inference and one for training, so overlays are merged into them.
    - A viewer saves label maps with the values that the bundle predicts, so training takes the regions from those
      values, whatever the convention of the data set was.
    - A viewer asks for a number of epochs, so the schedules of the training follow that.
    - A training goes on from the weights that are served, with new optimizers: there is no warm-up, and the learning
      rate is a tenth [ours], as the first steps of the full one would undo what was learnt (docs/monai_label.md).
    - MONAI Label loads what fits of a checkpoint and runs on, so the weights are checked here.

    Weights that an earlier training in the app has written are kept; else those of the bundle are copied.

    Args:
        bundle: the bundle's folder.
        models_dir: the app's folder of models; gets a folder of the bundle's name.
        overlays: config files that the weights were trained with.

    Returns:
        The bundle's folder in the app.

    Raises:
        ConfigError: MONAI Label would take the name of the folder for another kind of model, or there are no weights,
            or they do not fit the network of the configs.
    """
    bundle, name = Path(bundle), Path(bundle).resolve().name
    check_bundle_name(name)
    placed = Path(models_dir) / name
    weights = placed / "models" / "model.pt"
    if not weights.is_file():
        weights = bundle / "models" / "model.pt"

    for overlay in overlays:
        refuse_byte_order_mark(overlay)
    inference, training = (
        ConfigParser.load_config_files([bundle / "configs" / file, *overlays])
        for file in ("inference.json", "train.json")
    )
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    regions = segan_monai.merged_regions(resolve_regions(inference["regions"]))
    inference["output_labels"] = "consecutive"
    training["regions"] = regions
    training["epochs"] = "@train#trainer#max_epochs"
    training["train"]["trainer"]["max_epochs"] = 1  # MONAI Label always sets it
    if "warm_up_epochs" in training:
        training["warm_up_epochs"] = 0
    training["learning_rate"] *= CONTINUED_LEARNING_RATE
    if any("regions" in ConfigParser.load_config_file(overlay) for overlay in overlays):
        names = ["background", *regions]
        metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {str(i): n for i, n in enumerate(names)}

    network = ConfigParser(dict(inference)).get_parsed_content("network_def")
    segan_monai.load_weights(network, weights)

    for folder in ("configs", "models"):
        (placed / folder).mkdir(parents=True, exist_ok=True)
    for file in (bundle / "configs").iterdir():
        shutil.copy(file, placed / "configs")
    for content, file_name in ((inference, "inference"), (training, "train"), (metadata, "metadata")):
        (placed / "configs" / f"{file_name}.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    if weights.parent != placed / "models":
        shutil.copy(weights, placed / "models")
    return placed


def main(arguments: Sequence[str] | None = None) -> int:
    """Place a bundle and say which weights will be served; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m segan_monai.label_bundle", description=main.__doc__)
    parser.add_argument("bundle", help="folder of the bundle")
    parser.add_argument("models_dir", help="folder 'model' of MONAI Label's app")
    parser.add_argument("overlays", nargs="*", help="config files that the weights were trained with")
    given = parser.parse_args(arguments)
    escape_what_cannot_be_printed()
    kept = (Path(given.models_dir) / Path(given.bundle).resolve().name / "models" / "model.pt").is_file()
    try:
        placed = place_bundle(given.bundle, given.models_dir, given.overlays)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    of_whom = "of an earlier start or training here; delete the file to serve the bundle's" if kept else "the bundle's"
    print(f"serving {placed / 'models' / 'model.pt'} ({of_whom})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
