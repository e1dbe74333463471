# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The errors a user can mend: each names the file, what was found, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DAMAGED = "It is truncated or damaged; copy or download it again."


class UserError(ValueError):
    """Something outside the program is wrong: a file, a folder, a setting. The message says how to mend it."""


class DataError(UserError):
    """An image, a label map or a folder of them is not as it must be."""


class ConfigError(UserError):
    """A setting does not fit: an unknown key, a value out of range, a checkpoint of another architecture."""


class OutputError(UserError):
    """A result cannot be written: the disk is full, the folder is gone or belongs to somebody else."""


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
    """The chain of an error, from the one that was caught to the one that it all began with."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def user_error_in(error: BaseException | None) -> UserError | None:
    """The error that a user can mend in a chain of exceptions, the outermost of them; None if there is none."""
    return next((link for link in causes(error) if isinstance(link, UserError)), None)


def reason(error: BaseException) -> str:
    """What to tell the user of an error: the first in its chain that the user can mend, else the one it began with."""
    chain = list(causes(error))
    mendable = user_error_in(error)
    if mendable is not None:
        return str(mendable)
    return f"{type(chain[-1]).__name__}: {chain[-1]}"
