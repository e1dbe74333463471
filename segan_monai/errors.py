# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""User errors. Each message names the file or key, the value found, the value expected and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DAMAGED = "It is truncated or damaged; copy or download it again."


class UserError(ValueError):
    """Base class of errors that the user can fix; the message says how."""


class DataError(UserError):
    """Invalid image, label map or data set folder."""


class ConfigError(UserError):
    """Invalid setting: an unknown key, a value out of range, a checkpoint of another architecture."""


class UnknownKeyError(ConfigError):
    """Name of a config key or run id on the command line that the config does not have."""


class OutputError(UserError):
    """Failure to write a result: disk full, folder missing, permission denied."""


def missing_file(path: Any, remedy: str = "Correct the path in the datalist or copy the file there.") -> DataError:
    """Return the error for a file that does not exist.

    Args:
        path: the file.
        remedy: sentence that says what to do.
    """
    return DataError(f"{path}: there is no such file. {remedy}")


def unreadable(path: Any, error: Exception, cause: str = DAMAGED) -> DataError:
    """Return the error for a file that a reader refuses.

    Args:
        path: the file.
        error: exception of the reader; its message is shortened to 200 characters.
        cause: sentences that name the probable cause, what to do, and what was expected.
    """
    found = " ".join(str(error).rpartition("sitk::ERROR: ")[2].split())[:200]  # ITK puts its source file in front
    return DataError(f"{path} cannot be read ({type(error).__name__}: {found}). {cause}")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over an exception chain, from the caught exception to the root cause."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def user_error_in(error: BaseException | None) -> UserError | None:
    """Return the outermost ``UserError`` of an exception chain, or None."""
    return next((link for link in causes(error) if isinstance(link, UserError)), None)


def reason(error: BaseException) -> str:
    """Return the message of the outermost ``UserError`` in an exception chain, else type and message of its root."""
    chain = list(causes(error))
    user_error = user_error_in(error)
    if user_error is not None:
        return str(user_error)
    return f"{type(chain[-1]).__name__}: {chain[-1]}"
