# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Prepared cases on disk: what a preprocessing made of a case, as long as neither of them changes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import monai
import numpy as np
import torch
from monai.transforms.utils import reset_ops_id
from monai.utils import enums

from segan_monai._version import __version__
from segan_monai.files import writing

logger = logging.getLogger(__name__)

# What stands in metadata: arrays and numbers, which numpy pickles with functions whose names differ by version, and
# MONAI's names of things. To make them calls nothing.
_OF_NUMPY = [np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0], np.ndarray, np.dtype]
_OF_NUMPY += [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]
_OF_MONAI = [kind for kind in vars(enums).values() if isinstance(kind, type) and issubclass(kind, Enum)]
_READING = threading.Lock()
_ABANDONED_SECONDS = 24 * 3600  # a file that a killed process left half written
_LIBRARIES = ("monai", "torch", "numpy")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class CaseCache:
    """Keeps prepared cases as files, and gives them back mapped into memory: bit for bit what was prepared.

    A file is read when its voxels are used, and its pages are the kernel's: shared by all processes, and given up when
    memory is needed for something else. Tensors are kept in the type and the order in memory that they have.

    A case is prepared again if its dictionary or one of its files (path, size, time of change) has changed, if a
    transform or one of its settings has, or the source file of one that is not MONAI's, or the version of this package,
    MONAI or torch. Its file of before, of the same preprocessing, is removed. Files are written whole or not
    at all, so that several processes may use one folder. One that cannot be read is made again, with a warning; its
    voxels are not compared with a checksum, which would read all of them.

    Each preprocessing has a folder of its own, with ``preprocessing.json``, which says what it is. Any of them may be
    deleted while nothing runs.

    MONAI's `PersistentDataset` knows a case by its paths alone, stops at a truncated file and reads files as a whole.

    Args:
        folder: for the files; made if need be.
        preparation: everything that the result depends on beside the case: transforms and settings.
    """

    def __init__(self, folder: str | os.PathLike[str], preparation: Sequence[Any]) -> None:
        versions = {"segan-monai": __version__, "monai": monai.__version__, "torch": torch.__version__}
        described = {"versions": versions, "preparation": describe(preparation)}
        self.folder = Path(folder).expanduser() / digest(described)
        self.read = 0
        self.made = 0
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(
                self.folder / "preprocessing.json",
                lambda file: file.write_text(json.dumps(described, indent=4), encoding="utf-8"),
            )
            for file in self.folder.glob(".*.part"):
                with suppress(FileNotFoundError):
                    if time.time() - file.stat().st_mtime > _ABANDONED_SECONDS:
                        file.unlink()

    def get(self, case: Mapping[str, Any], prepare: Callable[[], Any]) -> Any:
        """Give what is made of a case.

        Args:
            case: with its name under ``case``.
            prepare: makes it; called only if there is no file of it that can be used.

        Returns:
            What `prepare` returns, its tensors mapped from the file.

        Raises:
            OutputError: the file cannot be written.
        """
        of_case = f"{case['case']}_{digest(describe(case))}"
        file = self.folder / f"{of_case}_{digest(_states_of_files(case))}.pt"
        if file.is_file():
            try:
                found = _read(file)
            except Exception as error:  # torch raises errors of many kinds
                logger.warning("%s is damaged and made again (%s)", file, str(error).splitlines()[0])
            else:
                self.read += 1
                return found
        item = prepare()
        reset_ops_id(item)  # names of transforms in this process
        with writing(file):
            self._write(file, lambda temporary: torch.save(item, temporary))
            for earlier in self.folder.glob(f"{_escaped(of_case)}_*.pt"):
                if earlier != file:
                    with suppress(FileNotFoundError):
                        earlier.unlink()
        self.made += 1
        return _read(file)

    def _write(self, file: Path, write: Callable[[Path], Any]) -> None:
        """Write under a name that no other process has, then give it its own."""
        temporary = self.folder / f".{uuid.uuid4().hex}.part"  # made with the permissions that the umask leaves
        try:
            write(temporary)
            with temporary.open("r+b") as stream:
                os.fsync(stream.fileno())
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def describe(value: Any) -> Any:
    """Say what a transform, a setting or a case is, as JSON that is the same in every process.

    Objects are described by their class and attributes, functions by their code, arrays by a hash of their content, and
    classes and functions that are neither MONAI's nor of a library by a hash of the file that they are in, too.
    """
    return _describe(value, ())


def _describe(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return repr(value)
    if id(value) in above:
        return "itself"
    inside = functools.partial(_describe, above=(*above, id(value)))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): inside(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((inside(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [inside(item) for item in value]
    if isinstance(value, np.random.RandomState | np.random.Generator | ModuleType):
        return type(value).__name__
    if isinstance(value, torch.Tensor | np.ndarray):
        array = np.ascontiguousarray(torch.as_tensor(value).detach().cpu().numpy())
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, functools.partial):
        return ["partial", inside(value.func), inside(value.args), inside(value.keywords)]
    if isinstance(value, MethodType):
        return [value.__func__.__qualname__, inside(value.__self__)]
    if isinstance(value, FunctionType):
        code, cells = value.__code__, [cell.cell_contents for cell in value.__closure__ or ()]
        constants = [constant for constant in code.co_consts if not inspect.iscode(constant)]
        parts = [code.co_code.hex(), code.co_names, constants, value.__defaults__, value.__kwdefaults__, cells]
        return [f"{value.__module__}.{value.__qualname__}", _source(value.__module__), *map(inside, parts)]
    if isinstance(value, type | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if not hasattr(value, "__dict__"):
        return [kind, _ADDRESS.sub("", repr(value))]
    # a transform that has been used has notes for its threads
    settings = {name: item for name, item in vars(value).items() if not isinstance(item, threading.local)}
    return [kind, _source(type(value).__module__), inside(settings)]


@functools.cache
def _source(module: str) -> str | None:
    """A hash of a module's file, if it is not a library's, whose version says enough."""
    if module.split(".")[0] in _LIBRARIES:
        return None
    with suppress(TypeError, OSError, KeyError):
        return hashlib.sha256(Path(inspect.getfile(sys.modules[module])).read_bytes()).hexdigest()[:16]
    return None


def _states_of_files(case: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Path, size and time of change of all files that a case names; of a folder, those of the files in it."""
    values = [item for value in case.values() for item in (value if isinstance(value, list | tuple) else [value])]
    paths = [Path(value).absolute() for value in values if isinstance(value, str | os.PathLike)]
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.is_file()]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _read(file: Path) -> Any:
    """Map a prepared case; NumPy's arrays and MONAI's enumerations may be in it, beside what `torch.load` takes.

    PyTorch keeps one list for the process of what it takes: what stood there before must stay, and of the threads that
    read, none may shorten it while another one needs it.
    """
    with _READING:
        known = torch.serialization.get_safe_globals()
        own = [kind for kind in (*_OF_NUMPY, *_OF_MONAI) if kind not in known]
        with torch.serialization.safe_globals(own):
            return torch.load(file, mmap=True, weights_only=True)


def digest(content: Any) -> str:
    """A short hash of what JSON can say, equal for equal content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _escaped(name: str) -> str:
    """A name as a pattern of `Path.glob`."""
    return re.sub(r"([\[*?])", r"[\1]", name)
