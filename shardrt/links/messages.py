"""What travels on links. Every frame is a JSON array of these messages.

Four conversations:

- *client ⇄ gateway* (WebSocket): `Hello` → `Welcome`, then `Call` → `Answer`, pipelined, with an
  `Accepted` between them for starts that are to be answered by an end, and `Serving` to clients
  that have asked for it.
- *gateway ⇄ shard, shard ⇄ shard* (Unix socket): `Forward` → `Answer`, and `Deliver` /
  `Acknowledge` / `Resend` between partitions, which have no answer.
- *gateway or shard → gateway of another host* (WebSocket): the same, for partitions that the
  other host serves itself; `NotOwner` if it does not.
- *supervisor ⇄ child*: see `links.control`.

Payloads stay encoded all the way: who forwards a message splices the sender's bytes.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from shardrt.core.history import NULL
from shardrt.core.messages import Message
from shardrt.core.requests import Origin, Refusal, Request

PROTOCOL = 1
"""Raised when a peer of the previous release could misunderstand this one."""


class _Link(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pass


class Hello(_Link, frozen=True, tag="hello"):
    """First message of a client. The token travels in the HTTP header, not here."""

    client: str
    """Random id of the client's session; `Origin.client` of all its calls."""
    protocol: int = PROTOCOL
    version: str = ""
    wants_serving: bool = False
    """Whether it knows `Serving` and has a use for it: links to several hosts."""


class Welcome(_Link, frozen=True, tag="welcome"):
    """Answer to `Hello`."""

    protocol: int
    version: str
    partitions: int
    host_id: str
    payload_bytes_max: int
    hub_id: str = ""
    """Tells hubs apart; empty if the host is of a release that did not tell."""


class Serving(_Link, frozen=True, tag="serving"):
    """Which partitions the host serves itself; comes with `Welcome`, and again when it changes.

    Only for clients that have asked for it in their `Hello`: older ones do not know it.
    """

    partitions: tuple[int, ...]
    era: int | None = None
    """Of the hub as the host knows it (`store.base.era_of`); 0 as well while it knows nothing. None
    if it was sent by a release that did not tell."""


class Call(_Link, frozen=True, tag="call"):
    """A request of a client about one instance. `seq` counts up within the session."""

    seq: int
    low: int
    instance_id: str
    request: Raw
    """A `core.requests.Request`."""
    wants_end: bool = False
    """Of a start: it may be answered by the end of the instance, as a `Wait` is, after `Accepted`
    if that takes a while. Releases that do not know this answer a start as ever."""


class Ask(_Link, frozen=True, tag="ask"):
    """A question about the hub or host rather than one instance (`links.admin`)."""

    seq: int
    question: Raw


class Answer(_Link, frozen=True, tag="answer"):
    """The answer to a `Call`, `Ask` or `Forward`, matched by `seq`."""

    seq: int
    result: Raw = NULL
    """JSON; of no meaning in a refusal."""
    refusal: Refusal | None = None


class Accepted(_Link, frozen=True, tag="accepted"):
    """The starts in these calls, whose ends were wanted, are durable, and the ends are to come.

    From now on such a call is a `Wait`: who has to make it again makes that one.
    """

    seqs: tuple[int, ...]


class Forward(_Link, frozen=True, tag="forward"):
    """A client's call on its way to the owner. `seq` belongs to this link."""

    seq: int
    partition: int
    origin: Origin
    instance_id: str
    request: Request
    wants_end: bool = False


class ForwardRaw(_Link, frozen=True, tag="forward"):
    """`Forward` as who passes it on sees it."""

    seq: int
    partition: int
    origin: Origin
    instance_id: str
    request: Raw
    wants_end: bool = False


class Forget(_Link, frozen=True, tag="forget"):
    """Nobody waits for the answers to these `Forward` any more (they were waits)."""

    seqs: tuple[int, ...]


class Deliver(_Link, frozen=True, tag="deliver"):
    """Messages of one stream, `first` being the sequence number of the first."""

    source: int
    destination: int
    first: int
    messages: tuple[Message, ...]
    epoch: int = 0
    """Of the source; 0 if it was sent by a release that did not tell."""


class DeliverRaw(_Link, frozen=True, tag="deliver"):
    """`Deliver` as who passes it on sees it."""

    source: int
    destination: int
    first: int
    messages: Raw
    epoch: int = 0


class Acknowledge(_Link, frozen=True, tag="ack"):
    """The destination has committed everything of this stream up to `last`."""

    source: int
    destination: int
    last: int
    epoch: int = 0
    """Of the destination; 0 if it was sent by a release that did not tell."""


class Resend(_Link, frozen=True, tag="resend"):
    """The destination misses messages: send again from `first` on."""

    source: int
    destination: int
    first: int


class NotOwner(_Link, frozen=True, tag="not-owner"):
    """This host does not serve the partition of that call: look again, and try elsewhere."""

    seq: int
    owner: str | None = None
    """Where it is served as far as this host knows: a target as in `control.Routes`."""


class Look(_Link, frozen=True, tag="look"):
    """A peer has given partitions away: look at the hub now rather than later."""


PartitionTraffic: TypeAlias = Deliver | Acknowledge | Resend
FromClient: TypeAlias = Hello | Call | Ask
ToClient: TypeAlias = Welcome | Serving | Accepted | Answer
ToShard: TypeAlias = Forward | Ask | Forget | Deliver | Acknowledge | Resend
FromShard: TypeAlias = Answer | Accepted
ToHost: TypeAlias = ForwardRaw | Ask | Forget | DeliverRaw | Acknowledge | Resend | Look
FromHost: TypeAlias = Answer | Accepted | NotOwner
