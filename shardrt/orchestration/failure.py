"""Exceptions as data."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from shardrt.core.history import Failure
from shardrt.errors import (
    ActivityFailed,
    EntityFailed,
    InputInvalid,
    OrchestrationFailed,
    SubOrchestrationFailed,
)

if TYPE_CHECKING:
    from types import TracebackType

_RECORDED = (ActivityFailed, SubOrchestrationFailed, EntityFailed, OrchestrationFailed)

_PACKAGE = __file__.rpartition("orchestration")[0]
_OURS = (f"{_PACKAGE}host", f"{_PACKAGE}orchestration")

CAUSES_MAX = 16
"""Longest chain of causes that is recorded."""


def failure_of(error: BaseException, *, depth: int = 0) -> Failure:
    """Return what is recorded of an exception: type, message, traceback and causes."""
    try:
        frames = _of_the_user(error.__traceback__)
        lines = traceback.format_exception(type(error), error, frames, chain=False)
        details = _clean("".join(lines))
    except Exception:  # noqa: BLE001
        details = ""
    return Failure(
        type=type(error).__name__,
        message=_message(error),
        non_retryable=isinstance(error, InputInvalid),
        details=details,
        cause=_cause(error, depth) if depth < CAUSES_MAX else None,
    )


def _of_the_user(frames: TracebackType | None) -> TracebackType | None:
    """Leave out how we came to call the code."""
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    return frames


def _message(error: BaseException) -> str:
    try:
        text = str(error)
        if isinstance(error, BaseExceptionGroup):  # which says no more than how many
            first = error.exceptions[0]
            text += f": {type(first).__name__}: {_message(first)}"
        return _clean(text)
    except Exception:  # noqa: BLE001
        return f"<{type(error).__name__} whose text cannot be made>"


def _clean(text: str) -> str:
    # A lone surrogate would make the whole record unwritable.
    return text.encode(errors="backslashreplace").decode()


def _cause(error: BaseException, depth: int) -> Failure | None:
    if isinstance(error, _RECORDED):
        return error.failure
    if isinstance(error, BaseExceptionGroup):
        return failure_of(error.exceptions[0], depth=depth + 1)
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    return None if cause is None else failure_of(cause, depth=depth + 1)
