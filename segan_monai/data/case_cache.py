# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Disk cache of preprocessed cases, invalidated by changes to the case or the preprocessing."""

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
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import monai
import numpy as np
import torch
from monai.transforms.utils import reset_ops_id
from monai.utils import enums

from segan_monai._version import __version__
from segan_monai.data.case_digest import image_files
from segan_monai.files import writing

logger = logging.getLogger(__name__)

# Types that occur in metadata: NumPy arrays and numbers, whose pickle functions have names that differ by version, and
# MONAI's enumerations. Unpickling them runs no other code.
_OF_NUMPY = [np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0], np.ndarray, np.dtype]
_OF_NUMPY += [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]
_OF_MONAI = [kind for kind in vars(enums).values() if isinstance(kind, type) and issubclass(kind, Enum)]
_READING = threading.Lock()
_ABANDONED_SECONDS = 24 * 3600  # age at which a partial file must come from a killed process
_LIBRARIES = ("monai", "torch", "numpy")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class CaseCache:
    """Disk cache of preprocessed cases, returned memory-mapped and bit-identical to what was stored.

    Voxels are read on access. The kernel shares the pages among all processes and evicts them under memory pressure.
    Tensors keep their dtype and memory layout.

    A case is preprocessed again if any of these has changed:

    - the case dictionary, or the path, size or modification time of one of its files, such as the voxels
      beside a header;
    - a transform, one of its settings, or the source file of a transform that is not MONAI's;
    - the version of this package, MONAI or torch.

    The outdated file of the same preprocessing is then removed. Files are written atomically, so several processes can
    share a folder. An unreadable file is recreated with a warning. Voxels have no checksum, because verifying it would
    read all of them.

    Each preprocessing has its own subfolder, described by the ``preprocessing.json`` in it. Any subfolder can be
    deleted while nothing runs.

    In contrast, MONAI's ``PersistentDataset`` identifies a case by its paths alone, stops at a truncated file and reads
    whole files.

    Args:
        folder: Folder of the cache; created if missing.
        preparation: Everything besides the case that determines the result: transforms and settings.
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
        """Return a preprocessed case from the cache, or preprocess and store it.

        Args:
            case: Case dictionary with its name under ``case``.
            prepare: Preprocesses the case; called only if no valid file exists.

        Returns:
            The result of ``prepare``, with tensors mapped from the file.

        Raises:
            OutputError: The file cannot be written.
        """
        of_case = f"{case['case']}_{digest(describe(case))}"
        file = self.folder / f"{of_case}_{digest(_states_of_files(case))}.pt"
        if file.is_file():
            try:
                found = _read(file)
            except Exception as error:  # torch raises errors of many kinds
                logger.warning("%s is damaged and is created again (%s)", file, str(error).splitlines()[0])
            else:
                self.read += 1
                return found
        item = prepare()
        reset_ops_id(item)  # transform ids are valid in this process only
        with writing(file):
            self._write(file, lambda temporary: torch.save(item, temporary))
            for earlier in self.folder.glob(f"{_escaped(of_case)}_*.pt"):
                if earlier != file:
                    with suppress(FileNotFoundError):
                        earlier.unlink()
        self.made += 1
        return _read(file)

    def _write(self, file: Path, write: Callable[[Path], Any]) -> None:
        """Write to a uniquely named temporary file, then rename it."""
        temporary = self.folder / f".{uuid.uuid4().hex}.part"  # created with the permissions of the umask
        try:
            write(temporary)
            with temporary.open("r+b") as stream:
                os.fsync(stream.fileno())
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def describe(value: Any) -> Any:
    """Describe a transform, a setting or a case as JSON that is identical in every process.

    - Objects: class and attributes.
    - Functions: code.
    - Arrays: dtype, shape and a hash of the content.
    - Instances and functions defined outside MONAI, torch and NumPy: also a hash of the source file.
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
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = [_of_code(value.__code__), value.__defaults__, value.__kwdefaults__, cells]
        return [f"{value.__module__}.{value.__qualname__}", _source(value.__module__), *map(inside, parts)]
    if isinstance(value, type | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if not hasattr(value, "__dict__"):
        return [kind, _ADDRESS.sub("", repr(value))]
    # a transform that has been used holds thread-local state, and the cases that it has warned of
    kept = {name: item for name, item in vars(value).items() if name != "warned"}
    settings = {name: item for name, item in kept.items() if not isinstance(item, threading.local)}
    return [kind, _source(type(value).__module__), inside(settings)]


def _of_code(code: CodeType) -> list[Any]:
    """Return what a function computes, with the functions within it."""
    constants = [_of_code(constant) if inspect.iscode(constant) else constant for constant in code.co_consts]
    return [code.co_code.hex(), code.co_names, constants]


@functools.cache
def _source(module: str | None) -> str | None:
    """Return a hash of a module's file; None for a library, which has a version, and for a function of a config."""
    if module is None or module.split(".")[0] in _LIBRARIES:
        return None
    with suppress(TypeError, OSError, KeyError):
        return hashlib.sha256(Path(inspect.getfile(sys.modules[module])).read_bytes()).hexdigest()[:16]
    return None


def _states_of_files(case: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Return path, size and modification time of all files of a case: also those in folders and beside headers."""
    values = [item for value in case.values() for item in (value if isinstance(value, list | tuple) else [value])]
    paths = [Path(value).absolute() for value in values if isinstance(value, str | os.PathLike)]
    files = [file for path in paths if path.is_dir() or path.is_file() for file in image_files(path)]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _read(file: Path) -> Any:
    """Memory-map a preprocessed case, allowing NumPy arrays and MONAI enumerations.

    PyTorch has one list of safe globals per process. Earlier entries must remain, and no thread may shorten the list
    while another thread reads, hence the lock.
    """
    with _READING:
        known = torch.serialization.get_safe_globals()
        own = [kind for kind in (*_OF_NUMPY, *_OF_MONAI) if kind not in known]
        with torch.serialization.safe_globals(own):
            return torch.load(file, mmap=True, weights_only=True)


def digest(content: Any) -> str:
    """Return a short hash of JSON-serializable content, equal for equal content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _escaped(name: str) -> str:
    """Escape a name for ``Path.glob``."""
    return re.sub(r"([\[*?])", r"[\1]", name)
