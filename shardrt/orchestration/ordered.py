"""`asyncio.as_completed` over coroutines, in the order given.

The original puts what it is given into a set before it makes tasks of it, and coroutines
hash by address: the tasks would start in an order that no replay can repeat. So it is
replaced by one that makes the tasks first, when an orchestration calls it; everybody else
gets the original. Code that took the original by name before this module was imported is
told so by `refuse_unordered`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from asyncio.events import _get_running_loop
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

T = TypeVar("T")

_DEPTH = 4
"""Frames between `create_task` and `as_completed` in any supported Python."""


def _in_order(original: Callable[..., T]) -> Callable[..., T]:
    @functools.wraps(original)
    def as_completed(fs: Iterable[Any], **options: Any) -> T:
        loop = _get_running_loop()
        single: object = fs
        if inspect.iscoroutine(single) or asyncio.isfuture(single):
            return original(fs, **options)  # which says that it wants several
        if hasattr(loop, "drain"):
            fs = [asyncio.ensure_future(each) for each in fs]
        return original(fs, **options)

    return as_completed


def refuse_unordered() -> None:
    """Raise if the task about to be made is one of the original `as_completed`."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001
    if frame is None or frame.f_code.co_name not in {"ensure_future", "_ensure_future"}:
        return
    for _ in range(_DEPTH):
        frame = frame.f_back
        if frame is None or frame.f_globals.get("__name__") != "asyncio.tasks":
            return
        if frame.f_code.co_qualname.startswith(("as_completed", "_AsCompletedIterator")):
            raise RuntimeError(
                "as_completed, as imported here, starts coroutines in no determined order: call "
                "it as asyncio.as_completed, or give it tasks"
            )


asyncio.as_completed = asyncio.tasks.as_completed = _in_order(asyncio.as_completed)
