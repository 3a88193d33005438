"""Frames: a 4-byte big-endian length, then that many bytes of JSON, an array of messages.

Sans-I/O. A `FrameReader` cuts a byte stream into frame bodies, a `Codec` turns lists of
messages into bytes and back. What a peer can get wrong (a length over the limit, bytes that
are not JSON, JSON that is not a message) ends in `ProtocolViolation`, after which the stream
is of no more use.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shardrt.core.requests import Refusal
from shardrt.errors import PayloadTooLarge, ProtocolViolation
from shardrt.links.messages import Answer

FRAME_BYTES_MAX = 512 * 1024 * 1024
"""No frame is longer. It also bounds a single message, such as the history of an instance."""

FRAME_MESSAGES_MAX = 2048
"""Messages per frame that we send: a bound on how long one encoding holds the loop."""

ENVELOPE_BYTES_MAX = 1024 * 1024
"""What a message may be longer than its payload: ids, names, tags."""

HEADER_BYTES = 4


class FrameReader:
    """Cuts a stream into the bodies of its frames."""

    def __init__(self, size_max: int = FRAME_BYTES_MAX) -> None:
        self._size_max = size_max
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._needed = HEADER_BYTES
        """Bytes without which no further frame can be complete. Invariant: _buffered < _needed."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they came; return the bodies of the frames completed by them."""
        self._buffered += len(data)
        if self._buffered < self._needed:
            self._chunks.append(data)
            return []
        if self._chunks:
            self._chunks.append(data)
            data = b"".join(self._chunks)
            self._chunks = []
        return self._cut(data)

    def _cut(self, data: bytes) -> list[bytes]:
        bodies: list[bytes] = []
        start = 0
        self._needed = HEADER_BYTES
        while (left := len(data) - start) >= HEADER_BYTES:
            size = int.from_bytes(data[start : start + HEADER_BYTES], "big")
            if size > self._size_max:
                raise ProtocolViolation(f"frame of {size} bytes exceeds {self._size_max}")
            if left < HEADER_BYTES + size:
                self._needed = HEADER_BYTES + size
                break
            start += HEADER_BYTES + size
            bodies.append(data[start - size : start])
        self._buffered = len(data) - start
        if self._buffered:
            self._chunks.append(data[start:])
        return bodies


class Codec:
    """Encodes any messages; decodes those of one direction.

    Decoded `Raw` payloads are views that keep their whole frame alive: `copy()` those which
    outlive it.
    """

    def __init__(self, incoming: Any, size_max: int = FRAME_BYTES_MAX) -> None:
        self.size_max = size_max
        self._decoder: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[incoming])
        self._encode = msgspec.json.Encoder().encode

    def decode(self, body: bytes | str) -> list[Any]:
        """Return the messages of one frame."""
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ProtocolViolation(f"not a frame of this link: {error}") from None

    def encode(self, messages: list[Any]) -> list[bytes]:
        """Return bodies that carry the messages in order, none longer than the limit."""
        if len(messages) > FRAME_MESSAGES_MAX:
            return self._halves(messages)
        body = self._encode(messages)
        if len(body) <= self.size_max:
            return [body]
        if len(messages) > 1:
            return self._halves(messages)
        return [self._encode([self._instead_of(messages[0], len(body))])]

    def _halves(self, messages: list[Any]) -> list[bytes]:
        middle = len(messages) // 2
        return self.encode(messages[:middle]) + self.encode(messages[middle:])

    def _instead_of(self, message: Any, size: int) -> Answer:
        text = f"message of {size} bytes exceeds {self.size_max}"
        if isinstance(message, Answer):
            return Answer(message.seq, refusal=Refusal(PayloadTooLarge.code, text))
        raise PayloadTooLarge(text)


def client_frame_bytes_max(payload_bytes_max: int) -> int:
    """Return the longest frame that a gateway takes from a client."""
    return payload_bytes_max + ENVELOPE_BYTES_MAX


def framed(bodies: list[bytes]) -> list[bytes]:
    """Return the bodies with their headers, ready to be written one after the other."""
    pieces: list[bytes] = []
    for body in bodies:
        pieces += (len(body).to_bytes(HEADER_BYTES, "big"), body)
    return pieces
