"""How a `Client` gets into a `testing.hub.Hub`: as over a network that may lose what it carries.

A call that a dead shard did not answer, or whose answer was lost, is refused as passing trouble;
so the client makes it again, as the same request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from shardrt import __version__
from shardrt.client.client import Client
from shardrt.client.dialing import in_process
from shardrt.client.session import Session
from shardrt.client.starting import start_of
from shardrt.client.views import to_datetime
from shardrt.core import requests as r
from shardrt.links.messages import PROTOCOL, Answer, Ask, Forward, Welcome
from shardrt.testing.virtual import true_now_us

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.client.lines import Dial
    from shardrt.client.starting import StartRequest
    from shardrt.links.base import Link
    from shardrt.orchestration.entity_id import EntityRef, OperationRef
    from shardrt.orchestration.sealing import PayloadCodec
    from shardrt.testing.hub import Hub, Member

CALL_TIMEOUT_S = 600.0
TROUBLE = r.Refusal("PartitionUnavailable", "the shard did not answer", 0.05)
PASSING = frozenset({"StoreUnavailable"})
"""Refusals that a client would hand on, though the trouble of a simulated store passes."""


@dataclass(slots=True)
class _Call:
    message: Forward | Ask
    member: Member


class Door:
    """The far end of the client's link. Implements `links.base.LinkHandler`."""

    def __init__(self, hub: Hub, link: Link) -> None:
        self._hub = hub
        self._link = link
        self._open: dict[int, _Call] = {}
        hub.on_crash = self._crashed

    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, Ask):
                self._ask(message)
            else:
                self._forward(message)

    def on_closed(self) -> None:
        self._open.clear()

    def _ask(self, message: Ask) -> None:
        member = next((each for each in self._hub.members if each.is_alive), None)
        if member is None:
            self._link.send(Answer(message.seq, refusal=TROUBLE))
            return
        call = self._open[message.seq] = _Call(message, member)
        member.shard.ask(message, lambda answer: self._answer(call, answer))

    def _forward(self, message: Forward) -> None:
        owner = self._hub.owners.get(message.partition)
        if owner is None or not owner.is_alive:
            self._link.send(Answer(message.seq, refusal=TROUBLE))
            return
        weather, random = self._hub.air.weather, self._hub.random
        call = self._open[message.seq] = _Call(message, owner)
        times = 2 if weather.repetition and random.random() < weather.repetition else 1
        for _ in range(times):
            owner.shard.submit(message, lambda answer: self._answer(call, answer))

    def _answer(self, call: _Call, answer: Answer) -> None:
        if self._open.get(answer.seq) is not call or not call.member.is_alive:
            return
        del self._open[answer.seq]
        weather = self._hub.air.weather
        if weather.loss and self._hub.random.random() < weather.loss:
            self._hub.air.lost += 1
            answer = Answer(answer.seq, refusal=TROUBLE)
        if answer.refusal is not None and answer.refusal.code in PASSING:
            answer = Answer(answer.seq, refusal=TROUBLE)
        self._link.send(answer)

    def _crashed(self, member: Member) -> None:
        for seq, call in list(self._open.items()):
            if call.member is member:
                del self._open[seq]
                self._link.send(Answer(seq, refusal=TROUBLE))

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way that does not wait for an instance to end."""
        return any(
            isinstance(call.message, Ask) or type(call.message.request) is not r.Wait
            for call in self._open.values()
        )


class HubSession(Session):
    """A session that tells whether it is about to ask again."""

    def __init__(self, session_id: int, dial: Dial, *, call_timeout_s: float) -> None:
        super().__init__(dial, call_timeout_s=call_timeout_s)
        self.id = f"{session_id:032x}"

    @property
    def is_asking_again(self) -> bool:
        """Whether a refused request waits for its next attempt."""
        return bool(self._refused or self._window.held)


class VirtualClient(Client):
    """A client whose time and chance are the hub's."""

    def __init__(self, hub: Hub, session: Session, payload_codec: PayloadCodec | None) -> None:
        super().__init__(session, payload_codec)
        self._hub = hub

    async def signal_entity(
        self,
        entity: EntityRef,
        operation: OperationRef,
        input: Any = None,  # noqa: A002 - as the public interface calls it
        *,
        at: datetime | timedelta | None = None,
    ) -> None:
        """Have an entity do something; see `Client.signal_entity`."""
        await super().signal_entity(entity, operation, input, at=_moment(at))

    def _start_of(self, wanted: StartRequest) -> tuple[str, r.Start]:
        wanted = replace(wanted, start_at=_moment(wanted.start_at))
        instance_id, request = start_of(wanted, self._payload_bytes_max(), self._sealer)
        if request.fresh:
            instance_id = f"{self._hub.random.getrandbits(128):032x}"
        return instance_id, request


def _moment(when: datetime | timedelta | None) -> datetime | None:
    """Return a virtual time; a timedelta counts from now."""
    return virtual_now() + when if isinstance(when, timedelta) else when


def virtual_now() -> datetime:
    """Return the hub's time."""
    return to_datetime(true_now_us(asyncio.get_running_loop()))


async def enter(hub: Hub) -> tuple[VirtualClient, Callable[[], bool]]:
    """Return a client of the hub, and what tells whether a call of it is under way."""
    doors: list[Door] = []

    def accept(link: Link) -> Door:
        doors.append(Door(hub, link))
        return doors[-1]

    welcome = Welcome(
        protocol=PROTOCOL,
        version=__version__,
        partitions=hub.partitions,
        host_id="virtual",
        payload_bytes_max=hub.settings.limits.payload_bytes_max,
    )
    session = HubSession(
        hub.random.getrandbits(128), in_process(accept, welcome), call_timeout_s=CALL_TIMEOUT_S
    )
    await session.open()
    client = VirtualClient(hub, session, hub.app.payload_codec)
    return client, lambda: session.is_asking_again or doors[-1].is_busy
