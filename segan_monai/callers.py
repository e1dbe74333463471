# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""Objects of MONAI that evaluate a config, found on the call stack: MONAI does not pass them on to expressions."""

from __future__ import annotations

import inspect
from typing import TypeVar

T = TypeVar("T")


def calling(kind: type[T]) -> T | None:
    """Return the innermost object of a class whose method is being called; None if there is none.

    Examples:
        >>> class Reader:
        ...     def read(self):
        ...         return calling(Reader) is self
        >>> Reader().read(), calling(Reader)
        (True, None)
    """
    frame = inspect.currentframe()
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, kind):
            return found
        frame = frame.f_back
    return None
