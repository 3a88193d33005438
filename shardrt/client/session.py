"""A session: numbered requests, kept until they are answered, over links that may break.

Every request has a number within the session, and an owner that has applied (session, number)
answers a repetition without applying it again. So whatever happens to a link, the session
sends what is unanswered once more over another one, and the outcome is as if it had been
sent once. `low`, the lowest number still open, tells owners what they may forget; reads do
not count, since nobody remembers them. Which link a request takes is the matter of `lines`.

What is sent in one turn of the loop travels together. Nothing here is awaited per request but
its future.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.client.lines import Line, Lines
from shardrt.client.pending import Pending
from shardrt.client.refusals import exception_of
from shardrt.client.results import decode_result, decode_snapshot, is_started
from shardrt.client.shared import Shared
from shardrt.client.window import HOLD_S, TOO_MUCH, StartWindow
from shardrt.client.wire import TypedAsk, TypedCall
from shardrt.core import requests
from shardrt.errors import (
    ConnectionLost,
    Overloaded,
    PartitionUnavailable,
    ShardrtError,
    Unauthorized,
)
from shardrt.links.backoff import Backoff
from shardrt.links.messages import Accepted, Answer, Serving, Welcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shardrt.client.lines import Dial
    from shardrt.core.requests import Refusal, Request
    from shardrt.links.admin import Question

SWEEP_S = 0.25
"""How often deadlines are looked at."""

RETRY_S = 0.05
"""The first pause before a refused request is sent again; it doubles up to a second."""

BUSY = 8
"""With fewer calls under way each leaves at once: the next may depend on its answer."""

_READS = (
    requests.Get,
    requests.GetHistory,
    requests.Export,
    requests.Wait,
    requests.GetEntity,
    requests.GetSlot,
    requests.Explain,
)


_OFTEN_VAIN = (requests.Suspend, requests.Resume, requests.Cancel, requests.Purge)


def _may_do_nothing(request: Request | Question) -> bool:
    """Whether a request may succeed with nothing to do: then it is not recognised if repeated."""
    if type(request) is requests.Start:
        return request.on_conflict == "return"
    return type(request) in _OFTEN_VAIN


class Session:
    """Asks owners of instances, by a line for each of these dials. See the module's text."""

    def __init__(
        self,
        *dials: Dial,
        call_timeout_s: float = 60.0,
        retry_overloaded: bool = True,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.welcome: Welcome | None = None
        """What the host said last about itself."""
        self._call_timeout_s = call_timeout_s
        self._retry_overloaded = retry_overloaded
        self._make_backoff = backoff
        self._lines = Lines(self, dials)
        self._trouble = "not connected"
        self._seq = 0
        self._calls: dict[int, Pending] = {}
        """Unanswered requests that have a deadline."""
        self._waits: dict[int, Pending] = {}
        """Unanswered requests that have none."""
        self._writes: deque[int] = deque()
        """Numbers of requests that count for `low`, ascending; answered ones are skipped."""
        self._waits_by_instance: dict[str, Pending] = {}
        self._refused: list[Pending] = []
        """To be sent again soon; each also is in `_calls` or `_waits`."""
        self._loop = asyncio.get_running_loop()
        self._window = StartWindow(self._loop, self._send_held)
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def open(self, within_s: float = 0.0) -> None:
        """Connect to any host, trying for so long; from then on stay connected until `close`.

        Raises:
            ConnectionLost: no host cannot be reached.
            Unauthorized: a host does not take the token.
        """
        deadline = self._loop.time() + within_s
        backoff = self._make_backoff()
        while True:
            try:
                await self._lines.connect()
                break
            except ConnectionLost:
                if self._loop.time() >= deadline:
                    raise
                await asyncio.sleep(backoff.next_s())
        self._sweep()
        self._lines.keep(self._make_backoff)

    async def close(self) -> None:
        """End all links; what is unanswered fails with `ConnectionLost`."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._window.close()
        # No await before all is told to end: whoever closes may be cancelled.
        self._lines.close()
        try:
            await self._lines.closed()
        finally:
            self._fail_all(ConnectionLost("the client was closed"))

    @property
    def is_connected(self) -> bool:
        return self._lines.main is not None

    @property
    def is_calling(self) -> bool:
        """Whether anything is unanswered that has a deadline."""
        return bool(self._calls)

    @property
    def is_waiting(self) -> bool:
        """Whether anything is unanswered."""
        return bool(self._calls or self._waits)

    @property
    def is_busy(self) -> bool:
        """Whether so much is under way that what is sent may gather for a moment."""
        return len(self._calls) >= BUSY

    @property
    def is_overloaded(self) -> bool:
        """Whether a start would be given up, or held back, without being sent."""
        return not self._window.is_open

    # -- asking ---------------------------------------------------------------------------------

    def submit(
        self,
        instance_id: str,
        request: Request | Question,
        timeout_s: float | None = None,
        *,
        wants_end: bool = False,
    ) -> asyncio.Future[Raw]:
        """Send a request soon; return the future of its encoded result.

        Of a start that `wants_end` that is a snapshot, or as without if the host says so.
        """
        if self._closed:
            raise ConnectionLost("the client was closed")
        self._seq = seq = self._seq + 1
        deadline = self._loop.time() + (timeout_s or self._call_timeout_s)
        future: asyncio.Future[Raw] = self._loop.create_future()
        pending = Pending(seq, instance_id, request, deadline, future, wants_end=wants_end)
        if type(request) is requests.Start and not self._window.is_open:
            if not self._retry_overloaded:
                future.set_exception(Overloaded(TOO_MUCH, HOLD_S))
                return future
            self._window.hold(pending)
        self._calls[seq] = pending
        if instance_id and type(request) not in _READS:
            self._writes.append(seq)
        if self._lines.main is not None and not pending.held:
            self._send(pending)
        return future

    async def execute(self, instance_id: str, start: requests.Start) -> requests.Snapshot:
        """Start an instance and wait until it has ended: one request, which may take for ever.

        Two where others may wait for the same end: those who do share theirs.
        """
        if start.on_conflict == "return":
            await self.submit(instance_id, start)
            return await self.wait(instance_id)
        answer = await self.submit(instance_id, start, wants_end=True)
        if is_started(answer):
            return await self.wait(instance_id)
        end = decode_snapshot(answer)
        assert end is not None, "such a start is answered with a snapshot"
        return end

    async def wait(self, instance_id: str) -> requests.Snapshot:
        """Wait until an instance has ended; cancelling it is free.

        All who wait for one instance share a request, which is kept when nobody is left: the
        protocol has no way to take it back, and the next to ask finds it under way.
        """
        pending = self._waits_by_instance.get(instance_id)
        if pending is None or pending.future.done():
            pending = self._submit_wait(instance_id)
        assert type(pending.future) is Shared, "that of a wait"
        result = decode_snapshot(await pending.future.wait(self._loop))
        assert result is not None, "a wait is answered with a snapshot"
        return result

    async def call(
        self, instance_id: str, request: Request, timeout_s: float | None = None
    ) -> requests.Result | None:
        """Ask the owner of an instance, and return the decoded result.

        `Get`, `GetHistory` and `Export` return None if there is no such instance.
        """
        if type(request) is requests.Wait:
            return await self.wait(instance_id)
        return decode_result(request, await self.submit(instance_id, request, timeout_s))

    async def ask(self, question: Question) -> Raw:
        """Ask about the hub or host; return the answer's JSON."""
        return await self.submit("", question)

    def _submit_wait(self, instance_id: str) -> Pending:
        if self._closed:
            raise ConnectionLost("the client was closed")
        self._seq = seq = self._seq + 1
        pending = Pending(seq, instance_id, requests.Wait(), None, Shared())
        self._waits[seq] = pending
        self._waits_by_instance[instance_id] = pending
        if self._lines.main is not None:
            self._send(pending)
        return pending

    def _send(self, pending: Pending) -> None:
        lines = self._lines
        line = pending.line = lines.line_to(pending.instance_id) if lines.routes else lines.main
        assert line is not None
        assert line.link is not None
        request = pending.request
        if type(request) is requests.Start:
            if pending.attempts and request.fresh:
                pending.request = request = msgspec.structs.replace(request, fresh=False)
            if not pending.in_window:
                self._window.entered(pending)
        pending.attempts += 1
        message = (
            TypedCall(pending.seq, self._low(), pending.instance_id, request, pending.wants_end)
            if pending.instance_id
            else TypedAsk(pending.seq, request)
        )
        line.link.send(message)

    def _low(self) -> int:
        writes, calls = self._writes, self._calls
        while writes and writes[0] not in calls:
            writes.popleft()
        return writes[0] if writes else self._seq + 1

    # -- answers --------------------------------------------------------------------------------

    def on_messages(self, line: Line, messages: list[Any]) -> None:
        """Take what came by a line."""
        calls = self._calls
        for answer in messages:
            if type(answer) is not Answer:
                if type(answer) is Accepted:
                    self._on_accepted(answer.seqs)
                elif type(answer) is Serving:
                    self._lines.on_serving(line, answer)
                continue
            seq = answer.seq
            pending = calls.get(seq) or self._waits.get(seq)
            if pending is None:
                continue
            if answer.refusal is None:
                if pending.in_window:
                    self._window.taken()
                self._forget(pending)
                if not pending.future.done():
                    pending.future.set_result(answer.result)
            else:
                self._on_refusal(line, pending, answer.refusal)

    def _on_accepted(self, seqs: Iterable[int]) -> None:
        """Learn that starts are durable: from now on they are waits."""
        for seq in seqs:
            pending = self._calls.get(seq)
            if pending is None or not pending.wants_end:
                continue
            if pending.in_window:
                self._window.taken()
            self._forget(pending)
            if not pending.future.done():
                pending.request, pending.deadline = requests.Wait(), None
                pending.in_window = pending.wants_end = False
                self._waits[seq] = pending

    def _on_refusal(self, line: Line, pending: Pending, refusal: Refusal) -> None:
        if pending.line is not line:
            # It was sent again since, and that is answered, too; maybe by this very line.
            if line in pending.elsewhere:
                at = pending.elsewhere.index(line)
                pending.elsewhere = pending.elsewhere[:at] + pending.elsewhere[at + 1 :]
            return
        if refusal.code == PartitionUnavailable.code:
            self._lines.on_unserved(line, pending.instance_id)
        passing = refusal.code == PartitionUnavailable.code or (
            refusal.code == Overloaded.code
            and (self._retry_overloaded or type(pending.request) is requests.Wait)
        )
        overloaded = refusal.code == Overloaded.code and type(pending.request) is requests.Start
        if overloaded:
            self._window.refused(pending)
        if not passing and pending.elsewhere:
            # What is refused must not be done later: its other copies come first.
            pending.line, *others = pending.elsewhere
            pending.elsewhere = tuple(others)
            return
        if not passing:
            self._fail(pending, exception_of(refusal))
            return
        pending.line = None
        pending.refusal = refusal
        if overloaded:
            self._window.hold(pending)
            return
        self._refused.append(pending)
        if len(self._refused) == 1:
            pause_s = min(1.0, RETRY_S * 2.0 ** min(pending.attempts - 1, 10))
            self._loop.call_later(max(pause_s, refusal.retry_after_s or 0), self._resend_refused)

    def _resend_refused(self) -> None:
        refused, self._refused = self._refused, []
        if self._lines.main is None:
            return  # all of them go out with the next link
        for pending in refused:
            if not pending.future.done():
                self._send(pending)
            else:
                self._forget(pending)

    def _must_wait(self, pending: Pending) -> bool:
        is_new = type(pending.request) is requests.Start and not pending.in_window
        return is_new and not self._window.has_room

    def _send_held(self, pending: Pending) -> bool:
        if pending.future.done():
            self._forget(pending)
        elif self._lines.main is None:
            return False
        else:
            self._send(pending)
        return True

    # -- lines ----------------------------------------------------------------------------------

    def on_up(self) -> None:
        """Send all that is unanswered: there is a line again."""
        self._refused = []
        self._send_again([*self._calls.values(), *self._waits.values()])

    def on_down(self, line: Line) -> None:
        """Learn that a link has ended, and send what was under way there by the others."""
        self._trouble = "the link to the host broke"
        unanswered = [*self._calls.values(), *self._waits.values()]
        lost = [pending for pending in unanswered if pending.line is line]
        for pending in unanswered:
            if pending.elsewhere:
                pending.elsewhere = tuple(each for each in pending.elsewhere if each is not line)
        for pending in lost:
            pending.line = None
        if self._lines.main is not None and not self._closed:
            self._send_again(lost)

    def on_rerouted(self) -> None:
        """Send calls that go by another line now once more, before any new ones do.

        They would get there as well, but behind those, and a host that does not run holds them
        back. Waits have no order, and there may be many; starts beyond the window stay, too. And so
        does what leaves no trace if there is nothing to do: a late copy could find something.
        """
        line_to = self._lines.line_to
        for pending in list(self._calls.values()):
            line = pending.line
            if line is None or line is line_to(pending.instance_id):
                continue
            if pending.future.done():
                self._forget(pending)
            elif not (_may_do_nothing(pending.request) or self._must_wait(pending)):
                pending.elsewhere = (*pending.elsewhere, line)
                self._send(pending)

    def on_trouble(self, error: ShardrtError) -> None:
        """Learn that a host cannot be reached."""
        self._trouble = str(error)
        if isinstance(error, Unauthorized) and self._lines.main is None:
            self._fail_all(error)

    def _send_again(self, unanswered: Iterable[Pending]) -> None:
        for pending in unanswered:
            if pending.held:
                continue
            if pending.future.done():
                self._forget(pending)
            elif self._must_wait(pending):
                self._window.hold(pending)
            else:
                self._send(pending)
        self._window.send_held()

    # -- the end of requests --------------------------------------------------------------------

    def _forget(self, pending: Pending) -> None:
        if self._calls.pop(pending.seq, None) is None:
            self._waits.pop(pending.seq, None)
            if self._waits_by_instance.get(pending.instance_id) is pending:
                del self._waits_by_instance[pending.instance_id]
        elif pending.in_window:
            self._window.left(pending)

    def _fail(self, pending: Pending, error: ShardrtError) -> None:
        self._forget(pending)
        if not pending.future.done():
            pending.future.set_exception(error)

    def _fail_all(self, error: ShardrtError) -> None:
        for pending in [*self._calls.values(), *self._waits.values()]:
            self._fail(pending, error)

    def _sweep(self) -> None:
        now = self._loop.time()
        for pending in list(self._calls.values()):
            if pending.deadline is not None and pending.deadline <= now:
                self._fail(pending, self._reason_of_no_answer(pending))
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _reason_of_no_answer(self, pending: Pending) -> ShardrtError:
        if self._lines.main is None:
            return ConnectionLost(self._trouble)
        if pending.refusal is not None:
            return exception_of(pending.refusal)
        if pending.held:
            return Overloaded(TOO_MUCH, HOLD_S)
        return ConnectionLost("the host did not answer in time")
