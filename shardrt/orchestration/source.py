"""Where in the user's code something happened."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType, FrameType

_RUNTIME = ("asyncio", "shardrt.orchestration", "shardrt.compat", "_asyncio")


def line_of_caller() -> str:
    """Return the innermost line of user code on the stack as ` (file:line in name)`, or ``""``."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        if _is_user_code(frame):
            return _line(frame.f_code, frame.f_lineno)
        frame = frame.f_back
        if frame is not None and _is_drain(frame):
            break  # below is whoever runs the code
    return ""


def line_of(frame: FrameType) -> str:
    """Return the line that a frame is at, in the form of `line_of_caller`."""
    return _line(frame.f_code, frame.f_lineno)


def line_of_coroutine(coroutine: Any) -> str:
    """Return where a suspended coroutine waits, at its innermost line of user code."""
    found = ""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None and _is_user_code(frame):
            found = _line(frame.f_code, frame.f_lineno)
        coroutine = getattr(coroutine, "cr_await", None)
    return found


def _is_user_code(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return not name.startswith(_RUNTIME)


def _is_drain(frame: FrameType) -> bool:
    is_loop = frame.f_globals.get("__name__") == "shardrt.orchestration.loop"
    return is_loop and frame.f_code.co_name == "drain"


def _line(code: CodeType, number: int | None) -> str:
    return f" ({code.co_filename}:{number} in {code.co_qualname})"
