# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Trial of a run: builds its components, runs one step and measures time and memory, without leaving files."""

from __future__ import annotations

import copy
import os
import shutil
import socket
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser, ReferenceResolver, verify_net_in_out
from monai.data import CacheDataset
from torch.utils.data import DataLoader

from segan_monai.check.expressions import names_any_of
from segan_monai.check.report import Report
from segan_monai.errors import user_error_in
from segan_monai.typed import JSON_LITERALS

GROUP_FUNCTIONS = ("init_process_group_for", "join_processes", "init_process_group")
_OF_RUN = ("regions", "modalities")  # keys of a run that change the network's channels
_ANY_LENGTH = 64  # replaces * in the spatial shape of the metadata


def trial_parser(parser: ConfigParser, output_dir: str, run_folder: Path | None = None) -> ConfigParser:
    """Return a copy of a config with a temporary output folder, no caches and no worker processes.

    Only the split is resumed, from a copy of the run's ``split.json``; initial weights of a resumed run are not read.

    Args:
        parser: the parsed config.
        output_dir: temporary folder.
        run_folder: output folder of the run itself.
    """
    config: dict[str, Any] = copy.deepcopy(parser.get())
    changed = {"output_dir": output_dir, "num_workers": 0, "resume": False}
    config.update({key: value for key, value in changed.items() if key in config})
    _cache_nothing(config)
    resumes = JSON_LITERALS.get(str(parser.get("resume")), parser.get("resume"))
    if resumes and run_folder and (run_folder / "split.json").is_file() and "resume" in config.get("split", ()):
        shutil.copy(run_folder / "split.json", output_dir)
        config["split"]["resume"] = True
    if resumes and "initial_weights" in config:  # the checkpoint has the weights
        config["initial_weights"] = None
    trial = ConfigParser(config)
    trial.parse()
    return trial


def _cache_nothing(config: Any) -> None:
    if isinstance(config, dict) and str(config.get("_target_")).endswith("CacheDataset"):
        config["cache_rate"] = 0.0
        config.pop("cache_dir", None)
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        _cache_nothing(value)


def initialize(parser: ConfigParser, init_id: str, report: Report) -> bool:
    """Evaluate the items of ``initialize`` except ``start_run``; return whether this succeeded."""
    if init_id not in parser:
        return True
    content = parser[init_id]
    ids = [f"{init_id}::{index}" for index in range(len(content))] if isinstance(content, list) else [init_id]
    for name in ids:
        if not names_any_of(parser[name], ("start_run",)) and not built(parser, name, "initialize", report)[0]:
            return False
    return True


def built(parser: ConfigParser, name: str, rule: str, report: Report) -> tuple[bool, Any]:
    """Resolve an id; return whether this succeeded, and the object. Each error is reported once."""
    try:
        with redirect_stdout(StringIO()):
            return True, parser.get_parsed_content(name)
    except Exception as error:  # classes in a config may raise anything
        message = explained(error, name)
        if all(finding.message != message for finding in report.findings):
            report.error(rule, name, message)
            report.raised.append(error)
        return False, None


def explained(error: BaseException, name: str, otherwise: str = "cannot be built") -> str:
    """Return the message of the user error in an exception chain, else the root cause and the failed component."""
    if user_error := user_error_in(error):
        return str(user_error)
    steps = []
    cause: BaseException | None = error
    while cause is not None:
        steps.append(cause)
        cause = cause.__cause__ or cause.__context__
    first = " ".join(str(steps[-1]).split())
    component = next((str(e).split("\n")[0] for e in steps if "instantiate" in str(e) or "evaluate" in str(e)), "")
    return f"{name.replace('::', '#')}: {component or otherwise} ({type(steps[-1]).__name__}: {first[:400]})"


def check_device(parser: ConfigParser, report: Report) -> bool:
    """Return whether the config's device is available; if not, report an error."""
    ok, device = built(parser, "device", "device", report) if "device" in parser else (True, "cpu")
    if not ok:
        return False
    try:
        device = torch.device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        available = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        reason = str(error).splitlines()[0]
        report.error("device", "device", f"--device {device} cannot be used ({reason}). This machine has {available}.")
        return False
    report.note("device", f"{device}{f', {torch.cuda.get_device_name(device)}' if device.type == 'cuda' else ''}")
    return True


def check_network(parser: ConfigParser, report: Report, overrides: Collection[str] = ()) -> bool:
    """Compare the network's input and output with the metadata, by MONAI's ``verify_net_in_out`` on the CPU.

    The metadata describe the bundle as it is shared. A run with other regions or modalities may differ from them.

    Returns:
        False if the config defines a network that cannot be built.
    """
    if "network_def" not in parser:
        return True
    if not built(parser, "network_def", "network", report)[0]:
        return False
    config: Any = copy.deepcopy(parser.get())
    metadata = config.pop("_meta_", None)
    if not metadata:
        report.note("network", "built; no metadata to compare it with")
        return True
    report.note("network", "input and output match the metadata")
    try:
        verify_net_in_out(
            net_id="network_def", meta_file=metadata, config_file=config, device="cpu", any=_ANY_LENGTH, n=4, p=5
        )
    except Exception as error:  # from the network or MONAI's comparison
        if chosen := [f"--{name}" for name in _OF_RUN if name in overrides]:
            report.note("network", f"built; {' and '.join(chosen)}: not as in the metadata of the bundle")
            return True
        report.warning(
            "network",
            "network_def",
            f"the metadata describe another network: {explained(error, 'network_def', 'does not match')}. Harmless for "
            "this run; correct network_data_format in metadata.json before you share the bundle.",
        )
    return True


def check_step(parser: ConfigParser, run_id: str, report: Report) -> None:
    """Build the run's engine and run one iteration: a training step with all phases, or one case."""
    names = list(ReferenceResolver.find_refs_in_config(parser[run_id], run_id))
    expressions = [name for name in names if name in parser and isinstance(parser[name], str)]
    for name in expressions:
        names += ReferenceResolver.match_refs_pattern(parser[name])
    for name in dict.fromkeys(names):
        if name in expressions:
            continue
        ok, engine = built(parser, name, "step", report)
        if not ok:
            return
        if isinstance(engine, Engine):
            _step(parser, engine, report)


def _step(parser: ConfigParser, engine: Any, report: Report) -> None:
    device = torch.device(engine.state.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    try:
        batch = next(iter(engine.data_loader))
        loaded = time.perf_counter()
        engine.state.batch = batch
        # the last epoch, in which all networks take part
        engine.state.epoch = engine.state.iteration = engine.state.max_epochs or 1
        engine.state.dataloader, engine.state.epoch_length = engine.data_loader, 1
        engine._iteration(engine, batch)
        if hasattr(engine, "losses"):
            engine.losses.look()  # on a GPU, a trainer reads losses only every few iterations
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        total = torch.cuda.get_device_properties(device).total_memory / 2**30
        report.error(
            "step",
            "device",
            f"one step needs more than the {total:.1f} GiB of {device}. Lower --batch_size or --slice_batch_size, or "
            "the size of slices or windows; --amp true halves the memory of activations.",
        )
        return
    except Exception as error:  # from transforms, networks or losses
        report.error("step", "run", explained(error, "one step", "fails"))
        return
    measured: dict[str, Any] = {
        "device": str(device),
        "load_seconds": round(loaded - start, 3),
        "step_seconds": round(time.perf_counter() - loaded, 3),
        "resident_peak_gib": round(resident_peak() / 2**30, 3),
    }
    text = f"{measured['step_seconds']:.2f} s on {device}, peak resident memory {measured['resident_peak_gib']:.2f} GiB"
    if device.type == "cuda":
        measured["device_peak_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
        measured["device_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 3)
        text += f", device {measured['device_peak_gib']:.2f} of {measured['device_gib']:.0f} GiB"
    report.measured["step"] = measured
    report.note("step", text)
    _estimate_cache(parser, engine, report)


def _estimate_cache(parser: ConfigParser, engine: Any, report: Report) -> None:
    """Estimate the memory of a cache of all cases from the first of them."""
    dataset = engine.data_loader.dataset if isinstance(engine.data_loader, DataLoader) else None
    rate = parser.get("cache_rate", 1.0)
    if not isinstance(dataset, CacheDataset) or not isinstance(rate, int | float) or not len(dataset):
        return
    cached = sum(_bytes(dataset._load_cache_item(index)) for index in range(min(3, len(dataset)))) / min(
        3, len(dataset)
    )
    total = cached * len(dataset) * rate
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    report.measured["cache_gib"] = round(total / 2**30, 4)
    if parser.get("cache_dir"):
        report.note("cache", f"about {_size(cached * len(dataset))} of files in cache_dir")
        return
    report.note("cache", f"about {_size(total)} for {len(dataset)} training cases at cache_rate {rate:g}")
    if total > memory:
        report.warning(
            "cache",
            "cache_rate",
            f"a cache of all cases needs about {total / 2**30:.0f} GiB, and this machine has {memory / 2**30:.0f}. Set "
            f"--cache_rate {0.7 * memory / total * rate:.2f} or less.",
        )


def _bytes(item: Any) -> int:
    if isinstance(item, torch.Tensor):
        return item.numel() * item.element_size()
    values = item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else ()
    return sum(_bytes(value) for value in values)


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def resident_peak() -> int:
    """Return the peak resident memory of this process in bytes."""
    import resource  # missing on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def as_single_process(expressions: Iterable[Any]) -> Iterator[None]:
    """Emulate ``torchrun`` with one process, if an expression initializes a process group."""
    if not any(names_any_of(text, GROUP_FUNCTIONS) for text in expressions) or "RANK" in os.environ:
        yield
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(alone)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name in alone:
            os.environ.pop(name, None)
