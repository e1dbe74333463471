# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's server, extended by messages of errors that a user can fix, and by a strategy for the next image.

The original server answers every error of a model with "Internal Server Error". The strategy ``lowest_quality`` is
offered where the served weights have a quality estimate. scripts/monai_label.sh starts this one:
``monailabel start_server --uvicorn_app label_server:app``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import PlainTextResponse
from monailabel.app import app
from monailabel.interfaces.app import MONAILabelApp

from segan_monai.errors import UserError
from segan_monai.label_strategy import strategies_of

_start = MONAILabelApp.__init__


def _start_with_strategies(self: Any, *arguments: Any, **named: Any) -> None:
    """Start an app, and add the strategies of its bundles to its own."""
    _start(self, *arguments, **named)
    self._strategies.update(strategies_of(Path(self.app_dir) / "model", self._infers, self.infer))


MONAILabelApp.__init__ = _start_with_strategies


@app.exception_handler(UserError)
async def answer_with_message(request: Request, error: UserError) -> PlainTextResponse:
    """Return the message of an error with HTTP 422: the request is valid, but its content cannot be processed."""
    return PlainTextResponse(f"{type(error).__name__}: {error}", status_code=422)
