# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""User errors. Each message names the file or key, the value found, the value expected and the remedy."""

from __future__ import annotations

from collections.abc import Iterator


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
