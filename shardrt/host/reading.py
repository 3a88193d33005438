"""Requests of clients that need more than what is in memory of an instance: its history.

A history is read beside everything else; the request waits in `PartitionHost.queued`
meanwhile, and is refused from there if the partition goes. What was read may be newer than
what is durable, so answers leave through the queue of effects, like all others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from shardrt.core import history as h, requests as r
from shardrt.core.effects import Reply
from shardrt.core.explaining import explain, has_more_in_history
from shardrt.core.exported import exported_of
from shardrt.errors import InstanceQuarantined, RecordCorrupt, ShardrtError

if TYPE_CHECKING:
    from shardrt.core.state import Instance
    from shardrt.host.partition_host import PartitionHost
    from shardrt.host.surroundings import To
    from shardrt.links.messages import Forward


TIMES_S = 0.5
"""So long at most is a history read only to tell since when its instance waits."""
_TAKEN = frozenset({r.GetHistory, r.Export, r.Rewind, r.Explain})


class Reading:
    """Takes such requests of one partition."""

    __slots__ = ("_host",)

    def __init__(self, host: PartitionHost) -> None:
        self._host = host

    def take(self, call: Forward, to: To) -> bool:
        """Take the request, if it is of this kind; return whether it is."""
        if type(call.request) not in _TAKEN:
            return False
        if call.instance_id in self._host.core.quarantined and type(call.request) is not r.Explain:
            return False  # the core says so
        if isinstance(call.request, r.Rewind):
            self._rewind(call, call.request, to)
        elif isinstance(call.request, r.Explain):
            self._explain(call.instance_id, call.request, to)
        else:
            self._history(call, to)
        return True

    def _explain(self, instance_id: str, request: r.Explain, to: To) -> None:
        host = self._host
        executor = host.shard.turns.executor

        def found(history: list[h.HistoryEvent]) -> r.Explanation | None:
            events = executor.events_awaited(instance_id)
            unclaimed = executor.events_unclaimed(instance_id)
            return explain(host.core, instance_id, events, unclaimed, history)

        explanation = found([])
        instance = host.core.instances.get(instance_id)
        # Only its code knows which events it awaits, and that may have been evicted.
        is_gone = executor.events_awaited(instance_id) is None
        rebuilds = instance is not None and is_gone and _is_rebuildable(instance)
        wants_times = request.times and instance is not None and has_more_in_history(instance)
        if instance is None or not (rebuilds or wants_times):
            self._reply(to, explanation)
            return
        of = (instance.execution_id, instance.turn)
        host.queued[to] = None

        def read(history: list[h.HistoryEvent] | ShardrtError | None) -> None:
            if to not in host.queued:
                return  # it was refused when the partition went, or answered
            del host.queued[to]
            if host.core.instances.get(instance_id) is not instance:
                self._reply(to, explanation)  # of when it was asked for
                return
            if not isinstance(history, list) or of != (instance.execution_id, instance.turn):
                history = []
            elif rebuilds and _is_rebuildable(instance) and instance_id not in host.core.out:
                host.shard.turns.revive(instance, history)
            self._reply(to, found(history))

        if not rebuilds:
            asyncio.get_running_loop().call_later(TIMES_S, read, None)
        host.history.whole(instance_id, read)

    def _history(self, call: Forward, to: To) -> None:
        host = self._host
        instance = host.core.instances.get(call.instance_id)
        if instance is None:
            self._reply(to, h.NULL)
            return
        exports = isinstance(call.request, r.Export)
        exported = exported_of(instance) if exports else None  # of the same moment
        host.queued[to] = None

        def read(history: Raw | ShardrtError | None) -> None:
            if to not in host.queued:
                return  # it was refused when the partition went
            del host.queued[to]
            if history is None:
                host.look_again(call, to)  # that execution is over: read the current one
                return
            if isinstance(history, RecordCorrupt):
                self._reply(to, _damaged(call.instance_id, history))
            elif isinstance(history, ShardrtError):
                self._reply(to, r.Refusal(history.code, str(history), 1.0))
            elif exported is None:
                self._reply(to, history)
            else:
                self._reply(to, Raw(msgspec.json.encode(replace(exported, history=history))))

        host.history.encoded(call.instance_id, read)

    def _rewind(self, call: Forward, request: r.Rewind, to: To) -> None:
        host = self._host

        def rewind(history: list[h.HistoryEvent]) -> None:
            now = host.shard.clock.now()
            host.core.rewind(call.instance_id, request, history, call.origin, now, to)
            host.shard.wake(host)

        instance = host.core.instances.get(call.instance_id)
        if instance is None or instance.status is not h.Status.FAILED:
            rewind([])  # it is refused
            return
        host.queued[to] = None

        def read(history: list[h.HistoryEvent] | RecordCorrupt | None) -> None:
            if to not in host.queued:
                return  # it was refused when the partition went
            del host.queued[to]
            if isinstance(history, RecordCorrupt):
                self._reply(to, _damaged(call.instance_id, history))
                return
            if history is None:
                host.look_again(call, to)  # something has happened to it
                return
            rewind(history)

        host.rewinding.read(instance, read)

    def _reply(self, to: To, result: r.Result | r.Refusal | None) -> None:
        self._host.core.effects.append(Reply(to, result))
        self._host.shard.wake(self._host, work=False)


def _damaged(instance_id: str, error: RecordCorrupt) -> r.Refusal:
    message = f"instance {instance_id!r} is quarantined: its stored history {error}"
    return r.Refusal(InstanceQuarantined.code, message)


def _is_rebuildable(instance: Instance) -> bool:
    # Not while it is suspended: that is also what stops code which kills its shard.
    stopped = instance.is_final or instance.suspended or bool(instance.parked)
    return instance.turn > 0 and not stopped
