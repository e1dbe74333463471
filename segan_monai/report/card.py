# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Model card of a bundle: the fields of the model zoo and the topics of CLAIM 2024, from the files of its runs.

The topics are in our words; ``segan_monai.report.claim`` has the numbers of the items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segan_monai.data import read_split
from segan_monai.errors import ConfigError, DataError
from segan_monai.json_files import read_json_object
from segan_monai.member_weights import given_weights, weight_files
from segan_monai.report.claim import OF_RESULTS, items_of

BLANK = "**to be filled in**"

Fields = Mapping[str, Any]


def model_card(bundle: Path, training: Path | None = None, evaluation: Path | None = None) -> str:
    """Return a model card in Markdown. What no file says is marked by ``BLANK``.

    Args:
        bundle: folder of the bundle, with ``configs/metadata.json``.
        training: folder with ``model.json``, ``split.json`` and ``run.json``, as far as they exist. Of an ensemble
            (``fold_0``, ``fold_1`` and so on), settings and split are those of the first network.
        evaluation: output folder of an evaluation, with ``summary.json``.

    Raises:
        ConfigError: The evaluation is of another bundle.
        DataError: The bundle has no metadata, or a file is damaged.
    """
    if not (bundle / "configs" / "metadata.json").is_file():
        raise DataError(f"{bundle} has no configs/metadata.json; expected the folder of a bundle.")
    about = read_json_object(bundle / "configs" / "metadata.json")
    files = [] if training is None else weight_files(None, training)
    first = files[0].parent if files else None
    run, model = _record(training, "run.json"), _record(first, "model.json")
    split = read_split(first / "split.json") if first and (first / "split.json").is_file() else {}
    summary, evaluated = _record(evaluation, "summary.json"), _record(evaluation, "run.json")
    if evaluation is not None and not summary:
        raise DataError(f"{evaluation} has no summary.json; expected the output folder of an evaluation.")
    if (other := evaluated.get("bundle")) and other != bundle.resolve().name:
        raise ConfigError(
            f"--evaluation: {evaluation} has the results of the bundle {other}; expected those of "
            f"{bundle.resolve().name}."
        )
    sections = {
        "Model": _model(about),
        "Study": _study(),
        "Data": _data(about, run, model, split),
        "Reference standard": _reference(about),
        "Partitions": _partitions(split),
        "Network": _network(about, model, run, _record(training, "run_before_resume_1.json") or run),
        "Training": _training(run, split, _ensemble(_members(training, evaluated), model)),
        "Evaluation": _evaluation(summary, evaluated, _record(evaluation, "calibration.json")),
        "Discussion": _discussion(about),
        "Other information": _other(about, bundle / "docs" / "data_license.txt"),
    }
    lines = [f"# Model card: {about.get('name', bundle.name)}", ""]
    blanks = sum(_text(value) == BLANK for fields in sections.values() for value in fields.values())
    count = sum(map(len, sections.values()))
    lines += [
        "Fields of MONAI's model zoo and topics of CLAIM 2024 (Tejani et al. 2024, doi:10.1148/ryai.240300), with the "
        f"numbers of its items. {count - blanks} of {count} fields follow from the files of the bundle and its runs; "
        f"{blanks} are {BLANK}.",
        "",
    ]
    if first and len(files) > 1:
        lines += [f"Settings and partitions are those of {first.name}, the first of {len(files)} networks.", ""]
    for title, fields in sections.items():
        lines += [f"## {title}", "", "| field | value | item |", "|---|---|---|"]
        lines += [f"| {name} | {_text(value)} | {items_of(title, name)} |" for name, value in fields.items()]
        lines.append("")
    return "\n".join([*lines, *_results(summary)])


def _record(folder: Path | None, name: str) -> dict[str, Any]:
    return read_json_object(folder / name) if folder is not None and (folder / name).is_file() else {}


def _text(value: Any) -> str:
    """Return a value as the text of a table cell; ``BLANK`` for nothing."""
    if value in (None, "", [], {}):
        return BLANK
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {_json(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return " ".join(str(value).split()).replace("|", "\\|")


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _model(about: Fields) -> Fields:
    return {
        "name": about.get("name"),
        "version": about.get("version"),
        "category of AI": "deep learning",
        "task": about.get("task"),
        "summary": about.get("description"),
        "intended use and clinical role": about.get("intended_use"),
        "authors": about.get("authors"),
        "copyright": about.get("copyright"),
    }


def _study() -> Fields:
    names = ("scientific and clinical background", "objectives and hypotheses", "prospective or retrospective", "goal")
    return dict.fromkeys(names)


def _data(about: Fields, run: Fields, model: Fields, split: Fields) -> Fields:
    settings = model.get("settings", {})
    return {
        "sources": about.get("data_source"),
        "simulated": {True: "yes", False: "no"}.get(run.get("simulated")),  # type: ignore[arg-type]
        "inclusion and exclusion criteria": None,
        "images": about.get("image_classes"),
        "preprocessing": model.get("preprocessing"),
        "modalities": settings.get("modalities"),
        "selection of data subsets": None if split.get("max_cases") is None else f"{split['max_cases']} cases",
        "de-identification": None,
        "missing data": None,
        "acquisition: scanners and protocols": None,
        "demographic and clinical characteristics": None,
    }


def _reference(about: Fields) -> Fields:
    return {
        "labels": about.get("label_classes"),
        "definition and rationale": None,
        "annotators and their qualification": None,
        "annotation tools": None,
        "variability within and between annotators": None,
    }


def _partitions(split: Fields) -> Fields:
    counts = {part: len(split[part]) for part in ("training", "validation") if part in split}
    fold = None
    if split.get("fold") is not None:
        fold = f"fold {split['fold']} of {split.get('folds')} is held out, drawn with seed {split.get('seed')}"
    return {
        "cases": counts,
        "sample size and its reason": None,
        "assignment": fold,
        "level at which partitions are disjoint": _disjoint(split) if split else None,
    }


def _disjoint(split: Fields) -> str:
    """Return what no two parts of a split share, as far as the split says it."""
    training, held_out = (set(split.get(part, ())) for part in ("training", "validation"))
    if split.get("split_by") == "patch":
        return "patches; patients are shared"
    if training & held_out:
        return "none: parts share cases"
    subjects = split.get("subjects")
    if not subjects:
        return "cases (the data name no patients)"
    patients = [{subjects.get(case, case) for case in part} for part in (training, held_out)]
    return "cases; patients are shared" if patients[0] & patients[1] else "patients"


def _network(about: Fields, model: Fields, run: Fields, first_run: Fields) -> Fields:
    settings = {name: value for name, value in model.get("settings", {}).items() if name != "modalities"}
    return {
        "architecture": model.get("network"),
        "settings": settings,
        "output": about.get("pred_classes"),
        "software": model.get("versions") or run.get("versions") or about.get("required_packages_version"),
        "initial weights": _initial_weights(_config_of_training(first_run)),
    }


def _config_of_training(run: Fields) -> Fields:
    config = run.get("config", {})
    return config if "epochs" in config else {}


def _initial_weights(config: Fields) -> str | None:
    """Return from which weights a training began; None if its config does not say it."""
    # a viewer sets the epochs by an expression, and loads the weights that it serves
    if not isinstance(config.get("epochs"), int) or "load_" in json.dumps(config):
        return None
    files = [
        f"{key} {config[key]}"
        for key in ("initial_weights", "localizer_weights", "segmentor_weights")
        if config.get(key)
    ]
    return ", ".join([*files, f"{'else ' if files else ''}random, seed {config.get('seed')}"])


def _selection(config: Fields, split: Fields) -> str | None:
    """Return how a training chose the weights among those of its epochs; None if its files do not say it."""
    interval, cases = config.get("val_interval"), len(split.get("validation", ()))
    metrics = list(config.get("validate", {}).get("key_metric", {}))
    if not isinstance(interval, int) or not cases or len(metrics) != 1:
        return None
    averaged = f", of the averaged weights (decay {config['ema_decay']})" if config.get("ema_decay") else ""
    return (
        f"highest {metrics[0]} of the {cases} validation cases, measured every {interval} epochs and after the last"
        f"{averaged}"
    )


def _members(training: Path | None, evaluated: Fields) -> int:
    """Return how many networks the evaluation averaged, or else lie in the folder of the weights; 0 if unknown."""
    weights = evaluated.get("config", {}).get("weights")
    if weights is not None:
        return len(given_weights(weights))
    return sum(file.is_file() for file in weight_files(None, training)) if training is not None else 0


def _ensemble(members: int, model: Fields) -> str | None:
    """Return how the networks are combined, see ``combine_members``."""
    if members < 2:
        return "none: one network" if members else None
    if model.get("network") == "LSNet":
        return f"RoIs of {members} networks, each segmented by the mean of all, merged by their maximum"
    return f"mean probability of {members} networks"


def _training(run: Fields, split: Fields, ensemble: str | None) -> Fields:
    config = _config_of_training(run)
    plain = {
        name: config[name]
        for name in ("epochs", "batch_size", "learning_rate", "seed")
        if isinstance(config.get(name), int | float)
    }
    return {
        "hyperparameters": plain,
        "command": f"`{run['command']}`" if run.get("command") and config else None,
        "hardware": run.get("hardware") if config else None,
        "selection of the final model": _selection(config, split),
        "ensemble": ensemble,
    }


def _evaluation(summary: Fields, evaluated: Fields, calibration: Fields) -> Fields:
    failures = {name: found.get("failures") for name, found in summary.get("regions", {}).items()}
    return {
        "cases": summary.get("cases"),
        "subset": evaluated.get("config", {}).get("subset"),
        "metrics": "Dice, IoU, precision, sensitivity, HD95, ASSD; see Results" if summary else None,
        "uncertainty and significance": None,
        "calibration": calibration,
        "robustness": None,
        "explainability": "none; the report shows the outlines on the images" if summary else None,
        "validation on external data": None,
        "failures per region": failures,
        "rule for empty masks": summary.get("empty_mask_rule"),
    }


def _discussion(about: Fields) -> Fields:
    return {
        "limitations and known biases": None,
        "implications for practice": None,
        "references": about.get("references"),
    }


def _other(about: Fields, data_license: Path) -> Fields:
    weights = about.get("weights_license")
    return {
        "registration and protocol": None,
        "code and weights": None,
        "licence of the data": data_license.read_text(encoding="utf-8") if data_license.is_file() else None,
        **({"licence of the weights": weights} if weights else {}),
        "funding": None,
        "changes": about.get("changelog"),
    }


def _results(summary: Fields) -> Sequence[str]:
    """Return a table of the means of each region."""
    regions = summary.get("regions", {})
    title = [f"## Results (items {', '.join(map(str, OF_RESULTS))})", ""]
    if not regions:
        return [*title, BLANK, ""]
    names = {"dice": "Dice", "iou": "IoU", "precision": "precision", "sensitivity": "sensitivity"}
    lines = [*title, "Mean ± standard deviation over the cases; HD95 is a median in mm.", ""]
    lines += [f"| region | cases | {' | '.join(names.values())} | HD95 |", "|---" * (len(names) + 3) + "|"]
    for region, found in regions.items():
        cells = [_mean(found[name]) for name in names]
        hd95 = found["hd95_mm"]
        unknown = "inf" if 2 * hd95.get("infinite", 0) >= found["cases"] else ""  # or the spacing is unknown
        cells.append(unknown if hd95["median"] is None else f"{hd95['median']:.2f}")
        lines.append(f"| {region} | {found['cases']} | {' | '.join(cells)} |")
    return [*lines, ""]


def _mean(of_metric: Fields) -> str:
    deviation = of_metric["standard_deviation"]
    return f"{of_metric['mean']:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")
