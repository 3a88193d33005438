"""What a supervisor and its children say to each other, over a socket pair.

The end of this link is the end of the other side: a child whose control link closes ends itself
at once, and a supervisor that loses a child's link treats the child as dead.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from shardrt.links.metrics import Samples

DEATHS_MAX = 3
"""Code that was running in so many deaths of shard processes is not run any more."""


class _Control(msgspec.Struct, frozen=True, array_like=True):
    pass


# -- supervisor → child -----------------------------------------------------------------------


class Configure(_Control, frozen=True, tag="configure"):
    """First message: everything a child must know. No environment, no arguments."""

    role: str
    """``shard`` or ``gateway``."""
    index: int
    settings: dict[str, Any]
    """`config.Settings` as JSON."""
    app: str
    """``module:attribute``; not imported by gateways."""
    host_id: str
    incarnation: str
    partitions: int
    socket: str
    """Path of the Unix socket that this child listens on (shards)."""
    import_paths: list[str] = []
    """Prepended to ``sys.path``."""
    listen_fd: int = -1
    """Gateways: the listening TCP socket, inherited. The supervisor binds it, so that clients
    wait rather than being refused while a gateway restarts, and gateways can share it."""
    hub_id: str = ""


class Blamed(msgspec.Struct, frozen=True, array_like=True):
    """Code that was running when its shard process died."""

    instance_id: str
    execution_id: str = ""
    task_id: int | None = None
    """Of an activity; None for the code of the instance or entity itself."""
    deaths: int = 1


class Condemned(msgspec.Struct, frozen=True, array_like=True):
    """An orchestrator that is not run any more."""

    name: str
    version: str | None
    instances: int
    """So many have ended shard processes."""


class Forbid(_Control, frozen=True, tag="forbid"):
    """Run no instance of these orchestrators, and those of all others."""

    orchestrators: list[Condemned]


class Assign(_Control, frozen=True, tag="assign"):
    """Host this partition, claimed under this epoch."""

    partition: int
    epoch: int
    blamed: list[Blamed] = []
    """Code of this partition that has ended shard processes lately."""
    watch: bool = False
    """A shard process has died lately: from now on, note what runs."""


class Revoke(_Control, frozen=True, tag="revoke"):
    """Drain, checkpoint and stop this partition; answer `Released`."""

    partition: int
    epoch: int


class Discard(_Control, frozen=True, tag="discard"):
    """Drop this partition at once, without writing, for it may be another's; answer `Released`."""

    partition: int
    epoch: int


class Lease(_Control, frozen=True, tag="lease"):
    """The lease was renewed: valid until this monotonic time (s), unless it is renewed again.

    ``clock_offset`` (µs): database time is at least ``monotonic_us + clock_offset``.
    """

    until_s: float
    clock_offset: int


class Routes(_Control, frozen=True, tag="routes"):
    """Who serves what: for each partition a Unix socket path, a host's target, or None.

    Targets are those of `links.peer`; `owner` is the one that this host is.
    """

    version: int
    targets: list[str | None]
    owner: str = ""
    era: int = 0
    """Of the hub that these are of."""


class Nudge(_Control, frozen=True, tag="nudge"):
    """Have these hosts look at the hub: there is something for them to take over."""

    targets: list[str]


class Leave(_Control, frozen=True, tag="leave"):
    """This host leaves, and others take over: no more clients should come to this gateway.

    Those that are here are served until `Stop`.
    """


class Stop(_Control, frozen=True, tag="stop"):
    """Drain everything within this many seconds, then exit with 0."""

    grace_s: float


# -- child → supervisor -----------------------------------------------------------------------


class Ready(_Control, frozen=True, tag="ready"):
    """Up, listening, app imported."""

    pid: int
    port: int = 0
    """TCP port of a gateway."""


class Beat(_Control, frozen=True, tag="beat"):
    """Sent by the child's event loop twice a second: proof that the loop turns.

    `progress` maps partition → [applied, durable, checkpointed] LSNs.
    """

    progress: dict[int, tuple[int, int, int]] = {}
    counters: dict[str, float] = {}
    running: list[str] = []
    """What user code is running right now (for the blame if the loop blocks)."""
    quarantined: dict[int, list[str]] = {}
    """Partition → instances whose stored state cannot be read, as far as that is known."""
    samples: Samples = {}
    """What it has counted and measured so far (`links.metrics`)."""
    lag_s: float = 0.0
    """How much later than it should have this beat was sent: so busy was the loop."""


class Opened(_Control, frozen=True, tag="opened"):
    """The partition serves."""

    partition: int
    epoch: int


class Released(_Control, frozen=True, tag="released"):
    """The partition's memory is gone: it was drained and checkpointed, or discarded as told."""

    partition: int
    epoch: int


class Lost(_Control, frozen=True, tag="lost"):
    """The partition was discarded: fenced, or broken (then `broken` names why)."""

    partition: int
    epoch: int
    broken: str = ""


class Fatal(_Control, frozen=True, tag="fatal"):
    """This child cannot work at all (app not importable, port in use): do not restart it."""

    message: str


class Pardoned(_Control, frozen=True, tag="pardoned"):
    """Somebody has resumed an instance of an orchestrator that is not run."""

    name: str
    version: str | None


class Stale(_Control, frozen=True, tag="stale"):
    """The routes of this version have led nowhere: look at the hub soon."""

    version: int


class Nudged(_Control, frozen=True, tag="nudged"):
    """Another host has given something away, maybe for us: look at the hub soon."""


Subject: TypeAlias = Literal["cluster", "metrics", "health"]
"""What a gateway asks for: `cluster_view`, `samples_of`, or a `host.health.Report`."""


class Query(_Control, frozen=True, tag="query"):
    """A gateway asks for facts of this host; answered by `ClusterView`."""

    seq: int
    what: Subject = "cluster"


class ClusterView(_Control, frozen=True, tag="cluster"):
    """Answer to `Query`: JSON-able facts about hosts, shards and partitions, samples, or health."""

    seq: int
    view: dict[str, Any]


ToChild: TypeAlias = (
    Configure
    | Forbid
    | Assign
    | Revoke
    | Discard
    | Lease
    | Routes
    | Nudge
    | Leave
    | Stop
    | ClusterView
)
FromChild: TypeAlias = (
    Ready | Beat | Opened | Released | Lost | Fatal | Pardoned | Stale | Nudged | Query
)
