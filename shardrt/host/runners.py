"""Runs attempts in the loop, many in one task as long as none of them has to wait.

A task of its own costs an attempt as much as all else that the pool does for it, and many
`async def` activities end without ever waiting. So what starts in one turn of the loop is a
*batch*, and gets one task, its *runner*, which begins one after the other. The first that waits
for anything keeps that task, as if it had been its own from the beginning, and each of those
behind it gets a task: none is held up, they begin a turn later.

An attempt must see nothing of those before it in its task. Each has a context of its own; one
that cancels its task is the last in there. What is left in common: `asyncio.current_task()` is
the same for attempts that follow one another without waiting, and what is to be called when it
is done is called after the last of them, in the same turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from types import coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextvars import Context

    from shardrt.host.attempts import Running

ENDED = object()


class Runners:
    """The runners of a pool."""

    def __init__(self) -> None:
        self._context = copy_context()
        """What attempts see: not what whoever starts one does, which may be another attempt."""
        self._batch: deque[Running] = deque()
        """What starts in the next turn, in this order, and some that were given up since."""
        self.unbegun: asyncio.Task[None] | None = None
        """The runner of that batch, if it has one."""

    def __len__(self) -> int:
        return len(self._batch)

    def start(self, running: Running, loop: asyncio.AbstractEventLoop) -> None:
        """Run an attempt in the next turn of the loop."""
        self._batch.append(running)
        if self.unbegun is None or self.unbegun.done():  # done: somebody cancels all tasks
            context = self._context.copy()
            # Named, or the loop would first make a name up.
            self.unbegun = loop.create_task(self._run(loop), name="runner", context=context)

    def part(self) -> None:
        """Give each attempt that has not begun a task of its own, to be waited for."""
        self._give_tasks(self._batch, asyncio.get_running_loop())

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        # What starts from now on has to wait for the next turn, as if this had begun it.
        batch, self._batch, self.unbegun = self._batch, deque(), None
        task: Any = asyncio.current_task(loop)  # to look for the loop takes a system call
        try:
            while batch:
                running = batch.popleft()
                if running.control.cancelled:
                    continue
                running.task = task
                task.set_name(running.attempt.run.name)
                body = running.kind.body(running)
                if not batch:
                    await body  # nobody is behind it
                    return
                context, steps = copy_context(), body.__await__()
                waiting = context.run(next, steps, ENDED)
                if waiting is not ENDED:
                    self._give_tasks(batch, loop)
                    await _go_on(context, steps, waiting)
                elif task._must_cancel:  # noqa: SLF001 - `cancelling` forgets it after `uncancel`
                    return
        finally:
            self._give_tasks(batch, loop)  # also after a bug, or a KeyboardInterrupt

    def _give_tasks(self, batch: deque[Running], loop: asyncio.AbstractEventLoop) -> None:
        while batch:
            running = batch.popleft()
            if not running.control.cancelled:
                body, context = running.kind.body(running), self._context.copy()
                name = running.attempt.run.name
                running.task = loop.create_task(body, name=name, context=context)


@coroutine
def _go_on(
    context: Context, steps: Generator[Any, Any, None], waiting: Any
) -> Generator[Any, Any, None]:
    """Go on in this context with what has begun there and waits for something."""
    thrown: BaseException | None = None
    while waiting is not ENDED:
        try:
            yield waiting
        except BaseException as error:  # noqa: BLE001 - it is for the code within
            thrown = error
        if thrown is None:
            waiting = context.run(next, steps, ENDED)
            continue
        try:
            waiting = context.run(steps.throw, thrown)
        except StopIteration:
            return
        finally:
            thrown = None  # or it would hold this frame, which holds it
