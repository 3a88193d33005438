"""The gateway: takes clients' calls to the owners of their instances, and the answers back.

It looks at envelopes only; payloads are spliced through as the bytes they came in. Where calls
go, and what becomes of those whose partition moves, is decided by its router
(`cluster.routing`). Other hosts come here with what they have for our shards.

Every number that grows with load has a limit, beyond which calls are refused as `Overloaded`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Raw

from shardrt.cluster.announcing import Announcer
from shardrt.cluster.calls import WAIT, PendingCall, compact, is_start
from shardrt.cluster.peers import PeerVisitor
from shardrt.cluster.routing import OVERLOADED_RETRY_AFTER_S, RETRY_AFTER_S, Router
from shardrt.core.ids import partition_of
from shardrt.core.json_text import is_deeper
from shardrt.core.requests import Origin
from shardrt.errors import InputInvalid, Overloaded, PartitionUnavailable, ProtocolViolation
from shardrt.host.keeping import keep_unix
from shardrt.http.visitor import TypedVisitor, Visitor
from shardrt.links import control
from shardrt.links.admin import Cluster, HostHealth, HostQuestion, Metrics, Question
from shardrt.links.inprocess import connect_in_process
from shardrt.links.messages import Ask, Call, ForwardRaw, Welcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shardrt.client.lines import Asker, Dial
    from shardrt.cluster.upstream import Keep
    from shardrt.links.base import Link

logger = logging.getLogger(__name__)

STRANDED_S_MAX = 20.0
"""How long a call is kept without an owner to send it to, unless told otherwise."""
SEQ_MAX = 2**53

AskSupervisor: TypeAlias = Callable[[control.Subject, Callable[[dict[str, Any]], None]], None]
"""Ask the supervisor for its view of the cluster, samples, or health, and have it told to a
callback."""
_SUBJECTS: dict[type[HostQuestion], control.Subject] = {
    Cluster: "cluster",
    Metrics: "metrics",
    HostHealth: "health",
}

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
        look: called when routes have led nowhere, now and then.
        nudged: called when another host has given something away.
        stranded_s_max: how long a call is kept without an owner.
        instance_id_chars_max: length of ids beyond which they are refused.
    """

    def __init__(  # noqa: PLR0913 - its whole surroundings
        self,
        welcome: Welcome,
        *,
        keep: Keep = keep_unix,
        ask_supervisor: AskSupervisor | None = None,
        look: Callable[[], None] = lambda: None,
        nudged: Callable[[], None] = lambda: None,
        stranded_s_max: float = STRANDED_S_MAX,
        instance_id_chars_max: int = 255,
    ) -> None:
        self.welcome = welcome
        self.draining = False
        """Set when no further instances shall be started."""
        self.leaving = False
        """Set when clients should go to other hosts; those that are here are still served."""
        self.owner = ""
        """The owner that this host is, by which others expect it."""
        self.announcer = Announcer()
        self._nudged = nudged
        self.router = Router(
            welcome.partitions, keep=keep, stranded_s_max=stranded_s_max, look=look
        )
        self._ask_supervisor = ask_supervisor
        self._instance_id_chars_max = instance_id_chars_max
        self._loop = asyncio.get_running_loop()
        self._visitors: dict[Visitor, None] = {}
        self._peers: dict[PeerVisitor, None] = {}

    # -- clients --------------------------------------------------------------------------------

    def accept(self, link: Link) -> Visitor:
        """Listen to a client; an `Accept`."""
        visitor = Visitor(self, link)
        self._visitors[visitor] = None
        return visitor

    def accept_typed(self, link: Link, session_id: str) -> Visitor:
        """Listen to a client in this process, whose messages are not encoded."""
        visitor = TypedVisitor(self, link)
        visitor.session_id = session_id
        self._visitors[visitor] = None
        return visitor

    def dial(self) -> Dial:
        """Return how a session in this process reaches this gateway."""

        async def dial(session_id: str, session: Asker) -> tuple[Link, Welcome]:
            def far(link: Link) -> Visitor:
                return self.accept_typed(link, session_id)

            return connect_in_process(lambda _: session, far), self.welcome

        return dial

    def leave(self, visitor: Visitor) -> None:
        """Forget a client and its calls, and let shards forget what it waited for."""
        self._visitors.pop(visitor, None)
        self.announcer.leave(visitor.link)
        self.router.forget(visitor.open)

    # -- other hosts ----------------------------------------------------------------------------

    def accept_peer(self, link: Link) -> PeerVisitor:
        """Listen to a gateway or shard of another host; an `Accept`."""
        peer = PeerVisitor(self.router, link, look=self._nudged, left=self._left)
        self._peers[peer] = None
        return peer

    def _left(self, peer: PeerVisitor) -> None:
        self._peers.pop(peer, None)

    # -- calls ----------------------------------------------------------------------------------

    def forward(self, visitor: Visitor, call: Call) -> None:
        """Send a call to its owner; refuse it if that cannot be."""
        if not 0 <= call.low <= SEQ_MAX or not 0 <= call.seq <= SEQ_MAX:
            raise ProtocolViolation("numbers of calls must be between 0 and 2**53")
        if not self._admit(visitor, call.seq) or not self._is_sound(visitor, call):
            return
        request = compact(call.request)
        partition = partition_of(call.instance_id, self.welcome.partitions)
        if self.draining and (is_start(request) or self.router.routes[partition] is None):
            why = f"partition {partition}: this host is shutting down"
            visitor.refuse(call.seq, PartitionUnavailable.code, why, RETRY_AFTER_S)
            return
        seq = self.router.number()
        origin = Origin(visitor.session_id, call.seq, call.low)
        message = ForwardRaw(seq, partition, origin, call.instance_id, request, call.wants_end)
        self.router.send(seq, PendingCall(visitor, call.seq, message, is_wait=request is WAIT))

    def ask(self, visitor: Visitor, ask: Ask) -> None:
        """Send a question to any shard, or to the supervisor."""
        if not 0 <= ask.seq <= SEQ_MAX or not self._admit(visitor, ask.seq):
            return
        try:
            question = _decode_question(ask.question)
        except (msgspec.MsgspecError, UnicodeError) as error:
            visitor.refuse(ask.seq, ProtocolViolation.code, f"not a question: {error}")
            return
        if isinstance(question, HostQuestion):
            self._ask_about_host(visitor, ask.seq, question)
            return
        seq = self.router.number()
        call = PendingCall(visitor, ask.seq, Ask(seq, ask.question), is_wait=False)
        self.router.send(seq, call)

    def _admit(self, visitor: Visitor, seq: int) -> bool:
        if self.router.has_room(visitor.open):
            return True
        text = f"{len(self.router.pending)} calls are under way"
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

    def _ask_about_host(self, visitor: Visitor, seq: int, question: HostQuestion) -> None:
        if self._ask_supervisor is None:
            visitor.answer(seq, Raw(b"null" if isinstance(question, HostHealth) else b"{}"))
            return
        self._ask_supervisor(
            _SUBJECTS[type(question)],
            lambda facts: visitor.answer(seq, Raw(msgspec.json.encode(facts))),
        )

    # -- routes ---------------------------------------------------------------------------------

    def set_routes(self, targets: Sequence[str | None], owner: str = "", era: int = 0) -> None:
        """Adopt who serves what (see `links.control.Routes`), and the owner that we are."""
        self.owner = owner
        self.router.set_routes(targets)
        self.announcer.set_routes(targets, era)

    async def run(self) -> None:
        """Keep links as routes need them, until cancelled."""
        await self.router.run()

    # -- the end --------------------------------------------------------------------------------

    async def drain(self, grace_s: float) -> None:
        """Answer what is under way, for so long at most; then end all links.

        Unless other hosts have taken over, no more instances are started meanwhile, and what
        finds no owner is refused.
        """
        self.draining = not self.leaving
        self.router.is_patient = self.leaving
        deadline = self._loop.time() + grace_s
        while self.calls_under_way and self._loop.time() < deadline:  # noqa: ASYNC110 - once in a life
            await asyncio.sleep(0.02)
        links = [each.link for each in self._visitors] + [each.link for each in self._peers]
        for link in links:
            link.close()

    @property
    def calls_under_way(self) -> int:
        """Calls without an answer, those not counted that wait for an instance to end."""
        return self.router.calls_under_way

    @property
    def is_ready(self) -> bool:
        """Whether to send clients here: all partitions were served once, and some still are."""
        going = self.draining or self.leaving
        return not going and self.router.was_complete and self.partitions_served > 0

    @property
    def partitions_served(self) -> int:
        """Partitions whose owner can be reached, as far as is known."""
        return self.router.partitions_served
