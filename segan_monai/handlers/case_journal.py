# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""What became of each case of an inference, so that a second start does only what is left to do."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from segan_monai.files import whole_file, writing

logger = logging.getLogger(__name__)

# keys of a config that say where things are or how to get there, not what comes out
_WITHOUT_EFFECT = (
    "bundle_root",
    "ckpt_dir",
    "datalist",
    "dataset_dir",
    "device",
    "num_workers",
    "output_dir",
    "repeat_finished",
)


class CaseJournal:
    """Keeps a line for each case that was run, and knows from it which are finished.

    ``inference.jsonl`` gets a line as soon as a case has ended, so a run that is killed loses none. A case is finished
    if its last line says so, its result files are there, and weights, settings and image files are still the same: a
    folder never holds the results of two models unnoticed. Results of an earlier run are removed when a case fails now.

    ``inference.json`` says of every case of the run its ``status`` (``finished``, ``failed`` or ``not reached``),
    ``seconds``, ``error`` and ``files``, and counts them.

    Args:
        output_dir: gets both files; holds the ``run.json`` that `start_run` wrote.
        weights: file of the network's weights.
        repeat_finished: run finished cases again.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        weights: str | os.PathLike[str],
        repeat_finished: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.weights = Path(weights)
        self.repeat_finished = repeat_finished
        self.journal = self.output_dir / "inference.jsonl"
        self.cases: list[str] = []
        self.keys: dict[str, str] = {}
        self.earlier: dict[str, dict[str, Any]] = {}
        self.lines: dict[str, dict[str, Any]] = {}
        self.current = ""
        self.started = 0.0

    def unfinished(self, cases: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The cases that are left to do, in their order."""
        self.cases = [case["case"] for case in cases]
        common = self._key_of_run()
        self.keys = {case["case"]: _digest(common, _files_of(case)) for case in cases}
        self.earlier = self._read()
        finished = {} if self.repeat_finished else self.earlier
        self.lines = {case: line for case, line in finished.items() if self._is_finished(case, line)}
        left = [case for case in cases if case["case"] not in self.lines]
        if self.lines:
            logger.info(
                "%d of %d cases are finished already, %d to do (--repeat_finished true does all of them again)",
                len(cases) - len(left),
                len(cases),
                len(left),
            )
        self.write_summary()
        return left

    def attach(self, engine: Engine) -> None:
        """Register with a `CaseEvaluator`, after all other handlers that write results."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.name)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.record)
        engine.add_event_handler(Events.COMPLETED, self.write_summary)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self) -> None:
        """Begin to measure the time of a case, from its reading on."""
        self.started = time.perf_counter()

    def name(self, engine: Engine) -> None:
        """Remember the case, whose batch an error leaves empty."""
        batch: Any = engine.state.batch
        (self.current,) = batch["case"]

    def record(self, engine: Engine) -> None:
        """Add the line of the case that ended."""
        case, error = self.current, engine.failures.get(self.current)
        output: Any = engine.state.output
        files = [] if error else [os.path.relpath(file, self.output_dir) for file in output[0].get("saved_files", ())]
        line = {
            "case": case,
            "status": "failed" if error else "finished",
            "seconds": round(time.perf_counter() - self.started, 3),
            "error": error,
            "files": files,
            "key": self.keys.get(case),
        }
        if error:
            for file in self.earlier.get(case, {}).get("files", ()):
                logger.warning("%s, of an earlier run, is removed", self.output_dir / file)
                (self.output_dir / file).unlink(missing_ok=True)
        self.lines[case] = line
        with writing(self.journal), self.journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def write_summary(self) -> None:
        """Write ``inference.json``."""
        not_reached: dict[str, Any] = {"status": "not reached", "seconds": None, "error": None, "files": []}
        cases = {case: {key: self.lines.get(case, not_reached)[key] for key in not_reached} for case in self.cases}
        counts = Counter(line["status"] for line in cases.values())
        content = {
            "weights": str(self.weights),
            "counts": {status: counts[status] for status in ("finished", "failed", "not reached")},
            "cases": cases,
        }
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with whole_file(self.output_dir / "inference.json") as file:
            file.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")

    def fail(self, engine: Engine, error: BaseException) -> None:
        """Say what was reached, and let the error through."""
        self.write_summary()
        raise error

    def _key_of_run(self) -> str:
        """What the results depend on, beside the images."""
        record = self.output_dir / "run.json"
        config = json.loads(record.read_text(encoding="utf-8"))["config"] if record.is_file() else {}
        settings = {key: value for key, value in config.items() if key not in _WITHOUT_EFFECT}
        weights = hashlib.sha256(self.weights.read_bytes()).hexdigest() if self.weights.is_file() else None
        return _digest(settings, weights)

    def _read(self) -> dict[str, dict[str, Any]]:
        """The last line of each case; a line that was cut off when the run was killed counts for nothing."""
        if not self.journal.is_file():
            return {}
        found = {}
        for text in self.journal.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            found[line["case"]] = line
        return found

    def _is_finished(self, case: str, line: Mapping[str, Any]) -> bool:
        same = line["status"] == "finished" and line["key"] == self.keys.get(case)
        return same and all((self.output_dir / file).is_file() for file in line["files"])


def _files_of(case: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a case's images."""
    images = case["image"]
    paths = [Path(file) for file in ([images] if isinstance(images, str | os.PathLike) else images)]
    stats = [(path, path.stat()) for path in paths if path.exists()]
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
