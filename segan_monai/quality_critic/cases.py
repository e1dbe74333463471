# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Out-of-fold cases as the quality critic sees them: image, truth, and prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor

from segan_monai.bundles_by_name import bundle_of_run
from segan_monai.errors import ConfigError, DataError, user_error_in
from segan_monai.file_kinds import is_picture
from segan_monai.grids import Grid, check_same_grid
from segan_monai.json_files import read_json_object
from segan_monai.metrics import LabelMap, read_label_map
from segan_monai.quality import FitCase
from segan_monai.quality_critic.stacks import SIZE, Stack, stack_of
from segan_monai.trained import user_settings
from segan_monai.transforms.known_labels import known_voxels
from segan_monai.transforms.regions import label_to_regions, merged_regions

AGAIN = "Evaluate again: segan-monai evaluate TRAINING DATA, or segan-monai folds."


@dataclass(frozen=True)
class CriticCase:
    """A case of the fit.

    Attributes:
        name: of the case.
        group: fold of the fit; cases of one patient share it.
        stack: image, and as masks the prediction, the truth and where the truth is known.
        features: result of ``image_features``.
        dice: that of the prediction, by region; absent or NaN for regions without a label.
    """

    name: str
    group: int
    stack: Stack
    features: Mapping[str, float]
    dice: Mapping[str, float]

    @property
    def prediction(self) -> Tensor:
        """(D, K, S, S)."""
        return self.stack.masks[0]

    @property
    def truth(self) -> Tensor:
        """(D, K, S, S)."""
        return self.stack.masks[1]

    @property
    def known(self) -> Tensor:
        """(D, K, S, S): 1 where the truth is known."""
        return self.stack.masks[2]


def read_cases(folders: Sequence[Path], cases: Sequence[FitCase], groups: int, size: int = SIZE) -> list[CriticCase]:
    """Load images, labels and predictions of evaluations as the evaluations did.

    Args:
        folders: output folders of evaluations.
        cases: their cases, see ``segan_monai.quality.read_evaluations``.
        groups: number of folds of the fit; groups of patients are joined to as many.
        size: rows and columns of the stacks.

    Raises:
        DataError: A label map is missing or lies on another grid, or the data set has lost a case.
        ConfigError: The bundle of an evaluation is not found, or is one of photographs; or a case is a picture.
    """
    wanted = {case.case: case for case in cases}
    found = []
    for folder in folders:
        files = {file.name.removesuffix("_seg.nii.gz"): file for file in sorted(folder.glob("*_seg.nii.gz"))}
        own = [name for name in files if name in wanted]
        parser = parser_of_evaluation(folder)
        known = {case["case"]: case for case in parsed(parser, "cases")}
        if lost := [name for name in own if name not in known]:
            raise DataError(
                f"case {lost[0]} of {folder} is not in {parser.get('dataset_dir')}; expected the data set of the "
                f"evaluation. {AGAIN}"
            )
        require_volumes(parser, known.values(), folder)
        load = _Loader(parser, size)
        for name in own:
            case = wanted.pop(name)
            stack = load(known[name], files[name])
            found.append(CriticCase(name, case.group % groups, stack, case.image, case.dice))
    if wanted:
        raise DataError(
            f"{len(wanted)} cases have no label map <case>_seg.nii.gz in {', '.join(map(str, folders))}, such as "
            f"{next(iter(wanted))}; expected those of the evaluation. {AGAIN}"
        )
    return found


def parser_of_evaluation(folder: Path) -> ConfigParser:
    """Return the parsed config of an evaluation: that of its bundle, with the plain settings in ``run.json``.

    Expressions and components in ``run.json`` are not used, because the folder of a run may come from elsewhere. The
    bundle that it names must be trusted.

    Raises:
        DataError: ``run.json`` is missing or damaged.
        ConfigError: The bundle is not found.
    """
    if not (folder / "run.json").is_file():
        raise DataError(f"{folder} has no run.json; expected the output folder of an evaluation. {AGAIN}")
    recorded = read_json_object(folder / "run.json", AGAIN).get("config", {})
    bundle = bundle_of_run(folder)
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "evaluate.json")
    config: dict[str, Any] = parser.config  # type: ignore[assignment]
    plain = {key: recorded[key] for key in user_settings(config) if key in recorded and is_plain(recorded[key])}
    parser.update({**plain, "bundle_root": str(bundle), "device": "cpu"})
    return parser


def require_volumes(parser: ConfigParser, cases: Iterable[Mapping[str, Any]], name: str | Path) -> None:
    """Check that cases are volumes.

    Args:
        parser: config of their bundle.
        cases: the cases.
        name: bundle or run, for the message.

    Raises:
        ConfigError: They are photographs or slices saved as pictures.
    """
    why = "expected volumes, because the quality critic reads their grids."
    if "modalities" not in parser:
        raise ConfigError(f"{name} is of photographs; {why}")
    for case in cases:
        if is_picture(case["image"]):
            raise ConfigError(f"{name}: case {case['case']} is a picture, {case['image']}; {why}")


def parsed(parser: ConfigParser, name: str) -> Any:
    """Return a parsed part of a config.

    Raises:
        UserError: The part cannot be built, for a reason that the user can mend.
    """
    try:
        return parser.get_parsed_content(name)
    except Exception as error:
        raise user_error_in(error) or error from error


def is_plain(value: Any) -> bool:
    """Return whether a value of a config has no expression, reference, macro or component in it."""
    if isinstance(value, dict):
        return "_target_" not in value and all(is_plain(of_key) for of_key in (*value, *value.values()))
    if isinstance(value, list):
        return all(map(is_plain, value))
    return not isinstance(value, str) or not value.startswith(("$", "@", "%"))


class _Loader:
    """Loads cases of one evaluation."""

    def __init__(self, parser: ConfigParser, size: int) -> None:
        self.size = size
        self.preprocessing = parser.get_parsed_content("preprocessing")
        self.regions = parser.get_parsed_content("label_regions")
        self.predicted = merged_regions(self.regions, parser.get("output_labels", "consecutive"))
        self.ignore_label = parser.get("ignore_label")

    def __call__(self, case: Mapping[str, Any], file: Path) -> Stack:
        try:
            loaded = self.preprocessing(dict(case))
        except Exception as error:  # MONAI wraps it
            raise user_error_in(error) or error from error
        image, label = loaded["image"], loaded["label"]
        listed = case.get("labelled_regions")
        masks = [
            masks_of_label_map(read_label_map(file), image, self.predicted),
            label_to_regions(label, self.regions, self.ignore_label),
            known_voxels(label, self.regions, self.ignore_label, listed, case["case"]),
        ]
        return stack_of(image, masks, self.size)


def masks_of_label_map(label_map: LabelMap, image: MetaTensor, regions: Mapping[str, Sequence[int]]) -> Tensor:
    """Return the regions of a label map of a volume (K, H, W, D), on the grid of its file.

    Args:
        label_map: values and affine.
        image: the preprocessed image, which knows the grid of its own file.
        regions: values of each region in the label map.

    Raises:
        DataError: The label map lies on another grid than the file of the image, or has a value in no region.
    """
    shape = tuple(int(length) for length in image.meta["spatial_shape"])
    own = torch.as_tensor(image.meta["original_affine"]).double().numpy()
    values = label_map.values
    name = str(image.meta.get("source_files", "the image")).splitlines()[0]
    check_same_grid(
        Grid(label_map.name, values.shape, label_map.affine),
        Grid(name, shape, own),
        "with nearest-neighbour interpolation for the label map",
    )
    tensor = torch.from_numpy(values.astype("int32"))[None]
    return label_to_regions(
        MetaTensor(tensor, affine=torch.from_numpy(own), meta={"source_files": label_map.name}), regions
    )
