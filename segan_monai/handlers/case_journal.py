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

import ignite.distributed as idist
from ignite.engine import Engine, Events

from segan_monai.data.case_cache import digest
from segan_monai.files import whole_file, writing
from segan_monai.processes import broadcast_from_rank0, gather_objects, meet_processes, process_rank

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

    Of several processes that `torchrun` starts, each gets a share of what is left to do and writes a journal of its own
    (``inference_1.jsonl``...), so that no two of them write to one file; the next start reads them all, however many
    processes it has.

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
        number = process_rank()
        self.journal = self.output_dir / (f"inference_{number}.jsonl" if number else "inference.jsonl")
        self.cases: list[str] = []
        self.keys: dict[str, str] = {}
        self.earlier: dict[str, dict[str, Any]] = {}
        self.lines: dict[str, dict[str, Any]] = {}
        self.current = ""
        self.started = 0.0

    def unfinished(self, cases: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The cases that are left to do, in their order; of several processes, the share of this one."""
        meet_processes()
        self.cases = [case["case"] for case in cases]
        if idist.get_rank() == 0:
            common = self._key_of_run()
            self.keys = {case["case"]: digest([common, _files_of(case)]) for case in cases}
            self.earlier = self._read()
            finished = {} if self.repeat_finished else self.earlier
            self.lines = {case: line for case, line in finished.items() if self._is_finished(case, line)}
        # the others may look when the first one has begun
        self.keys, self.earlier, self.lines = broadcast_from_rank0((self.keys, self.earlier, self.lines))
        if self.journal.is_file() and self.journal.read_bytes()[-1:] not in (b"", b"\n"):
            with writing(self.journal), self.journal.open("a", encoding="utf-8") as stream:
                stream.write("\n")  # the last line was cut off; the next one is a line of its own
        left = [case for case in cases if case["case"] not in self.lines]
        if self.lines:
            logger.info(
                "%d of %d cases are finished already, %d to do (--repeat_finished true does all of them again)",
                len(cases) - len(left),
                len(cases),
                len(left),
            )
        self.write_summary()
        return left[idist.get_rank() :: idist.get_world_size()]

    def attach(self, engine: Engine) -> None:
        """Register with a `CaseEvaluator`, after all other handlers that write results."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.name)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.record)
        engine.add_event_handler(Events.COMPLETED, self.finish)
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
            "ended": time.time(),
        }
        if error:
            for file in self.earlier.get(case, {}).get("files", ()):
                logger.warning("%s, of an earlier run, is removed", self.output_dir / file)
                (self.output_dir / file).unlink(missing_ok=True)
        self.lines[case] = line
        with writing(self.journal), self.journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def finish(self) -> None:
        """Write ``inference.json`` when all processes have ended their shares."""
        for lines in gather_objects(self.lines):
            newer = {case: line for case, line in lines.items() if _ended(line) >= _ended(self.lines.get(case, {}))}
            self.lines |= newer
        self.write_summary()

    def write_summary(self) -> None:
        """Write ``inference.json``; of several processes, the first one does."""
        if idist.get_rank() > 0:
            return
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
        return digest([settings, weights])

    def _read(self) -> dict[str, dict[str, Any]]:
        """The last line of each case; a line that was cut off when the run was killed counts for nothing."""
        lines = []
        for file in sorted(self.output_dir.glob("inference*.jsonl")):
            for text in file.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(json.loads(text))
                except ValueError:
                    continue
        return {line["case"]: line for line in sorted(lines, key=_ended)}

    def _is_finished(self, case: str, line: Mapping[str, Any]) -> bool:
        same = line["status"] == "finished" and line["key"] == self.keys.get(case)
        return same and all((self.output_dir / file).is_file() for file in line["files"])


def _ended(line: Mapping[str, Any]) -> float:
    """When a case ended; 0 in journals of versions that did not say so."""
    return line.get("ended", 0.0)


def _files_of(case: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a case's images."""
    images = case["image"]
    paths = [Path(file) for file in ([images] if isinstance(images, str | os.PathLike) else images)]
    stats = [(path, path.stat()) for path in paths if path.exists()]
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
