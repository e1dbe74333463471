# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Journal of finished cases, so that interrupted inference resumes where it stopped."""

from __future__ import annotations

import csv
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
from monai.utils import ensure_tuple

from segan_monai.data.case_cache import digest
from segan_monai.data.case_digest import image_files
from segan_monai.data.training_images import warn_of_training_images
from segan_monai.files import append_line, cannot_write, sha256_of, whole_file
from segan_monai.handlers.written_files import QUALITY, VOLUMES, written
from segan_monai.json_files import read_json_lines, read_json_object, write_json
from segan_monai.metrics.volumes import region_volumes
from segan_monai.parts import parse_part
from segan_monai.processes import broadcast_from_rank0, gather_objects, meet_processes, process_rank
from segan_monai.quality.file import quality_file

logger = logging.getLogger(__name__)

# config keys for places, resources and permissions, which do not affect the results
_WITHOUT_EFFECT = (
    "allow_other_settings",
    "bundle_root",
    "ckpt_dir",
    "datalist",
    "dataset_dir",
    "device",
    "num_workers",
    "output_dir",
    "part",
    "repeat_finished",
    "weights",
)


class CaseJournal:
    """Records the outcome of each case, and skips finished cases when inference is started again.

    - ``inference.jsonl`` receives one line as soon as a case ends, so a killed run loses no finished case.
    - ``inference.json`` lists the ``status`` (``finished``, ``failed`` or ``not reached``), ``seconds``, ``error`` and
      ``files`` of every case, and counts each status; also ``nearest_domain``, if the output has it (``ScannerCheck``).
    - ``quality.csv`` has the columns ``case,region,expected_dice,lower_bound,flag``, if the output has ``quality``. If
      not, that of an earlier run is removed with its ``report.html``.
    - ``volumes.csv`` has the columns ``case,region,ml``, one row per region of each finished case.

    A warning tells how many of the unfinished cases the weights were trained on. At the end, the names of the files are
    printed.

    A case is finished if its last line says so, its result files exist, and weights, settings, image files and selected
    channels are unchanged. Files of an earlier run that a case no longer has are removed, all of them if it fails. A
    folder therefore never contains results of two models.

    Under ``torchrun``, the remaining cases are divided among the processes, and each writes its own journal
    (``inference_1.jsonl``...). The next start reads all journals, regardless of the number of processes.

    A part of the cases, such as ``2/4``, writes its journal ``inference_part_2_of_4.jsonl`` to the output folder that
    all parts share, and ``inference.json`` and ``volumes.csv`` of its cases to the subfolder ``parts/2_of_4``. A last
    run without ``part`` skips what the parts have finished, and writes these files for all cases.

    Args:
        output_dir: receives these files; contains the ``run.json`` written by ``start_run``.
        weights: file of the network's weights, or one file per member of an ensemble.
        repeat_finished: run finished cases again.
        regions: label values of every region in ``pred`` of the output, a label map (1, H, W, D) with an affine in mm;
            None if volumes are unknown, as for photographs.
        part: part of the cases, such as ``2/4``; None for all.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        repeat_finished: bool = False,
        regions: Mapping[str, Sequence[int]] | None = None,
        part: str | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.part = parse_part(part)
        self.record_dir = self.part.folder(output_dir) if self.part else self.output_dir
        self.weights = [Path(file) for file in ensure_tuple(weights)]
        self.repeat_finished = repeat_finished
        self.regions = regions
        number = process_rank()
        name = f"inference_part_{self.part.name}" if self.part else "inference"
        self.journal = self.output_dir / (f"{name}_{number}.jsonl" if number else f"{name}.jsonl")
        self.cases: list[str] = []
        self.keys: dict[str, str] = {}
        self.earlier: dict[str, dict[str, Any]] = {}
        self.lines: dict[str, dict[str, Any]] = {}
        self.current = ""
        self.started = 0.0

    def unfinished(self, cases: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the unfinished cases of this part and process, in their order."""
        if self.journal.is_dir():
            raise cannot_write(self.journal, "it is a folder")
        meet_processes()
        cases = self.part.of(cases) if self.part else cases
        self.cases = [case["case"] for case in cases]
        if idist.get_rank() == 0:
            common = self._key_of_run()
            self.keys = {case["case"]: digest([common, *_inputs_of(case)]) for case in cases}
            self.earlier = self._read()
            finished = {} if self.repeat_finished else self.earlier
            self.lines = {case: line for case, line in finished.items() if self._is_finished(case, line)}
        # other ranks wait until rank 0 has read the journals
        self.keys, self.earlier, self.lines = broadcast_from_rank0((self.keys, self.earlier, self.lines))
        left = [case for case in cases if case["case"] not in self.lines]
        if self.lines:
            logger.info(
                "%d of %d cases are already finished, %d remaining (--repeat_finished true repeats all cases)",
                len(cases) - len(left),
                len(cases),
                len(left),
            )
        if idist.get_rank() == 0:
            warn_of_training_images(left, self.weights)  # reads the beginning of their files
        self.write_summary()
        return left[idist.get_rank() :: idist.get_world_size()]

    def attach(self, engine: Engine) -> None:
        """Register with a ``CaseEvaluator``, after all other handlers that write results."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self.name)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.record)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self) -> None:
        """Start the timer of a case before it is read."""
        self.started = time.perf_counter()

    def name(self, engine: Engine) -> None:
        """Store the name of the current case, because an error leaves the batch empty."""
        batch: Any = engine.state.batch
        (self.current,) = batch["case"]

    def record(self, engine: Engine) -> None:
        """Append the line of the case that ended."""
        case, error = self.current, engine.failures.get(self.current)
        output: Any = engine.state.output
        files = [] if error else [os.path.relpath(file, self.output_dir) for file in output[0].get("saved_files", ())]
        line = {
            "case": case,
            "status": "failed" if error else "finished",
            "seconds": round(time.perf_counter() - self.started, 3),
            "error": error,
            "files": files,
            "ml": None if error else self._volumes(output[0]["pred"]),
            "quality": None if error else output[0].get("quality"),
            "nearest_domain": None if error else output[0].get("nearest_domain"),
            "key": self.keys.get(case),
            "ended": time.time(),
        }
        for file in sorted({*self.earlier.get(case, {}).get("files", ())} - {*files}):
            logger.warning("removed %s of an earlier run", self.output_dir / file)
            (self.output_dir / file).unlink(missing_ok=True)
        self.lines[case] = line
        append_line(self.journal, json.dumps(line))

    def finish(self) -> None:
        """Gather the results of all processes and write ``inference.json``."""
        for lines in gather_objects(self.lines):
            newer = {case: line for case, line in lines.items() if _ended(line) >= _ended(self.lines.get(case, {}))}
            self.lines |= newer
        self.write_summary()
        if idist.get_rank() == 0:
            reached = [self.lines[case] for case in self.cases if case in self.lines]
            print("\n".join(written(self.output_dir, reached, self.record_dir)))

    def _volumes(self, label_map: Any) -> dict[str, float] | None:
        if self.regions is None:
            return None
        values, affine = label_map[0].cpu().numpy(), label_map.affine.cpu().numpy()
        return {name: round(ml, 6) for name, ml in region_volumes(values, affine, self.regions).items()}

    def write_summary(self) -> None:
        """Write ``inference.json`` and ``volumes.csv`` on rank 0."""
        if idist.get_rank() > 0:
            return
        not_reached: dict[str, Any] = {"status": "not reached", "seconds": None, "error": None, "files": []}
        cases = {case: {key: self.lines.get(case, not_reached)[key] for key in not_reached} for case in self.cases}
        for case, shown in cases.items():
            if found := self.lines.get(case, {}).get("nearest_domain"):
                shown["nearest_domain"] = found
        counts = Counter(line["status"] for line in cases.values())
        content = {
            "weights": str(self.weights[0]) if len(self.weights) == 1 else list(map(str, self.weights)),
            "counts": {status: counts[status] for status in ("finished", "failed", "not reached")},
            "cases": cases,
        }
        self.record_dir.mkdir(parents=True, exist_ok=True)
        write_json(self.record_dir / "inference.json", content)
        lines = [self.lines[case] for case in self.cases if case in self.lines]
        qualities = [
            (line["case"], region, *found.values())
            for line in lines
            for region, found in (line.get("quality") or {}).items()
        ]
        if qualities:
            self._write_table(QUALITY, ("case", "region", "expected_dice", "lower_bound", "flag"), qualities)
        elif (self.record_dir / QUALITY).is_file():  # of an earlier run; its report shows the table
            (self.record_dir / QUALITY).unlink()
            (self.record_dir / "report.html").unlink(missing_ok=True)
        if self.regions is not None:
            rows = [(line["case"], *volume) for line in lines for volume in (line.get("ml") or {}).items()]
            self._write_table(VOLUMES, ("case", "region", "ml"), rows)

    def _write_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        with whole_file(self.record_dir / name) as file, file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([columns, *rows])

    def fail(self, engine: Engine, error: BaseException) -> None:
        """Write the summary of the cases so far and re-raise the error."""
        self.write_summary()
        raise error

    def _key_of_run(self) -> str:
        """Return a digest of settings and weights, on which the results depend besides the images."""
        record = self.record_dir / "run.json"
        config = read_json_object(record, "Delete it.").get("config", {}) if record.is_file() else {}
        settings = {key: value for key, value in config.items() if key not in _WITHOUT_EFFECT}
        members = [sha256_of(file) for file in self.weights]
        parts = [settings, members[0] if len(members) == 1 else members]
        models = [sha256_of(file) for file in map(quality_file, self.weights) if file.is_file()]
        if models:  # results have estimates by them
            parts.append(models[0] if len(members) == 1 else models)
        return digest(parts)

    def _read(self) -> dict[str, dict[str, Any]]:
        """Read the last line of each case. Damaged lines are ignored, so their cases are run again."""
        files = sorted(self.output_dir.glob("inference*.jsonl"))
        lines = [line for file in files for line in read_json_lines(file) if _is_line(line)]
        return {line["case"]: line for line in sorted(lines, key=_ended)}

    def _is_finished(self, case: str, line: Mapping[str, Any]) -> bool:
        same = line["status"] == "finished" and line["key"] == self.keys.get(case)
        return same and all((self.output_dir / file).is_file() for file in line["files"])


def _is_line(line: Any) -> bool:
    """Return whether a value is a line written by ``CaseJournal.record``."""
    match line:
        case {"case": str(), "status": str(), "files": [*files], "key": str() | None}:
            complete = line.keys() >= {"seconds", "error"} and all(isinstance(file, str) for file in files)
            return complete and isinstance(_ended(line), int | float)
    return False


def _ended(line: Mapping[str, Any]) -> float:
    """Return the time at which a case ended; 0 in journals of earlier versions, which lack it."""
    return line.get("ended", 0.0)


def _inputs_of(case: Mapping[str, Any]) -> list[Any]:
    """Return name, size and modification time of the files of a case's images, and the channels if it selects some."""
    images = case["image"]
    paths = [Path(file) for file in ([images] if isinstance(images, str | os.PathLike) else images)]
    stats = [(file, file.stat()) for path in paths if path.exists() for file in image_files(path)]
    files = [(file.name, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
    # without channels, the key is that of earlier versions, whose journals stay valid
    return [files] if case.get("channels") is None else [files, case["channels"]]
