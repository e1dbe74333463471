# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Text about a new bundle: docs/README.md in the model zoo's order, and the output of the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from segan_monai.new_bundle.choices import Choice
from segan_monai.new_bundle.description import DataDescription
from segan_monai.new_bundle.fingerprint import Fingerprint

_METHODS = {
    "segan": (
        "SegAN: a segmentor and one critic per region, trained adversarially with a multi-scale L1 loss. The network "
        "sees slices of volumes; its predictions are restacked on the grid of the volume.",
        "Xue Y, Xu T, Zhang H, Long LR, Huang X. SegAN: Adversarial Network with Multi-scale L1 Loss for Medical "
        "Image Segmentation. Neuroinformatics 16, 383-392 (2018).",
    ),
    "adversarial-normalization": (
        "Adversarial normalization: a normalizer maps images of several domains to a common appearance, a segmentor "
        "segments the normalized images, and a domain discriminator keeps them realistic. Inference needs no domain, "
        "and writes the normalized image beside the label map.",
        "Delisle PL, Anctil-Robitaille B, Desrosiers C, Lombaert H. Adversarial Normalization for Multi Domain Image "
        "Segmentation. IEEE ISBI (2020).",
    ),
    "lsnet": (
        "L-SNet: a localization network detects objects as keypoints with boxes in axial slices, a differentiable RoI "
        "recalibration resizes each box to full size, and a segmentation network segments it.",
        "L-SNet: From region localization to scale invariant medical image segmentation. arXiv.",
    ),
}


def format_choices(found: Fingerprint, chosen: Mapping[str, Choice]) -> str:
    """Format the measurements and the chosen settings, one per line."""
    lines = [*fingerprint_lines(found), ""]
    width = max(map(len, chosen)) + 1
    values = {key: json.dumps(choice.value, ensure_ascii=False) for key, choice in chosen.items()}
    of_value = max(map(len, values.values())) + 1
    lines += [f"{key:{width}} {values[key]:{of_value}} {choice.reason}" for key, choice in chosen.items()]
    return "\n".join([*lines, ""])


def fingerprint_lines(found: Fingerprint) -> list[str]:
    """Summarize the fingerprint in a few lines."""
    regions = ", ".join(
        f"{region} ({'/'.join(map(str, values))}) in {found.cases_with[region]}"
        for region, values in found.regions.items()
    )
    unlabelled = f", {found.unlabelled} unlabelled" if found.unlabelled else ""
    lines = [
        f"{found.cases} labelled cases of {found.subjects} subjects{unlabelled}; channels: {', '.join(found.channels)}",
        f"regions (label values) and the number of cases with each: {regions}",
        f"voxels: {_ranges(found.shape)}; mm: {_ranges(found.spacing)} (median, 5th to 95th percentile; RAS)",
        "labelled intensities: "
        + ", ".join(
            f"{channel} {mean:g} ± {deviation:g} ({lower:g} to {upper:g})"
            for channel, (lower, mean, deviation, upper) in zip(found.channels, found.intensities, strict=True)
        ),
    ]
    if found.background_labels:
        lines.append(f"label values that count as background: {', '.join(map(str, found.background_labels))}")
    if found.domains:
        lines.append(f"domains: {', '.join(f'{name} {count}' for name, count in found.domains.items())}")
    if absent := [region for region, count in found.cases_with.items() if not count]:
        lines.append(f"WARNING: no case contains {', '.join(absent)}; it cannot be learned")
    return lines


def bundle_document(
    name: str, method: str, described: DataDescription, found: Fingerprint, chosen: Mapping[str, Choice]
) -> str:
    """Return the text of docs/README.md."""
    about, reference = _METHODS[method]
    outputs = ", ".join(f"{value} {region}" for value, region in enumerate(found.regions, start=1))
    several = (
        f"MONAI Label requires one 4-D file per image (H, W, D, {len(found.channels)}) with the channels in this "
        "order; all other commands also accept one file per channel.\n\n"
        if len(found.channels) > 1
        else ""
    )
    unlabelled = (
        f"Images without a label map ({found.unlabelled}) are omitted. To train with them too, pass `--unlabeled use"
        + ("" if method == "adversarial-normalization" else " --consistency_weight 1 --ema_decay 0.99")
        + "`.\n\n"
        if found.unlabelled
        else ""
    )
    references = [reference, *([described.reference] if described.reference else [])]
    return f"""# Model Overview

{about}

Created by `segan-monai new-bundle` from measurements of the data. Complete the missing information.

## Data

{described.title}. Licence: {described.licence or "unknown, ask its authors"}.

{_listed(fingerprint_lines(found))}

`dataset_dir` accepts nnU-Net's raw format, the decathlon's format and, for inference, a plain folder of images
(`<case>_0000.nii.gz`, or any names if there is one channel).

{unlabelled}## Training configuration

| key | value | reason |
|---|---|---|
{_table(chosen)}

All other settings are those of segan-monai's own bundle for this method. Any key at the top of a config is a
command-line option, such as `--epochs 20`. All measurements are in `fingerprint.json`.

### Input

{len(found.channels)} channel{"s" * (len(found.channels) > 1)}: {", ".join(found.channels)}; any size.

{several}### Output

One label map, uint8, on the grid of the input: {outputs}.

## Performance

Not measured yet. Training and evaluation write `report.html` to their output folders.

## MONAI Bundle Commands

```
segan-monai train {name} DATA -o RUN
segan-monai evaluate RUN DATA
segan-monai predict RUN -i IMAGES -o OUT
segan-monai check training --config_file {name}/configs/train.json --dataset_dir DATA
segan-monai verify {name}
segan-monai export onnx {name} --weights RUN/model.pt --output {name}.onnx
```

`python -m monai.bundle run training --config_file {name}/configs/train.json` starts the same training; the default of
`--dataset_dir` is the folder that the bundle was created from. `segan-monai include RUN -o {name}/models` includes the
weights. Then `bash scripts/monai_label.sh {name} STUDIES`, in a checkout of
segan-monai, serves the bundle in MONAI Label.

## Limitations

Research software. Not a medical device; not for diagnosis or treatment.

## References

{_listed(references, "[{}] ")}

## License

The configs are licensed under the Apache License 2.0 (LICENSE). For the data, see data_license.txt.
"""


def _ranges(spread: list[list[float]]) -> str:
    return " x ".join(f"{median:g} ({low:g} to {high:g})" for low, median, high in spread)


def _table(chosen: Mapping[str, Choice]) -> str:
    def cell(value: Any) -> str:
        return f"`{json.dumps(value, ensure_ascii=False)}`"

    return "\n".join(f"| `{key}` | {cell(choice.value)} | {choice.reason} |" for key, choice in chosen.items())


def _listed(lines: list[str], start: str = "- ") -> str:
    return "\n".join(start.format(number) + line for number, line in enumerate(lines, start=1))
