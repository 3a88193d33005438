"""The gateway: takes clients' calls to the owners of their instances, and the answers back.

It looks at envelopes only; payloads are spliced through as the bytes they came in. It keeps
every call until it is answered. When the link to a shard breaks, or a partition moves, the
call is sent to wherever the partition is served next, as the same request of the same client,
so that the owner can tell a repetition. A call for which there is no owner for too long is
refused as `PartitionUnavailable`, which clients know how to retry.

Every number that grows with load has a limit, beyond which calls are refused as `Overloaded`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import Raw

from shardrt.core.ids import partition_of
from shardrt.core.json_text import is_deeper
from shardrt.core.requests import Origin
from shardrt.errors import InputInvalid, Overloaded, PartitionUnavailable, ProtocolViolation
from shardrt.http.calls import WAIT, PendingCall, compact, is_start
from shardrt.http.upstream import Keep, Upstream, keep_unix
from shardrt.http.visitor import TypedVisitor, Visitor
from shardrt.links.admin import Cluster, Metrics, Question
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import Answer, Ask, Call, Forget, ForwardRaw, Welcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.client.session import Dial
    from shardrt.links.base import Link, LinkHandler

logger = logging.getLogger(__name__)

CALLS_MAX = 400_000
"""Calls under way through one gateway, waits included; about 1 kB each."""
CALLS_PER_CLIENT_MAX = 200_000
STRANDED_S_MAX = 20.0
"""How long a call is kept without an owner to send it to."""
SWEEP_S = 1.0
RETRY_AFTER_S = 0.1
OVERLOADED_RETRY_AFTER_S = 0.5
SEQ_MAX = 2**53

AskSupervisor: TypeAlias = Callable[
    [Literal["cluster", "metrics"], Callable[[dict[str, Any]], None]], None
]
"""Ask the supervisor for its view of the cluster, or samples, and have it told to a callback."""

_decode_question = msgspec.json.Decoder(Question).decode
DEPTH_MAX = 600
"""Deeper requests might be decoded here and not by a shard, whose frames add a few levels;
any host's own limit for payloads is lower."""


class Gateway:
    """Routes calls. Run `run` as a task, and tell it the routes as they change.

    Args:
        welcome: what clients are told at first.
        keep: how links to shards are made; default: over Unix sockets.
        ask_supervisor: whom to ask about the cluster and this host; default: nobody.
        stranded_s_max: how long a call is kept without an owner.
        instance_id_chars_max: length of ids beyond which they are refused.
    """

    def __init__(
        self,
        welcome: Welcome,
        *,
        keep: Keep = keep_unix,
        ask_supervisor: AskSupervisor | None = None,
        stranded_s_max: float = STRANDED_S_MAX,
        instance_id_chars_max: int = 255,
    ) -> None:
        self.welcome = welcome
        self.draining = False
        """Set when no further instances shall be started."""
        self._keep = keep
        self._ask_supervisor = ask_supervisor
        self._stranded_s_max = stranded_s_max
        self._instance_id_chars_max = instance_id_chars_max
        self._loop = asyncio.get_running_loop()
        self._routes: list[Upstream | None] = [None] * welcome.partitions
        self._upstreams: dict[str, Upstream] = {}
        self._routed = asyncio.Event()
        self._was_complete = False
        self._seq = 0
        self._pending: dict[int, PendingCall] = {}
        """Calls under way by our number, in order of their sending."""
        self._visitors: set[Visitor] = set()

    # -- clients --------------------------------------------------------------------------------

    def accept(self, link: Link) -> Visitor:
        """Listen to a client; an `Accept`."""
        visitor = Visitor(self, link)
        self._visitors.add(visitor)
        return visitor

    def dial(self) -> Dial:
        """Return how a session in this process reaches this gateway."""

        async def dial(session_id: str, session: LinkHandler) -> tuple[Link, Welcome]:
            def far(link: Link) -> Visitor:
                visitor = TypedVisitor(self, link)
                visitor.session_id = session_id
                self._visitors.add(visitor)
                return visitor

            return connect_in_process(lambda _: session, far), self.welcome

        return dial

    def leave(self, visitor: Visitor) -> None:
        """Forget a client and its calls, and let shards forget what it waited for."""
        self._visitors.discard(visitor)
        waits: dict[Upstream, list[int]] = {}
        for seq in visitor.open:
            pending = self._pending.pop(seq, None)
            if pending is None or not pending.is_wait:
                continue
            if pending.upstream is not None:
                waits.setdefault(pending.upstream, []).append(seq)
        visitor.open.clear()
        for upstream, seqs in waits.items():
            if upstream.link is not None:
                upstream.link.send(Forget(tuple(seqs)))

    # -- calls ----------------------------------------------------------------------------------

    def forward(self, visitor: Visitor, call: Call) -> None:
        """Send a call to its owner; refuse it if that cannot be."""
        if not 0 <= call.low <= SEQ_MAX or not 0 <= call.seq <= SEQ_MAX:
            raise ProtocolViolation("numbers of calls must be between 0 and 2**53")
        if not self._admit(visitor, call.seq) or not self._is_sound(visitor, call):
            return
        request = compact(call.request)
        partition = partition_of(call.instance_id, self.welcome.partitions)
        upstream = self._routes[partition]
        if upstream is None or (self.draining and is_start(request)):
            why = "this host is shutting down" if self.draining else "it has no owner right now"
            self._unavailable(visitor, call.seq, f"partition {partition}: {why}")
            return
        self._seq = seq = self._seq + 1
        origin = Origin(visitor.session_id, call.seq, call.low)
        message = ForwardRaw(seq, partition, origin, call.instance_id, request)
        pending = PendingCall(visitor, call.seq, message, is_wait=request is WAIT)
        self._dispatch(seq, pending, upstream)

    def ask(self, visitor: Visitor, ask: Ask) -> None:
        """Send a question to any shard, or to the supervisor."""
        if not 0 <= ask.seq <= SEQ_MAX or not self._admit(visitor, ask.seq):
            return
        try:
            question = _decode_question(ask.question)
        except (msgspec.MsgspecError, UnicodeError) as error:
            visitor.refuse(ask.seq, ProtocolViolation.code, f"not a question: {error}")
            return
        if isinstance(question, (Cluster, Metrics)):
            self._ask_about_host(visitor, ask.seq, question)
            return
        upstream = self._any_upstream()
        if upstream is None:
            self._unavailable(visitor, ask.seq, "no shard can be reached right now")
            return
        self._seq = seq = self._seq + 1
        pending = PendingCall(visitor, ask.seq, Ask(seq, ask.question), is_wait=False)
        self._dispatch(seq, pending, upstream)

    def _admit(self, visitor: Visitor, seq: int) -> bool:
        if len(visitor.open) < CALLS_PER_CLIENT_MAX and len(self._pending) < CALLS_MAX:
            return True
        text = f"{len(self._pending)} calls are under way"
        visitor.refuse(seq, Overloaded.code, text, OVERLOADED_RETRY_AFTER_S)
        return False

    def _is_sound(self, visitor: Visitor, call: Call) -> bool:
        instance_id = call.instance_id
        if len(memoryview(call.request)) > DEPTH_MAX and is_deeper(call.request, DEPTH_MAX):
            visitor.refuse(call.seq, InputInvalid.code, f"nested more than {DEPTH_MAX} deep")
            return False
        if 0 < len(instance_id) <= self._instance_id_chars_max and instance_id.isprintable():
            return True
        text = f"instance ids have 1 to {self._instance_id_chars_max} printable characters"
        visitor.refuse(call.seq, InputInvalid.code, text)
        return False

    def _unavailable(self, visitor: Visitor, seq: int, why: str) -> None:
        visitor.refuse(seq, PartitionUnavailable.code, why, RETRY_AFTER_S)

    def _dispatch(self, seq: int, pending: PendingCall, upstream: Upstream) -> None:
        self._pending[seq] = pending
        pending.visitor.open.add(seq)
        if upstream.link is None:
            pending.stranded_at = self._loop.time()
        else:
            pending.upstream = upstream
            upstream.link.send(pending.message)

    def _ask_about_host(self, visitor: Visitor, seq: int, question: Cluster | Metrics) -> None:
        if self._ask_supervisor is None:
            visitor.answer(seq, Raw(b"{}"))
            return
        self._ask_supervisor(
            "metrics" if isinstance(question, Metrics) else "cluster",
            lambda facts: visitor.answer(seq, Raw(msgspec.json.encode(facts))),
        )

    # -- answers --------------------------------------------------------------------------------

    def _on_answers(self, answers: list[Answer]) -> None:
        pending = self._pending
        for answer in answers:
            seq = answer.seq
            call = pending.pop(seq, None)
            if call is None:
                continue  # its client has gone, or it was sent elsewhere since
            visitor = call.visitor
            visitor.open.discard(seq)
            visitor.link.send(Answer(call.client_seq, answer.result, answer.refusal))

    # -- shards ---------------------------------------------------------------------------------

    def set_routes(self, targets: Sequence[str | None]) -> None:
        """Adopt who serves what: the path of a shard's socket per partition, or None.

        Calls under way to a shard that a partition has left are sent to its new owner.
        """
        for partition in range(self.welcome.partitions):
            target = targets[partition] if partition < len(targets) else None
            self._routes[partition] = self._upstream(target)
        self._was_complete = self._was_complete or None not in self._routes
        self._routed.set()
        for seq, call in list(self._pending.items()):
            if isinstance(call.message, ForwardRaw):
                owner = self._routes[call.message.partition]
                if owner is not None and owner is not call.upstream:
                    self._resend(seq, call)

    def _upstream(self, address: str | None) -> Upstream | None:
        # URLs are other hosts, to which there are no links yet.
        if address is None or "://" in address:
            return None
        upstream = self._upstreams.get(address)
        if upstream is None:
            upstream = Upstream(address, self._on_opened, self._on_answers, self._on_lost)
            self._upstreams[address] = upstream
        return upstream

    def _any_upstream(self) -> Upstream | None:
        linked = [each for each in self._upstreams.values() if each.link is not None]
        return linked[self._seq % len(linked)] if linked else None

    def _on_opened(self) -> None:
        # Only when the handler is in place may anything be sent.
        self._loop.call_soon(self._send_stranded)

    def _on_lost(self, upstream: Upstream) -> None:
        now = self._loop.time()
        for call in self._pending.values():
            if call.upstream is upstream:
                call.upstream = None
                call.stranded_at = now
        self._send_stranded()

    def _send_stranded(self) -> None:
        for seq, call in list(self._pending.items()):
            if call.upstream is None:
                self._resend(seq, call)

    def _resend(self, seq: int, call: PendingCall) -> None:
        message = call.message
        upstream = (
            self._any_upstream() if isinstance(message, Ask) else self._routes[message.partition]
        )
        if upstream is None or upstream.link is None:
            if call.upstream is not None:
                call.upstream = None
                call.stranded_at = self._loop.time()
            return
        # Under a new number: an answer to the old one could be of an owner that has lost the
        # partition meanwhile.
        del self._pending[seq]
        call.visitor.open.discard(seq)
        self._seq = seq = self._seq + 1
        call.message = call.renumbered(seq)
        self._dispatch(seq, call, upstream)

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep links to all shards that routes name, until cancelled."""
        kept: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep())
            while True:
                await self._routed.wait()
                self._routed.clear()
                for address, upstream in self._upstreams.items():
                    if address not in kept:
                        kept[address] = tasks.create_task(self._keep(address, upstream.accept))
                for address in self._unused():
                    kept.pop(address).cancel()
                    del self._upstreams[address]

    def _unused(self) -> list[str]:
        used = {each.address for each in self._routes if each is not None}
        used |= {call.upstream.address for call in self._pending.values() if call.upstream}
        return [address for address in self._upstreams if address not in used]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.expire()
            if self._unused():
                self._routed.set()

    def expire(self) -> None:
        """Refuse calls that have been without an owner for too long."""
        since = self._loop.time() - self._stranded_s_max
        for seq, call in list(self._pending.items()):
            if call.upstream is None and call.stranded_at <= since:
                del self._pending[seq]
                call.visitor.open.discard(seq)
                text = f"no owner for {self._stranded_s_max:g} s"
                self._unavailable(call.visitor, call.client_seq, text)

    async def drain(self, grace_s: float) -> None:
        """Start no more instances, and answer what is under way, for so long at most."""
        self.draining = True
        deadline = self._loop.time() + grace_s
        while self.calls_under_way and self._loop.time() < deadline:  # noqa: ASYNC110 - once in a life
            await asyncio.sleep(0.02)
        for visitor in list(self._visitors):
            visitor.link.close()

    @property
    def calls_under_way(self) -> int:
        """Calls without an answer, those not counted that wait for an instance to end."""
        return sum(not call.is_wait for call in self._pending.values())

    @property
    def is_ready(self) -> bool:
        """Whether to send clients here: all partitions were served once, and some still are."""
        return not self.draining and self._was_complete and self.partitions_served > 0

    @property
    def partitions_served(self) -> int:
        """Partitions to whose owner there is a link."""
        return sum(each is not None and each.link is not None for each in self._routes)
