# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Optional packages, which only some commands need: imported where they are used, and named where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from segan_monai.errors import ConfigError

EXTRAS = {
    "phantoms": {"nilearn": "nilearn"},
    "export": {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
    "dicom": {
        "pydicom": "pydicom",
        "highdicom": "highdicom",
        "dicomweb_client": "dicomweb-client",
        "pynetdicom": "pynetdicom",
        "pylibjpeg": "pylibjpeg",
        "openjpeg": "pylibjpeg-openjpeg",
    },
    "ray": {"ray": "ray[tune]", "optuna": "optuna"},
    "mlflow": {"mlflow": "mlflow-skinny", "sqlalchemy": "sqlalchemy", "alembic": "alembic"},
}
"""Modules of each extra of the package, and the packages that pip installs for them."""


def require_modules(extra: str, what: str, names: Sequence[str] = (), otherwise: str = "") -> None:
    """Check that optional modules are installed, without importing them.

    Args:
        extra: key of ``EXTRAS``.
        what: option or command that needs them; begins the message.
        names: modules of the extra; by default all of them.
        otherwise: end of the message: what to do without them.

    Raises:
        ConfigError: A module is not installed. The message has the command that installs all that are missing.
    """
    packages = [EXTRAS[extra][name] for name in names or EXTRAS[extra] if find_spec(name) is None]
    if not packages:
        return
    verb = "are" if len(packages) > 1 else "is"
    raise ConfigError(
        f"{what} needs {' and '.join(packages)}, which {verb} not installed. Run: pip install {' '.join(packages)}"
        f"{otherwise and f', or {otherwise}'}."
    )
