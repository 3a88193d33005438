"""Users' middleware before the starts that clients ask for.

A start waits here, counted like any request in flight, until the middleware has spoken; then it
goes on as if it had just come, or is refused with nothing recorded. It may be overtaken
meanwhile. Each request gets one verdict, as long as anything is recorded by it: one that comes
again shares the verdict that is being reached, and passes by if it is recorded already.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shardrt.core import requests as r
from shardrt.errors import SchedulingVetoed, ShardrtError
from shardrt.host.surroundings import payload_bytes
from shardrt.links.messages import Answer
from shardrt.orchestration.facts import EPOCH, MICROSECOND
from shardrt.orchestration.middleware import SchedulingInfo, SchedulingSource, Verdict
from shardrt.orchestration.schedules import BUILT_IN

if TYPE_CHECKING:
    from shardrt.host.shard import Shard
    from shardrt.host.surroundings import Answering
    from shardrt.links.messages import Forward
    from shardrt.orchestration.app import App
    from shardrt.orchestration.middleware import SchedulingMiddleware

logger = logging.getLogger(__name__)


def vetting_of(app: App, shard: Shard) -> Vetting | None:
    """Return what looks at starts; None if the app has no middleware for them."""
    middleware = app.scheduling(SchedulingSource.START)
    return Vetting(app, middleware, shard) if middleware else None


class Vetting:
    """The starts of one shard that are being looked at."""

    def __init__(
        self, app: App, middleware: tuple[SchedulingMiddleware, ...], shard: Shard
    ) -> None:
        self._app = app
        self._middleware = middleware
        self._shard = shard
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[tuple[str, int], list[tuple[Forward, Answering]]] = {}
        """By client and number of the request: each time it has come."""
        self._passing = False
        """Whether what comes is what has been let pass."""

    def concerns(self, call: Forward) -> bool:
        """Whether middleware is to look at this call."""
        if self._passing or type(call.request) is not r.Start or call.request.name in BUILT_IN:
            return False
        host = self._shard.hosts.get(call.partition)
        return host is not None and not host.core.is_applied(call.origin)

    def take(self, call: Forward, answer: Answering) -> None:
        """Have the middleware look at a start; then the shard admits it, or it is refused."""
        self._shard.requests_in_flight += 1
        self._shard.bytes_in_flight += payload_bytes(call.request)
        key = (call.origin.client, call.origin.seq)
        known = self._open.get(key)
        if known is not None:
            known.append((call, answer))
            return
        self._open[key] = [(call, answer)]
        task = asyncio.get_running_loop().create_task(self._take(key, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Drop what is being looked at: it was neither recorded nor answered."""
        for task in self._tasks:
            task.cancel()

    async def _take(self, key: tuple[str, int], call: Forward) -> None:
        try:
            refusal = await self._refusal(call)
        finally:
            asked = self._open.pop(key)
            self._shard.requests_in_flight -= len(asked)
            self._shard.bytes_in_flight -= sum(payload_bytes(each.request) for each, _ in asked)
        for each, answer in asked:
            if refusal is None:
                self._pass(each, answer)
            else:
                answer(Answer(each.seq, refusal=refusal))

    def _pass(self, call: Forward, answer: Answering) -> None:
        self._passing = True
        try:
            self._shard.submit(call, answer)
        finally:
            self._passing = False

    async def _refusal(self, call: Forward) -> r.Refusal | None:
        start = call.request
        assert isinstance(start, r.Start)
        sealer = self._app.sealer
        info = SchedulingInfo(
            source=SchedulingSource.START,
            name=start.name,
            instance_id=call.instance_id,
            tags=dict(start.tags or {}),
            at=None if start.start_at is None else EPOCH + start.start_at * MICROSECOND,
            payload=start.input if sealer is None else sealer.open(start.input),
        )
        try:
            await Verdict(self._middleware, info).reached()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except ShardrtError as error:
            return r.Refusal(error.code, str(error), getattr(error, "retry_after_s", None))
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the shard ends
            logger.info("instance=%s start vetoed: %r", call.instance_id, error)
            return r.Refusal(SchedulingVetoed.code, str(error) or type(error).__name__)
        return None
