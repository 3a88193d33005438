"""What an orchestrator yields: tasks, which begin when they are yielded, alone or within others.

As in Azure: a task that is made and never yielded asks for nothing. A task completes once, and
tells those that it is part of, in the order in which things arrive.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from azure.durable_functions.models.Task import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Task:
    """One thing to wait for; `state`, `result` and `is_completed` are for the code to look at.

    Args:
        begin: asks for it; called once, if at all.
        decode: makes the result out of what comes.
    """

    def __init__(
        self,
        begin: Callable[[], asyncio.Future[Any]],
        decode: Callable[[Any], Any] = lambda result: result,
    ) -> None:
        self._begin = begin
        self._decode = decode
        self._future: asyncio.Future[Any] | None = None
        self._told: list[Callable[[Task], None]] = []
        self.state = TaskState.RUNNING
        self.result: Any = None
        """What came of it: an exception, if it has failed."""

    @property
    def is_completed(self) -> bool:
        """Whether it has succeeded or failed."""
        return self.state is not TaskState.RUNNING

    @property
    def id(self) -> int | None:
        """The number of the call in the history, once it has begun."""
        return getattr(self._future, "task_id", None)

    def start(self) -> None:
        """Begin, unless that has happened."""
        if self._future is None:
            self._future = self._begin()
            self._future.add_done_callback(self._on_done)

    def when_completed(self, tell: Callable[[Task], None]) -> None:
        """Call back once it is completed; at once if it is."""
        if self.is_completed:
            tell(self)
        else:
            self._told.append(tell)

    async def outcome(self) -> Any:
        """Wait for it and return its result, or raise it."""
        self.start()
        if not self.is_completed:
            done = asyncio.get_running_loop().create_future()
            self.when_completed(lambda _: done.set_result(None))
            await done
        if self.state is TaskState.FAILED:
            raise self.result
        return self.result

    def complete(self, state: TaskState, result: Any) -> None:
        """Say how it went, if nobody has said so before."""
        if self.is_completed:
            return
        self.state, self.result = state, result
        told, self._told = self._told, []
        for tell in told:
            tell(self)

    def _on_done(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            return
        try:
            result = self._decode(future.result())
        except Exception as error:  # noqa: BLE001 - raised where the code waits
            self.complete(TaskState.FAILED, error)
        else:
            self.complete(TaskState.SUCCEEDED, result)


class TimerTask(Task):
    """A timer, which can be cancelled."""

    is_cancelled = False

    def cancel(self) -> None:
        """Give it up; it will never complete.

        Raises:
            ValueError: it has completed.
        """
        if self.is_completed:
            raise ValueError("Cannot cancel a completed task.")
        self.is_cancelled = True
        if self._future is not None:
            self._future.cancel()

    def start(self) -> None:
        if not self.is_cancelled:
            super().start()

    async def outcome(self) -> Any:
        if self.is_cancelled:
            raise ValueError("this timer was cancelled, so nothing will come of it")
        return await super().outcome()


class _Group(Task):
    """Tasks that are one."""

    def __init__(self, children: Sequence[Task]) -> None:
        super().__init__(asyncio.get_running_loop().create_future)
        self.children = list(children)
        for child in self.children:
            if not isinstance(child, Task):
                raise TypeError(f"{child!r} is no task")
        self._has_begun = False

    def start(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        for child in self.children:
            child.start()
        for child in self.children:
            child.when_completed(self._take)

    def _take(self, child: Task) -> None:
        raise NotImplementedError


class WhenAll(_Group):
    """Completes with all results, in the order of the tasks, or with the first failure."""

    def __init__(self, children: Sequence[Task]) -> None:
        super().__init__(children)
        self._left = len(self.children)
        if not self.children:
            self.complete(TaskState.SUCCEEDED, [])

    def _take(self, child: Task) -> None:
        self._left -= 1
        if child.state is TaskState.FAILED:
            self.complete(TaskState.FAILED, child.result)
        elif self._left == 0:
            self.complete(TaskState.SUCCEEDED, [each.result for each in self.children])


class WhenAny(_Group):
    """Completes with the first task that does, however that ends; the others go on."""

    def __init__(self, children: Sequence[Task]) -> None:
        super().__init__(children)
        if not self.children:
            self.complete(TaskState.SUCCEEDED, None)

    def _take(self, child: Task) -> None:
        self.complete(TaskState.SUCCEEDED, child)
