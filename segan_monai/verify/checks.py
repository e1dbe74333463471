# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Registry and runner of the checks of a bundle."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_monai.errors import ConfigError, UserError
from segan_monai.verify.exports import check_export, check_runner
from segan_monai.verify.files import (
    check_document,
    check_files,
    check_labels,
    check_metadata,
    check_network,
    check_weights,
)
from segan_monai.verify.runs import check_evaluation, check_inference, check_resuming, check_training
from segan_monai.verify.trial import SMALL, CheckFailedError, SkippedError, Trial

__all__ = ["CHECKS", "SMALL", "Check", "CheckFailedError", "SkippedError", "Trial", "format_checks", "run_checks"]


@dataclass(frozen=True)
class Check:
    """Outcome of one check: ``ok``, ``FAILED`` or ``skipped``, with the observed detail and the duration."""

    name: str
    result: str
    detail: str
    seconds: float


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
    """Run the checks on small networks; after a failed check, the remaining ones still run.

    Args:
        bundle: its folder.
        overrides: config keys and values, which replace those of ``SMALL``.
        dataset_dir: labelled data; by default a data set is generated in the decathlon's layout.
        work_dir: receives the files that are generated and written; by default a temporary folder.
        names: names of the checks; by default all ``CHECKS``.

    Yields:
        The result of each check, as soon as it is known.

    Raises:
        ConfigError: the bundle or a check does not exist.
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
    except Exception as error:  # a bundle's components may raise anything
        result, detail = "FAILED", _reason(error)
    return Check(name, result, detail, time.perf_counter() - begun)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress printing and logging of runs, and restore the logging setup and ``sys.excepthook`` afterwards."""
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
    """Return the message of the first user error in the chain, or of the first cause."""
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    last = next((e for e in chain if isinstance(e, UserError | CheckFailedError)), chain[-1])
    text = " ".join(str(last).split())
    return text if isinstance(last, UserError | CheckFailedError) else f"{type(last).__name__}: {text}"


def format_checks(checks: Sequence[Check]) -> str:
    """Return the results as a text table."""
    width = max(len(check.name) for check in checks)
    lines = [f"{'check':{width}}  {'result':7}  {'s':>5}  detail"]
    lines += [f"{c.name:{width}}  {c.result:7}  {c.seconds:5.1f}  {c.detail}" for c in checks]
    return "\n".join(lines)
