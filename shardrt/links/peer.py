"""The dialling end of a link to another host of the hub, over WebSocket.

A *target* is the URL of a host, with the owner that is expected there as its fragment:
``http://10.0.0.7:8520#host-b/1a2b.…``. It is told to the other end, which hangs up if it is
somebody else: after a restart, or if another hub lives at that address now, nothing may be
delivered there that was meant for this one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from shardrt.errors import ConfigInvalid, ConnectionLost, Unauthorized, Untrusted
from shardrt.links.backoff import Backoff
from shardrt.links.frames import client_frame_bytes_max
from shardrt.links.messages import PROTOCOL, FromHost
from shardrt.links.websocket import base_url, dial_websocket

if TYPE_CHECKING:
    from shardrt.config import Tokens
    from shardrt.links.base import Accept, Link, LinkHandler

logger = logging.getLogger(__name__)

HOST_PATH = "/link/host"
DIAL_S_MAX = 5.0
"""How long another host may take to answer."""
QUIET_S = 1.0
"""Less than this is not worth a line in the log."""
PAUSE_S_MAX = 2.0
"""The longest pause between two attempts to reach one that is down."""


def target_of(address: str, owner: str) -> str:
    """Return the target that stands for a host."""
    return f"{address}#{owner}"


def peer_url(target: str) -> str:
    """Return the WebSocket URL of the link to a host.

    Raises:
        ConfigInvalid: the address that the host has given is none.
    """
    address, _, owner = target.partition("#")
    return f"{base_url(address)}{HOST_PATH}?protocol={PROTOCOL}&owner={quote(owner, safe='')}"


async def keep_peer(
    target: str, accept: Accept, *, tokens: Tokens, payload_bytes_max: int, ca_file: str = ""
) -> None:
    """Keep a link to another host until cancelled: dial until it answers, and again.

    Args:
        target: which host.
        accept: called with each new link.
        tokens: of the hub's hosts, if they have any; the first is presented.
        payload_bytes_max: of the hub's hosts, which bounds what a frame may hold.
        ca_file: of the authorities by which it is trusted; empty: the system's.
    """
    backoff = Backoff(max_s=PAUSE_S_MAX)
    loop = asyncio.get_running_loop()
    told = ""
    lost_at = loop.time()
    while True:
        ended = asyncio.Event()
        try:
            async with asyncio.timeout(DIAL_S_MAX):
                link = await dial_websocket(
                    target.partition("#")[0],
                    tokens.first,
                    FromHost,
                    _ending(accept, ended),
                    target=peer_url(target),
                    ca_file=ca_file,
                )
        except (ConnectionLost, ConfigInvalid, TimeoutError, Unauthorized, Untrusted) as error:
            problem = _problem(error)
            # A host that has just left is forgotten before this is worth a line.
            if problem != told and loop.time() - lost_at >= QUIET_S:
                told = problem
                logger.warning("host %s cannot be reached: %s", _name(target), problem)
            await asyncio.sleep(backoff.next_s())
            continue
        if told:
            told = ""
            logger.warning("host %s is reached again", _name(target))
        link.codec.size_max = client_frame_bytes_max(payload_bytes_max)
        backoff.reset()
        try:
            await ended.wait()
        finally:
            link.close()
        lost_at = loop.time()
        await asyncio.sleep(backoff.next_s())


def _problem(error: Exception) -> str:
    if isinstance(error, Unauthorized):
        return "it refuses our token; all hosts of a hub need the first one of each"
    if isinstance(error, TimeoutError):
        return f"no answer within {DIAL_S_MAX:g} s"
    return str(error)


def _name(target: str) -> str:
    parts = urlsplit(target)
    return f"{parts.fragment.partition('/')[0]} at {parts.scheme}://{parts.netloc}"


def _ending(accept: Accept, ended: asyncio.Event) -> Accept:
    def listen(link: Link) -> LinkHandler:
        return Ending(accept(link), ended)

    return listen


class Ending:
    """Passes on what a link tells, and notes its end."""

    def __init__(self, handler: LinkHandler, ended: asyncio.Event) -> None:
        self.on_messages = handler.on_messages
        self._handler = handler
        self._ended = ended

    def on_closed(self) -> None:
        self._ended.set()
        self._handler.on_closed()
