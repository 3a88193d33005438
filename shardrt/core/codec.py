"""Bytes in the store: versioned, checksummed, and readable with a text editor.

A framed value is ``1:<crc32 of the JSON, 8 hex digits>:<JSON>``. The version is that of the
frame and of what is in it; a reader refuses what it does not know, never skips it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from shardrt.core.entity import Entity, is_entity_id
from shardrt.core.entries import Entry
from shardrt.core.history import HistoryEvent
from shardrt.core.state import Head, Instance, Resident
from shardrt.errors import RecordCorrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = b"1"
_PREFIX = len(VERSION) + 10

_encode = msgspec.json.Encoder().encode
_entries = msgspec.json.Decoder(list[Entry])
_history = msgspec.json.Decoder(list[HistoryEvent])
_instance = msgspec.json.Decoder(Instance)
_entity = msgspec.json.Decoder(Entity)
_head = msgspec.json.Decoder(Head)

T = TypeVar("T")


def frame(payload: bytes) -> bytes:
    """Put version and checksum in front."""
    return b"%b:%08x:%b" % (VERSION, zlib.crc32(payload), payload)


def unframe(data: bytes) -> bytes:
    """Check version and checksum; return the payload. Raises `RecordCorrupt`."""
    head = bytes(data[:_PREFIX])
    payload = bytes(data[_PREFIX:])
    if not head.startswith(VERSION + b":"):
        raise RecordCorrupt(f"unknown record version: {head[:12]!r}")
    if head != b"%b:%08x:" % (VERSION, zlib.crc32(payload)):
        raise RecordCorrupt(f"checksum does not fit: {head!r} over {len(payload)} bytes")
    return payload


def _decode(decoder: msgspec.json.Decoder[T], payload: bytes) -> T:
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordCorrupt(f"cannot be decoded: {error}") from error


def encode_record(entries: Sequence[Entry]) -> bytes:
    """Encode the entries of one journal record."""
    return frame(_encode(entries))


def decode_record(data: bytes) -> list[Entry]:
    """Decode a journal record. Raises `RecordCorrupt`, also for an unknown kind of entry."""
    return _decode(_entries, unframe(data))


def encode_history(events: Sequence[HistoryEvent]) -> bytes:
    """Encode history events as a JSON array."""
    return _encode(events)


def decode_history(data: bytes) -> list[HistoryEvent]:
    """Decode a JSON array of history events. Raises `RecordCorrupt`."""
    return _decode(_history, data)


def encode_instance(instance: Instance) -> bytes:
    """Encode an instance without its history tail."""
    tail, instance.tail = instance.tail, []
    try:
        return _encode(instance)
    finally:
        instance.tail = tail


def decode_instance(data: bytes) -> Instance:
    """Decode an instance. Raises `RecordCorrupt`."""
    return _decode(_instance, data)


def encode_entity(entity: Entity) -> bytes:
    """Encode an entity."""
    return _encode(entity)


def decode_entity(data: bytes) -> Entity:
    """Decode an entity. Raises `RecordCorrupt`."""
    return _decode(_entity, data)


def decode_resident(instance_id: str, data: bytes) -> Resident:
    """Decode what a row of that id holds. Raises `RecordCorrupt`."""
    return decode_entity(data) if is_entity_id(instance_id) else decode_instance(data)


def encode_head(head: Head) -> bytes:
    """Encode the partition-wide part of a checkpoint."""
    return frame(_encode(head))


def decode_head(data: bytes) -> Head:
    """Decode the partition-wide part of a checkpoint. Raises `RecordCorrupt`."""
    return _decode(_head, unframe(data))
