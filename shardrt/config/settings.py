"""The settings, their bounds, and what each of them trades.

A setting is documented where it is declared. Bounds that concern one value are part of its
type; rules that span several are in `rule_problems`. Construction checks everything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from shardrt.config.tls import client_context, server_context
from shardrt.config.tokens import Tokens
from shardrt.config.urls import mask_dsn, url_problem
from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024
LOOPBACK = ("127.0.0.1", "::1", "localhost")

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=366 * 86400)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]


def usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StoreSettings:
    """Where everything durable is."""

    url: str = "sqlite:///shardrt-data/hub.db"
    """`sqlite:///file` needs no server; `postgresql://…?schema=name` is the fast one and
    can be shared by hosts; `memory://` forgets everything at exit."""

    unsafe: bool = False
    """Accept a Postgres whose settings can lose acknowledged work (fsync off …). For
    tests."""

    def __repr__(self) -> str:
        return f"StoreSettings(url={mask_dsn(self.url)!r}, unsafe={self.unsafe})"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """What all hosts of a hub have in common; fixed when the hub is created."""

    partitions: Annotated[int, Meta(ge=1, le=4096)] = 32
    """Units of ownership. More spread the load more evenly over more shards and hosts;
    each costs a checkpoint per interval while it is busy. Cannot be changed later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """One host: its processes and its door to the outside."""

    app: Name = "shardrt.samples:app"
    """What to serve, as `module:attribute`."""

    host_id: Annotated[str, Meta(max_length=255, pattern=r"^[A-Za-z0-9._:-]*$(?!\n)")] = ""
    """Name of the host in the hub, unique among its hosts: letters, digits and any of `._:-`;
    empty: made up at each start."""

    bind: Name = "127.0.0.1"
    """Address to listen on. Others than loopback need a token, or `open_access`."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 8520
    """Port for clients, HTTP and other hosts; 0: any free one."""

    advertise: Annotated[str, Meta(max_length=1024)] = ""
    """URL at which clients and other hosts reach this one, if it is another than `bind` and
    `port` make: behind a proxy, in a container, or with TLS."""

    gateways: Annotated[int, Meta(ge=1, le=64)] = 1
    """Processes that speak to the outside. More carry more requests, and take the cores
    of shards."""

    shards: Annotated[int, Meta(ge=1, le=256)] = field(default_factory=usable_cpus)
    """Processes that run orchestrations and activities; default: one per usable core.
    More than cores only helps if activities keep the interpreter busy."""

    token: str = field(default="", repr=False)
    """Secret that clients must present. Prefer `token_file`: an environment is easily
    read."""

    token_file: str = ""
    """File of tokens, one a line; with `read:` before it, one that may only read. Changes are
    seen without a restart. The first that may do everything is presented to other hosts."""

    tls_cert: str = ""
    """PEM file of the certificate, and of those between it and the authority: serve https.
    Clients and other hosts must reach this one by a name that is in it. Changes are seen
    without a restart."""

    tls_key: str = ""
    """PEM file of its key, without a password."""

    tls_ca: str = ""
    """PEM file of the authorities by which other hosts are trusted; empty: the system's."""

    open_access: bool = False
    """Serve without a token on an address that others can reach."""

    cors_origins: str = ""
    """Origins whose pages may call the HTTP API from a browser, with commas between them; `*`: all.
    Empty: none, which is what browsers then enforce."""

    lease_ttl_s: Annotated[float, Meta(ge=0.2, le=3600)] = 10.0
    """How long a silent host keeps its partitions. Less finds a dead host sooner, more
    forgives a slow network or database. It is renewed three times as often."""

    drain_s: Seconds = 30.0
    """Grace for running activities at shutdown; afterwards they run again elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSettings:
    """Bounds and rhythms of each shard process."""

    resident_bytes_max: Count = 512 * MIB
    """Memory for instances kept live. Beyond it the least recently used are evicted, and
    replayed when they are needed again."""

    journal_buffer_bytes_max: Count = 64 * MIB
    """Records waiting for the store. Beyond it requests are refused as overloaded; more
    rides out longer stalls of the store."""

    requests_in_flight_max: Count = 10_000
    """Requests being worked on at a time. Beyond it requests are refused as overloaded."""

    starts_waiting_max: Count = 2_000
    """Starts that wait to be let in, and instances that wait for their first turn, because there
    is more to do than the process can. Beyond it starts are refused as overloaded."""

    checkpoint_interval_s: Seconds = 1.0
    """Longest time between a change and its checkpoint; in proportion longer while more than 32
    partitions of a shard change. Longer writes less, since an instance that ends meanwhile is
    written once; lists lag and recovery reads more."""

    checkpoint_bytes_max: Count = 8 * MIB
    """Journal bytes of a partition that start a checkpoint before its time: bounds
    recovery time under load."""

    journal_unsaved_bytes_max: Count = 128 * MIB
    """Journal bytes of a partition without a checkpoint at which it stands still: requests are
    refused as overloaded until the store takes its checkpoint. More rides out longer trouble;
    recovery reads as much."""

    activity_concurrency_max: Count = 1_000
    """Activities running at a time. The rest wait in line, durably."""

    activity_threads_max: Annotated[int, Meta(ge=1, le=1024)] = 32
    """Threads for activities that are plain functions: how many may block at a time. One that
    was cancelled counts until it ends."""

    activity_processes_max: Annotated[int, Meta(ge=1, le=256)] = 2
    """Worker processes for activities with `executor="process"`: how many may compute at a
    time. Each is an interpreter with the app, started when it is first needed."""

    activity_transactions_max: Annotated[int, Meta(ge=1, le=64)] = 8
    """Activities with `transactional=True` at a time: each holds a connection to the database
    while it runs."""

    guard: Literal["refuse", "warn", "off"] = "refuse"
    """What happens if an orchestrator calls what is not deterministic, such as `time.time`:
    its instance is parked and names the line, or the line is logged, or nobody looks."""

    watchdog_s: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    """How long a shard's loop may be blocked before its process is replaced. Must exceed
    the longest stretch of computing in one orchestrator turn or async activity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What is refused from outside, with a clear error."""

    payload_bytes_max: Annotated[int, Meta(ge=1024, le=256 * MIB)] = 4 * MIB
    """Size of one input, result, event or custom status as JSON. More lets one instance
    hold up its neighbours for longer."""

    json_depth_max: Annotated[int, Meta(ge=8, le=512)] = 100
    """Nesting of JSON from outside."""

    instance_id_chars_max: Annotated[int, Meta(ge=36, le=1024)] = 255
    """Length of an instance id."""

    name_chars_max: Annotated[int, Meta(ge=16, le=1024)] = 255
    """Length of the name of an orchestrator, activity or event, and of a tag."""

    page_size_max: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    """Instances in one page of a list."""

    connections_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Connections of one gateway. Each takes a file descriptor: see `ulimit -n`."""

    connections_per_address_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    """Those of one address. Behind a proxy, all come from it: give it as much as the gateway."""

    header_bytes_max: Annotated[int, Meta(ge=4096, le=MIB)] = 64 * 1024
    """Size of a request without its body."""

    header_s_max: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    """Time from the start of a connection, or the first byte of a further request on it, to
    the end of the header. More is kinder to slow networks, and to who holds connections open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long ended instances stay."""

    completed_s: Annotated[float, Meta(ge=0, le=366 * 86400 * 100)] = 0.0
    """Age at which an ended instance is purged; 0: kept until somebody purges it."""

    failed_s: Annotated[float, Meta(ge=0, le=366 * 86400 * 100)] | None = None
    """The same for those that failed, which somebody may want to rewind; unset: as the others."""

    terminated_s: Annotated[float, Meta(ge=0, le=366 * 86400 * 100)] | None = None
    """The same for those that were terminated or canceled; unset: as the others."""

    sweep_interval_s: Seconds = 60.0
    """Time between two looks for instances to purge."""

    sweep_batch_max: Annotated[int, Meta(ge=1, le=100_000)] = 500
    """Instances purged per look. More finishes sooner and disturbs more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on."""

    format: Literal["text", "json"] = "text"
    """For people, or one JSON object a line with host, process, partition, epoch and instance
    as fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingSettings:
    """OpenTelemetry spans, if `shardrt[otel]` is installed.

    Where they go is said as to any program: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, …
    """

    enabled: bool = False
    """Record spans of sampled instances, and pass contexts on to activities."""

    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """Share of the traces begun here that are recorded. Who starts an instance within a trace
    of its own has decided already. More shows more and costs throughput."""

    traces_per_s_max: Annotated[float, Meta(ge=0)] = 10.0
    """Most of those that a process begins in a second, so that what traces cost does not grow
    with the load; 0: no such bound."""

    tracer_name: Name = "shardrt"
    """By which the spans are known to come from here."""

    state_operations: bool = False
    """Also a span of each commit that an instance waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a host needs to know. Construction checks all of it.

    Raises:
        ConfigInvalid: with every problem there is.
    """

    store: StoreSettings = field(default_factory=StoreSettings)
    hub: HubSettings = field(default_factory=HubSettings)
    host: HostSettings = field(default_factory=HostSettings)
    shard: ShardSettings = field(default_factory=ShardSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    log: LogSettings = field(default_factory=LogSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)

    def __post_init__(self) -> None:
        # The rules may rely on the types.
        problems = list(field_problems(self)) or list(rule_problems(self))
        if problems:
            raise ConfigInvalid(problems)

    def to_json(self) -> bytes:
        """Encode for a child process. Secrets are in it: not for logs."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, encoded: bytes | str) -> Settings:
        try:
            return msgspec.json.decode(encoded, type=cls)
        except msgspec.MsgspecError as error:
            raise ConfigInvalid(f"settings are not readable: {error}") from None

    def tokens(self) -> Tokens:
        """Return the tokens that clients must present.

        Raises:
            ConfigInvalid: the token file cannot be read, or is none.
        """
        return Tokens(self.host.token, self.host.token_file)

    def check_files(self) -> None:
        """Check what the settings only name: tokens and certificates.

        Raises:
            ConfigInvalid: the first problem.
        """
        self.tokens()
        if self.host.tls_cert:
            server_context(self.host.tls_cert, self.host.tls_key)
        if self.host.tls_ca:
            client_context(self.host.tls_ca)


@cache
def section_types() -> dict[str, type[Any]]:
    """Return the class of each section."""
    return get_type_hints(Settings)


@cache
def key_types() -> dict[str, Any]:
    """Return the type, bounds included, of each `section.key`."""
    return {
        f"{section}.{name}": kind
        for section, section_type in section_types().items()
        for name, kind in get_type_hints(section_type, include_extras=True).items()
    }


def reason(error: Exception) -> str:
    """Return what was wrong, in one line, without the value."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}"
    text = str(error).replace("`", "")
    return text[:1].lower() + text[1:]


def field_problems(settings: Settings) -> Iterator[str]:
    """Check each value against its type and bounds."""
    for key, kind in key_types().items():
        section, _, name = key.partition(".")
        try:
            msgspec.convert(getattr(getattr(settings, section), name), kind)
        except msgspec.ValidationError as error:
            yield f"{key}: {reason(error)}"


def rule_problems(settings: Settings) -> Iterator[str]:
    """Check what spans several settings, or is more than a bound."""
    host = settings.host
    if store_problem := url_problem(settings.store.url):
        yield f"store.url: {store_problem}"
    if ":" not in host.app:
        yield "host.app: write it as module:attribute"
    if host.advertise and not host.advertise.startswith(("http://", "https://")):
        yield "host.advertise: write it as http://name:8520"
    if bool(host.tls_cert) != bool(host.tls_key):
        yield "host.tls_cert: give tls_cert and tls_key, or neither"
    if host.token and host.token_file:
        yield "host.token: give either token or token_file"
    if host.bind not in LOOPBACK and not (host.token or host.token_file or host.open_access):
        yield (
            f"host.bind: {host.bind} can be reached by others: set token_file, or open_access "
            "(--token-file, --insecure)"
        )
    if settings.limits.payload_bytes_max > settings.shard.journal_buffer_bytes_max:
        yield "limits.payload_bytes_max: is more than shard.journal_buffer_bytes_max"
    if settings.shard.checkpoint_bytes_max > settings.shard.journal_unsaved_bytes_max:
        yield "shard.checkpoint_bytes_max: is more than shard.journal_unsaved_bytes_max"
