# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's server, extended to return the message of errors that a user can fix.

The original server answers every error of a model with "Internal Server Error". scripts/monai_label.sh starts this one:
``monailabel start_server --uvicorn_app label_server:app``.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import PlainTextResponse
from monailabel.app import app

from segan_monai.errors import UserError


@app.exception_handler(UserError)
async def answer_with_message(request: Request, error: UserError) -> PlainTextResponse:
    """Return the message of an error with HTTP 422: the request is valid, but its content cannot be processed."""
    return PlainTextResponse(f"{type(error).__name__}: {error}", status_code=422)
