"""Users' middleware before the starts that clients ask for, and the events that they raise.

Such a request waits here, counted like any request in flight, until the middleware has spoken;
then it goes on to its partition, or is refused with nothing recorded. It may be overtaken.
Each request gets one verdict, as long as anything is recorded by it: one that comes again shares
the verdict that is being reached, and passes by if another has been let pass and is not answered
yet, or is recorded. A verdict is of one owner and under one epoch: if the partition has gone
meanwhile, another owner may have said otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeAlias

from shardrt.core import requests as r
from shardrt.errors import SchedulingVetoed, ShardrtError
from shardrt.host.surroundings import payload_bytes
from shardrt.links.messages import Answer
from shardrt.orchestration.facts import EPOCH, MICROSECOND
from shardrt.orchestration.middleware import SchedulingInfo, SchedulingSource, Verdict
from shardrt.orchestration.schedules import BUILT_IN

if TYPE_CHECKING:
    from shardrt.host.partition_host import PartitionHost
    from shardrt.host.shard import Shard
    from shardrt.host.surroundings import Answering
    from shardrt.links.messages import Forward
    from shardrt.orchestration.app import App
    from shardrt.orchestration.middleware import SchedulingMiddleware

logger = logging.getLogger(__name__)

Key: TypeAlias = "tuple[PartitionHost, str, int]"
"""A request, by who owns its partition under which epoch, client and number."""


def vetting_of(app: App, shard: Shard) -> Vetting | None:
    """Return what looks at requests; None if the app has no middleware for them."""
    sources: dict[type, SchedulingSource] = {
        r.Start: SchedulingSource.START,
        r.Raise: SchedulingSource.EVENT,
    }
    middleware = {
        kind: found for kind, source in sources.items() if (found := app.scheduling(source))
    }
    return Vetting(app, middleware, shard) if middleware else None


class Vetting:
    """The requests of one shard that are being looked at."""

    def __init__(
        self, app: App, middleware: dict[type, tuple[SchedulingMiddleware, ...]], shard: Shard
    ) -> None:
        self._app = app
        self._middleware = middleware
        self._shard = shard
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[Key, list[tuple[Forward, Answering]]] = {}
        """Being looked at: each time it has come."""
        self._passed: set[Key] = set()
        """Let pass and not answered: the instance may have to be looked up before it is made."""

    def concerns(self, call: Forward) -> bool:
        """Whether middleware is to look at this call."""
        asked = call.request
        if not isinstance(asked, (r.Start, r.Raise)):
            return False
        if asked.name in BUILT_IN:
            return False  # ours; the event that steers a schedule has the same name
        if type(asked) not in self._middleware:
            return False
        host = self._shard.hosts.get(call.partition)
        if host is None or host.core.is_applied(call.origin):
            return False
        return (host, call.origin.client, call.origin.seq) not in self._passed

    def take(self, call: Forward, answer: Answering) -> None:
        """Have the middleware look at a request; then the shard admits it, or it is refused."""
        self._shard.requests_in_flight += 1
        self._shard.bytes_in_flight += payload_bytes(call.request)
        key = (self._shard.hosts[call.partition], call.origin.client, call.origin.seq)
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

    async def _take(self, key: Key, call: Forward) -> None:
        try:
            refusal = await self._refusal(call)
        finally:
            asked = self._open.pop(key)
            self._shard.requests_in_flight -= len(asked)
            self._shard.bytes_in_flight -= sum(payload_bytes(each.request) for each, _ in asked)
        shard = self._shard
        if shard.hosts.get(call.partition) is not key[0] or not shard.may_answer():
            # Another owner may have let it pass, or denied it, meanwhile.
            message = f"partition {call.partition} is moving to another owner"
            refusal = r.Refusal("PartitionUnavailable", message, 0.1)
        for each, answer in asked:
            if refusal is None:
                self._pass(key, each, answer)
            else:
                answer(Answer(each.seq, refusal=refusal))

    def _pass(self, key: Key, call: Forward, answer: Answering) -> None:
        def answered(result: Answer) -> None:
            self._passed.discard(key)
            answer(result)

        self._passed.add(key)
        self._shard.admit(call, answered)

    async def _refusal(self, call: Forward) -> r.Refusal | None:
        try:
            info = self._info(call)  # of what an application may be unable to unseal
            await Verdict(self._middleware[type(call.request)], info).reached()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except ShardrtError as error:
            return r.Refusal(error.code, str(error), getattr(error, "retry_after_s", None))
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the shard ends
            logger.info("instance=%s vetoed: %r", call.instance_id, error)
            return r.Refusal(SchedulingVetoed.code, str(error) or type(error).__name__)
        return None

    def _info(self, call: Forward) -> SchedulingInfo:
        asked, sealer = call.request, self._app.sealer
        if isinstance(asked, r.Raise):
            return SchedulingInfo(
                source=SchedulingSource.EVENT,
                name=asked.name,
                instance_id=call.instance_id,
                payload=asked.data if sealer is None else sealer.open(asked.data),
            )
        assert isinstance(asked, r.Start), asked
        return SchedulingInfo(
            source=SchedulingSource.START,
            name=asked.name,
            instance_id=call.instance_id,
            tags=dict(asked.tags or {}),
            at=None if asked.start_at is None else EPOCH + asked.start_at * MICROSECOND,
            payload=asked.input if sealer is None else sealer.open(asked.input),
        )
