# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes a new bundle: the configs of one of this project's bundles, adapted to the fingerprint."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.bundles_by_name import BUNDLES
from segan_monai.errors import ConfigError, DataError
from segan_monai.files import write_text, writing
from segan_monai.label_bundle import check_bundle_name
from segan_monai.new_bundle.choices import Choice, choose
from segan_monai.new_bundle.description import DataDescription, describe_data
from segan_monai.new_bundle.document import bundle_document
from segan_monai.new_bundle.fingerprint import Fingerprint, take_fingerprint
from segan_monai.places import require_results_outside
from segan_monai.typed import config_value

TEMPLATES = {
    "segan": "brats_mri_segan_segmentation",
    "adversarial-normalization": "brain_mri_adversarial_normalization_segmentation",
    "lsnet": "pancreas_ct_lsnet_segmentation",
}
_COPIED = ("LICENSE", "configs/logging.conf", "configs/multi_gpu_train.json", "configs/multi_gpu_evaluate.json")
_ONE_LINE = 100


def new_bundle(
    name: str,
    method: str,
    data: str | Path,
    output_dir: str | Path = ".",
    processes: int = 1,
    modalities: Sequence[str] | None = None,
    regions: Mapping[str, list[int]] | None = None,
) -> tuple[Path, Fingerprint, dict[str, Choice]]:
    """Measure a labelled data set and write a bundle for it that is ready for training.

    Args:
        name: Name of the bundle and its folder.
        method: ``segan``, ``adversarial-normalization`` or ``lsnet``.
        data: Folder of BraTS, in the decathlon's format or nnU-Net's raw format.
        output_dir: Parent folder of the bundle.
        processes: Number of processes that read cases.
        modalities: See ``describe_data``.
        regions: See ``describe_data``.

    Returns:
        The folder of the bundle, the fingerprint, and the chosen settings with reasons. The bundle also records the
        last two in ``docs/README.md`` and ``fingerprint.json``.

    Raises:
        ConfigError: The name is not a valid identifier, or MONAI Label would misinterpret it; the folder exists, or is
            inside the data; the method does not suit the data.
        DataError: The data cannot be used, see ``describe_data`` and ``take_fingerprint``.
        OutputError: The folder cannot be written.
    """
    folder = Path(output_dir).expanduser() / name
    _check_name(name, folder)
    template = BUNDLES / TEMPLATES.get(method, "")
    require_results_outside(folder, data)
    described = describe_data(data, modalities, regions)
    if described.ignore_label is not None and method not in ("segan", "lsnet"):
        raise DataError(
            f"{described.folder / 'dataset.json'} has an 'ignore' label ({described.ignore_label}) for voxels whose "
            f"label is unknown, which the method {method} does not support. Choose segan or lsnet, or label these "
            "voxels and remove 'ignore' from 'labels'."
        )
    if described.selects_modalities and method != "segan":
        raise ConfigError(
            f"--method {method} uses all channels of a data set and cannot select modalities, as folders of BraTS and "
            "--modalities need it. Choose --method segan, or give the data with one channel in the decathlon's format."
        )
    found = take_fingerprint(described, processes)
    chosen = choose(method, found)
    if not (template / "configs" / "metadata.json").is_file():
        raise ConfigError(
            f"the template bundle {template} does not exist. In a checkout, segan_monai/bundles must be a link to "
            "bundles (git config core.symlinks true, then check out again); otherwise reinstall the package."
        )
    with writing(folder):
        for sub in ("configs", "docs", "models"):
            (folder / sub).mkdir(parents=True)
        for file in _COPIED:
            shutil.copyfile(template / file, folder / file)
        for file in ("train.json", "evaluate.json", "inference.json"):
            config = json.loads((template / "configs" / file).read_text(encoding="utf-8"))
            _write_json(folder / "configs" / file, adapt_config(config, name, method, described, found, chosen))
        metadata = json.loads((template / "configs" / "metadata.json").read_text(encoding="utf-8"))
        _write_json(folder / "configs" / "metadata.json", adapt_metadata(metadata, method, described, found, chosen))
        reasons = {key: choice._asdict() for key, choice in chosen.items()}
        _write_json(folder / "fingerprint.json", {"data": found.as_json(), "choices": reasons})
        write_text(folder / "docs" / "README.md", bundle_document(name, method, described, found, chosen))
        write_text(folder / "docs" / "data_license.txt", _licence(described))
    return folder, found, chosen


def adapt_config(
    config: dict[str, Any],
    name: str,
    method: str,
    described: DataDescription,
    found: Fingerprint,
    chosen: Mapping[str, Choice],
) -> dict[str, Any]:
    """Adapt a config of a template bundle, preserving the order of its keys.

    Args:
        config: Content of ``train.json``, ``evaluate.json`` or ``inference.json``.
        name: Name of the new bundle.
        method: See ``new_bundle``.
        described: Description of the data set.
        found: Fingerprint of the data set.
        chosen: Settings; those without a key in the config are omitted. Optional steps of the templates are disabled
            while their key, such as ``spacing_mm``, is null.
    """
    config["bundle_root"] = f"$segan_monai.bundle_root('{name}')"
    config["dataset_dir"] = config_value("dataset_dir", str(described.folder))
    config["regions"] = found.regions
    if "ignore_label" in config:
        config["ignore_label"] = described.ignore_label
    config["background_labels"] = found.background_labels or None
    if "published" in config:
        config["published"] = None
    config |= {key: choice.value for key, choice in chosen.items() if key in config}
    config["modalities"] = found.channels
    if method == "segan":
        if len(found.channels) == 1 and not described.selects_modalities:
            del config["cases"]["modalities"]  # other folders may name their only channel differently
        config["label_regions"].pop("cases", None)
    if method == "lsnet" and not found.is_ct:
        config["hu_window"] = None
        config["picture_window"] = [0, 255]
    return config


def adapt_metadata(
    metadata: dict[str, Any],
    method: str,
    described: DataDescription,
    found: Fingerprint,
    chosen: Mapping[str, Choice],
) -> dict[str, Any]:
    """Adapt the metadata of a template bundle."""
    regions, channels = list(found.regions), found.channels
    title = {"segan": "SegAN", "lsnet": "L-SNet"}.get(method, "adversarial normalization")
    labels = "one label map: " + ", ".join(f"{value} {region}" for value, region in enumerate(regions, start=1))
    metadata.pop("weights_license", None)  # the new bundle includes no weights
    metadata["name"] = f"{described.title}: segmentation with {title}"
    metadata["task"] = f"Segmentation of {', '.join(regions)}"
    metadata["description"] = (
        f"{title} on {', '.join(channels)}: {', '.join(regions)}. Created by segan-monai new-bundle"
    )
    metadata["data_source"] = f"{described.title} ({described.licence or 'licence unknown'})"
    metadata["data_type"] = "nibabel, SimpleITK"
    metadata["image_classes"] = f"{len(channels)} channel{'s' * (len(channels) > 1)}: {', '.join(channels)}"
    metadata["label_classes"] = f"one label map, by its values: {_values(found.regions)}"
    metadata["pred_classes"] = labels
    metadata["references"] = [*metadata["references"][:1], *([described.reference] if described.reference else [])]
    neighbours = chosen["neighbours"].value if "neighbours" in chosen else 0
    seen = [channel + _place(offset) for offset in range(-neighbours, neighbours + 1) for channel in channels]
    image, pred = (metadata["network_data_format"][side] for side in ("inputs", "outputs"))
    image["image"] |= {
        "format": "hounsfield" if found.is_ct else "magnitude",
        "modality": dicom_modality(channels),
        "num_channels": len(seen),
        "channel_def": {str(number): channel for number, channel in enumerate(seen)},
    }
    pred["pred"] |= {
        "num_channels": len(regions) + (method == "adversarial-normalization"),
        "channel_def": {str(value): region for value, region in enumerate(["background", *regions])},
    }
    return metadata


def dicom_modality(channels: list[str]) -> str:
    """Return the DICOM modality of the first channel, by its name: CT, PT, US, or MR for any other name."""
    words = re.split(r"[^a-z]+", channels[0].lower())
    codes = {"ct": "CT", "cta": "CT", "pet": "PT", "pt": "PT", "us": "US", "ultrasound": "US"}
    return next((codes[word] for word in words if word in codes), "MR")


def _place(offset: int) -> str:
    """Return the suffix of a channel name for a neighbouring slice."""
    if not offset:
        return ""
    return f", {abs(offset)} slice{'s' * (abs(offset) > 1)} {'before' if offset < 0 else 'after'}"


def _check_name(name: str, folder: Path) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ConfigError(
            f"invalid bundle name {name!r}. Expected letters, digits and _, beginning with a letter, such as "
            f"{re.sub('[^A-Za-z0-9]+', '_', name).strip('_0123456789') or 'my'}_segmentation."
        )
    check_bundle_name(name)
    if folder.exists():
        raise ConfigError(f"{folder} exists. Choose another name or --output-dir, or remove the folder.")


def _licence(described: DataDescription) -> str:
    text = f"i. {described.title}\n   {described.licence or 'Licence unknown: ask the authors of the data set.'}\n"
    if described.reference:
        text += f"   {described.reference}\n"
    return f"{text}   None of its images are part of this bundle.\n"


def _values(regions: Mapping[str, list[int]]) -> str:
    return ", ".join(f"{'/'.join(map(str, values))} {region}" for region, values in regions.items())


def _write_json(file: Path, content: dict[str, Any]) -> None:
    """Write JSON indented by 4, with short lists of plain values on one line, as users read and edit it."""
    text = json.dumps(content, indent=4, ensure_ascii=False)

    def on_one_line(match: re.Match[str]) -> str:
        line = "[" + re.sub(r"\n *", " ", match[1].lstrip()) + "]"
        return line if len(line) <= _ONE_LINE else match[0]

    write_text(file, re.sub(r"\[\n( +[^\[\]{}]*?)\n *\]", on_one_line, text) + "\n")
