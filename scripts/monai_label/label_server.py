# Copyright the segan-monai contributors
# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's server, extended by messages of errors that a user can fix, and by a strategy for the next image.

The original server answers every error of a model with "Internal Server Error". The strategy ``lowest_quality`` is
offered where the served weights have a quality estimate. The original server builds the post-processing only after the
inferer has run, too late for the step that asks the inferer to compare what it averages. scripts/monai_label.sh starts
this one: ``monailabel start_server --uvicorn_app label_server:app``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import PlainTextResponse
from monailabel.app import app
from monailabel.interfaces.app import MONAILabelApp
from monailabel.tasks.infer.bundle import BundleInferTask

from segan_monai.errors import UserError
from segan_monai.label_strategy import strategies_of

_start = MONAILabelApp.__init__


def _start_with_strategies(self: Any, *arguments: Any, **named: Any) -> None:
    """Start an app, and add the strategies of its bundles to its own."""
    _start(self, *arguments, **named)
    self._strategies.update(strategies_of(Path(self.app_dir) / "model", self._infers, self.infer))


MONAILabelApp.__init__ = _start_with_strategies
_inferer = BundleInferTask.inferer


def _inferer_after_its_steps(self: Any, data: Any = None) -> Any:
    """Build the post-processing, whose steps refer to the inferer, and return the inferer."""
    self.post_transforms(data)
    return _inferer(self, data)


BundleInferTask.inferer = _inferer_after_its_steps


@app.exception_handler(UserError)
async def answer_with_message(request: Request, error: UserError) -> PlainTextResponse:
    """Return the message of an error with HTTP 422: the request is valid, but its content cannot be processed."""
    return PlainTextResponse(f"{type(error).__name__}: {error}", status_code=422)
