"""What is refused before it reaches a partition: overload, and requests that make no sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Raw
from msgspec.json import decode as decode_json, encode as encode_json
from msgspec.structs import replace

from shardrt.core import requests as r
from shardrt.core.entity import is_entity_id, name_and_key
from shardrt.core.limiter import is_limiter_id
from shardrt.core.trace_context import UNRECORDED, checked
from shardrt.errors import ShardrtError
from shardrt.host.bounds import Bounds
from shardrt.host.vetting import vetting_of
from shardrt.orchestration.schedules import SCHEDULE, Progress

if TYPE_CHECKING:
    from shardrt.config import Settings
    from shardrt.host.partition_host import PartitionHost
    from shardrt.host.shard import Shard
    from shardrt.links.messages import Forward
    from shardrt.orchestration.app import App
    from shardrt.tracing.tracer import Tracer

RETRY_AFTER_S = 0.5
NAMES_TOLD_MAX = 20
_TRACED = (r.Restart, r.Raise)
"""Beside starts."""


class Intake:
    """Checks of one shard. A refused request has changed nothing."""

    def __init__(
        self, settings: Settings, app: App, shard: Shard, tracer: Tracer | None = None
    ) -> None:
        self._bounds = Bounds(settings.limits)
        self._in_flight_max = settings.shard.requests_in_flight_max
        self._bytes_in_flight_max = settings.shard.journal_buffer_bytes_max
        self._starts_waiting_max = settings.shard.starts_waiting_max
        self.starts_waiting = 0
        """Instances whose first turn is to come, as of the last turn of each partition."""
        self.starts_taken = 0
        """Starts since the last turn, or for a while, that have passed the check here: those that
        no turn has counted yet, and those that were refused after all."""
        self._app = app
        self._shard = shard
        self._tracer = tracer
        self.vetting = vetting_of(app, shard)
        """Looks at starts and events, if the app has middleware for that."""

    def close(self) -> None:
        """Drop the requests that are being looked at."""
        if self.vetting is not None:
            self.vetting.close()

    def check(self, call: Forward) -> r.Refusal | None:
        """Return why the request is refused, or None."""
        return self._check_room() or self._check_request(call)

    def count_starts(self, host: PartitionHost) -> None:
        """Count those of a partition anew that wait for their first turn."""
        waiting = 0 if host.closed else len(host.core.starting)
        self.starts_waiting += waiting - host.starts_waiting
        host.starts_waiting = waiting

    def pinned(self, call: Forward) -> Forward:
        """Return a checked call with the version to run in it, so that it stays the same."""
        start = call.request
        if type(start) is r.Start:
            self.starts_taken += 1
        else:
            return self._checked(call, start) if isinstance(start, _TRACED) else call
        if start.trace or self._tracer is not None:
            trace = self._trace_of(start)
            if trace != start.trace:
                start = replace(start, trace=trace)
                call = replace(call, request=start)
        if start.version is not None:
            return call
        version = self._app.find_orchestrator(start.name).version
        if version is None:
            return call
        return replace(call, request=replace(start, version=version))

    def _checked(self, call: Forward, request: r.Restart | r.Raise) -> Forward:
        trace = checked(request.trace)
        if not trace and isinstance(request, r.Restart) and self._tracer is not None:
            trace = self._tracer.begin()
        if trace == request.trace:
            return call
        return replace(call, request=replace(request, trace=trace))

    def _trace_of(self, start: r.Start) -> str:
        """Return the context of a start if it is one, else one that begins a trace, if any."""
        trace = checked(start.trace) if start.trace else ""
        if not trace and self._tracer is not None and start.trace != UNRECORDED:
            trace = self._tracer.begin()
        # A schedule has no end: what it starts begins traces.
        return "" if trace and start.name == SCHEDULE else trace

    def _check_room(self) -> r.Refusal | None:
        if self._shard.requests_in_flight >= self._in_flight_max:
            message = f"{self._shard.requests_in_flight} requests are in flight"
            return r.Refusal("Overloaded", message, RETRY_AFTER_S)
        if self._shard.bytes_in_flight >= self._bytes_in_flight_max:
            message = f"requests with {self._shard.bytes_in_flight} bytes are in flight"
            return r.Refusal("Overloaded", message, RETRY_AFTER_S)
        return None

    def _check_request(self, call: Forward) -> r.Refusal | None:
        problem = self._bounds.instance_id(call.instance_id)
        if problem is not None:
            return r.Refusal("InputInvalid", problem)
        if is_limiter_id(call.instance_id) and not _is_for_limiters(call.request):
            return r.Refusal("InputInvalid", f"{call.instance_id!r} is reserved")
        check = self._CHECKS.get(type(call.request))
        return None if check is None else check(self, call.instance_id, call.request)

    def _check_event(self, _instance_id: str, event: r.Raise) -> r.Refusal | None:
        problem = self._bounds.name(event.name, "the name of an event")
        if problem is not None:
            return r.Refusal("InputInvalid", problem)
        return self._check_payload(event.data, "event data")

    def _check_operation(
        self, instance_id: str, request: r.SignalEntity | r.CallEntity
    ) -> r.Refusal | None:
        if not is_entity_id(instance_id):
            return r.Refusal("InputInvalid", f"{instance_id!r} is no entity id: write @name@key")
        name, _ = name_and_key(instance_id)
        if name != name.lower():
            return r.Refusal("InputInvalid", f"{instance_id!r}: the name must be in lower case")
        problem = self._bounds.name(request.name, "the name of an operation")
        if problem is not None:
            return r.Refusal("InputInvalid", problem)
        try:
            self._app.find_entity(name)
        except ShardrtError as error:
            return r.Refusal(error.code, str(error))
        return self._check_payload(request.input, "input")

    def _check_start(self, _instance_id: str, start: r.Start) -> r.Refusal | None:
        if self._shard.is_crowded or self._waiting() >= self._starts_waiting_max:
            return self._too_many()
        if start.on_conflict not in {"fail", "return", "restart"}:
            message = f"on_conflict is {start.on_conflict!r}; use fail, return or restart"
            return r.Refusal("InputInvalid", message)
        texts = [text for tag in (start.tags or {}).items() for text in tag if text]
        for text in texts:
            problem = self._bounds.name(text, "a tag")
            if problem is not None:
                return r.Refusal("InputInvalid", problem)
        refusal = self._check_payload(start.input, "input")
        if refusal is not None:
            return refusal
        try:
            orchestrator = self._app.find_orchestrator(start.name, start.version)
            sealer = self._app.sealer
            opened = start.input if sealer is None else sealer.open(start.input)
            orchestrator.binding.arguments(None, opened)
        except ShardrtError as error:
            return r.Refusal(error.code, str(error) + self._names_instead(start.name))
        return self._check_scheduled(opened) if start.name == SCHEDULE else None

    def _check_scheduled(self, progress: Raw) -> r.Refusal | None:
        """Return why what a schedule is to start would be refused: now, not whenever it is due."""
        schedule = decode_json(progress, type=Progress).schedule
        try:
            orchestrator = self._app.find_orchestrator(schedule.orchestrator, schedule.version)
            orchestrator.binding.arguments(None, Raw(encode_json(schedule.input)))
        except ShardrtError as error:
            return r.Refusal(error.code, str(error) + self._names_instead(schedule.orchestrator))
        return None

    def _waiting(self) -> int:
        return self.starts_waiting + self.starts_taken + self._shard.starts_held

    def _too_many(self) -> r.Refusal:
        message = (
            "memory is full of busy instances"
            if self._shard.is_crowded
            else f"{self._waiting()} instances wait for their first turn"
        )
        return r.Refusal("Overloaded", message, RETRY_AFTER_S)

    def _names_instead(self, name: str) -> str:
        names = sorted({each.name for each in self._app.orchestrators})
        if name in names or len(names) > NAMES_TOLD_MAX:
            return ""
        return f"; there is {', '.join(names)}" if names else "; the app has none"

    def _check_payload(self, payload: Raw, what: str) -> r.Refusal | None:
        problem = self._bounds.payload(payload, what)
        if problem is not None:
            return r.Refusal("PayloadTooLarge", problem)
        problem = self._bounds.foreign(payload, what)
        return None if problem is None else r.Refusal("InputInvalid", problem)

    _CHECKS: ClassVar[dict[type, Any]] = {
        r.Start: _check_start,
        r.Raise: _check_event,
        r.SignalEntity: _check_operation,
        r.CallEntity: _check_operation,
    }


def _is_for_limiters(request: r.Request) -> bool:
    if isinstance(request, r.Purge):
        return request.force
    return isinstance(request, (r.GetSlot, r.Resume))
