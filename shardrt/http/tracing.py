"""Takes requests into the traces of those who make them: the headers of W3C Trace Context."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from shardrt.core.requests import Raise, Start
from shardrt.core.trace_context import UNRECORDED, checked, is_sampled
from shardrt.tracing.joining import current_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from msgspec import Raw
    from starlette.types import ASGIApp, Receive, Scope, Send

    from shardrt.core.requests import Request, Result
    from shardrt.http.caller import Caller
    from shardrt.links.admin import Question
    from shardrt.tracing.tracer import Tracer


class Joined:
    """An application whose requests belong to the trace that they say, while there is a tracer."""

    def __init__(self, app: ASGIApp, tracer: Callable[[], Tracer | None]) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, within the span of whoever made it."""
        # What traces the whole program has been here before, and knows better.
        if scope["type"] == "http" and self._tracer() is not None and not current_trace():
            trace = _trace_of(scope)
            if trace:
                within: Any = import_module("shardrt.tracing.tracer").within
                with within(trace):
                    await self._app(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _trace_of(scope: Scope) -> str:
    headers = dict(scope["headers"])
    trace = headers.get(b"traceparent", b"").decode("latin-1")
    state = headers.get(b"tracestate", b"").decode("latin-1")
    return checked(f"{trace} {state}" if state else trace)


class Managed:
    """A caller that makes requests within spans, while there is a tracer.

    Whether a trace is recorded is decided first: there is no span that is thrown away, and no
    context of one goes with what is started.
    """

    def __init__(self, caller: Caller, tracer: Callable[[], Tracer | None]) -> None:
        self._caller = caller
        self._tracer = tracer

    async def call(self, instance_id: str, request: Request) -> Result | None:
        tracer = self._tracer()
        if tracer is None:
            return await self._caller.call(instance_id, request)
        outer = current_trace()
        if not (is_sampled(outer) if outer else tracer.begin()):
            if isinstance(request, (Start, Raise)):
                request = replace(request, trace=outer or UNRECORDED)
            return await self._caller.call(instance_id, request)
        # By name: it needs a package that is optional.
        managing: Any = import_module("shardrt.tracing.managing")
        answer: Coroutine[Any, Any, Result | None] = managing.serve_within_span(
            self._caller, instance_id, request, tracer.live
        )
        return await answer

    async def ask(self, question: Question) -> Raw:
        return await self._caller.ask(question)
