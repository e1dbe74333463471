# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""The errors a user can mend: each names the file, what was found, what was expected and what to do."""

from __future__ import annotations


class UserError(ValueError):
    """Something outside the program is wrong: a file, a folder, a setting. The message says how to mend it."""


class DataError(UserError):
    """An image, a label map or a folder of them is not as it must be."""


class ConfigError(UserError):
    """A setting does not fit: an unknown key, a value out of range, a checkpoint of another architecture."""


def user_error_in(error: BaseException | None) -> UserError | None:
    """The error that a user can mend in a chain of exceptions, the outermost of them; None if there is none."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
