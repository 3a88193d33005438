"""What a shard and its worker processes say to each other, over a socket pair.

Frames are those of the control link. A worker does one thing at a time and blocks in between,
so its end of the link is a plain blocking socket; the shard's end is a `ControlLink`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from shardrt.core.history import NULL, Failure

if TYPE_CHECKING:
    import socket

HEADER = 4
MESSAGE_BYTES_MAX = 1 << 30
"""More than the largest payload that can be configured."""

T = TypeVar("T")


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


# -- shard → worker ---------------------------------------------------------------------------


class Prepare(_Message, frozen=True, tag="prepare"):
    """First message: import the app. Answered by `Prepared`."""

    app: str
    """``module:attribute``."""
    import_paths: list[str]
    """Prepended to ``sys.path``."""
    limits: dict[str, Any]
    """`config.LimitSettings` as JSON."""
    log: dict[str, Any] = {}
    """`config.LogSettings` likewise."""
    host_id: str = ""
    tracing: dict[str, Any] = {}
    """`config.TracingSettings` likewise."""


class Perform(_Message, frozen=True, tag="perform"):
    """Run an activity. Answered by `Returned` or `Raised`."""

    name: str
    input: Raw
    instance_id: str
    execution_id: str
    task_id: int
    attempt: int
    host_id: str
    shard: int
    heartbeat: Raw = NULL
    trace: str = ""
    """Within which span it is to run; see `core.trace_context`."""


# -- worker → shard ---------------------------------------------------------------------------


class Prepared(_Message, frozen=True, tag="prepared"):
    """The app is there, unless there is a problem."""

    problem: str = ""


class Beat(_Message, frozen=True, tag="beat"):
    """The activity says that it is alive."""

    details: Raw


class Returned(_Message, frozen=True, tag="returned"):
    """The activity ended well."""

    result: Raw


class Raised(_Message, frozen=True, tag="raised"):
    """The activity raised."""

    failure: Failure


ToWorker: TypeAlias = Prepare | Perform
FromWorker: TypeAlias = Prepared | Beat | Returned | Raised


class BlockingLink(Generic[T]):
    """A worker's end. The end of the shard is an `EOFError`."""

    def __init__(self, sock: socket.socket, expected: Any) -> None:
        self._sock = sock
        self._decoder: msgspec.json.Decoder[list[T]] = msgspec.json.Decoder(list[expected])
        self._encoder = msgspec.json.Encoder()

    def send(self, *messages: FromWorker) -> None:
        """Send one frame."""
        body = self._encoder.encode(messages)
        self._sock.sendall(len(body).to_bytes(HEADER, "big") + body)

    def receive(self) -> list[T]:
        """Wait for a frame and return what is in it."""
        size = int.from_bytes(self._read(HEADER), "big")
        return self._decoder.decode(self._read(size))

    def _read(self, size: int) -> bytearray:
        body = bytearray(size)
        view = memoryview(body)
        while view:
            count = self._sock.recv_into(view)
            if count == 0:
                raise EOFError
            view = view[count:]
        return body
