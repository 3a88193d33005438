"""Begins attempts in the shard's loop without making a task for each.

A task costs more to make and to take down than most short activities do, so those that end
without ever waiting for anything share one. Their code cannot tell:

- each runs in a context of its own, so no context variable is handed on;
- one that waits keeps the task, which is its own from then on, and another goes on with the rest;
- a task on which code has left a trace is not used again: it was cancelled, has a callback, or
  somebody holds a reference to it, as registries do that keep something per task.

An activity that has once waited gets a task for each attempt from the start.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import getweakrefcount

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from shardrt.host.attempts import Running


class Relay:
    """Tasks for the attempts of one shard."""

    def __init__(self) -> None:
        self._line: deque[Running] = deque()
        """Not begun yet, in order; those given up meanwhile are passed over."""
        self._next: asyncio.Task[None] | None = None
        """Will begin them."""
        self._waited: set[str] = set()
        """Names of activities of which an attempt has waited for something."""

    def start(self, running: Running) -> None:
        """Begin an attempt at the next turn of the loop; it has its `task` from then on."""
        name = running.attempt.run.name
        if name in self._waited:
            # By the loop, for that of tests keeps count; named, or it would first make a name up.
            loop = asyncio.get_running_loop()
            running.task = loop.create_task(running.kind.body(running), name=name)
            return
        self._line.append(running)
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._work(), name=name)

    async def _work(self) -> None:
        rest = self._begin_until_one_waits()
        if rest is not None:
            await rest

    def _begin_until_one_waits(self) -> _Rest | None:
        task = asyncio.current_task()
        assert task is not None
        untouched = _traces(task)
        try:
            while self._line:
                running = self._line.popleft()
                if running.control.cancelled:
                    continue
                running.task = task
                task.set_name(running.attempt.run.name)
                body, context = running.kind.body(running), copy_context()
                try:
                    waits_for = context.run(body.send, None)
                except StopIteration:
                    running.task = None
                    if _traces(task) != untouched:
                        return None
                else:
                    self._waited.add(running.attempt.run.name)
                    return _Rest(body, context, waits_for)
            return None
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        line, self._line = self._line, deque()
        self._next = None
        for running in line:
            self.start(running)


def _traces(task: asyncio.Task[Any]) -> tuple[int, int, bool, int]:
    """Return what changes if code keeps a task, or asks something of it."""
    has_callbacks = bool(task._callbacks)  # noqa: SLF001 - nothing else tells
    return sys.getrefcount(task), getweakrefcount(task), has_callbacks, task.cancelling()


class _Rest(NamedTuple):
    """What is left of a coroutine that has begun and waits, to be awaited by the same task."""

    body: Coroutine[Any, Any, None]
    context: Context
    waits_for: Any

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self.waits_for
        thrown: BaseException | None = None
        while True:
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - it is for the code within
                thrown = error
            try:
                if thrown is None:
                    waits_for = self.context.run(self.body.send, None)
                else:
                    waits_for = self.context.run(self.body.throw, thrown)
            except StopIteration:
                return
            thrown = None
