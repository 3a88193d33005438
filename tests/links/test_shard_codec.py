"""What a shard reads: a bad request comes out alone, a bad frame ends the link."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from shardrt.client.wire import TypedCall
from shardrt.core.requests import Get, Origin, Request, Start
from shardrt.errors import ProtocolViolation
from shardrt.links.frames import Codec
from shardrt.links.messages import (
    Accepted,
    Acknowledge,
    Answer,
    Ask,
    Call,
    Forward,
    ForwardRaw,
    FromClient,
    FromHost,
    FromShard,
    ToClient,
    ToHost,
)
from shardrt.links.shard_codec import ShardCodec

ORIGIN = Origin("client", 1, 1)
GOOD = Forward(1, 0, ORIGIN, "a", Get())


def test_what_can_be_read_is_read_at_once():
    codec = ShardCodec()
    messages = [GOOD, Acknowledge(1, 2, 3)]
    (body,) = codec.encode(messages)
    assert codec.decode(body) == messages


@pytest.mark.parametrize("request_", [b"7", b'["nope"]', b'["raise",7]', b'["start",7]'])
def test_a_bad_request_comes_out_as_it_is_and_the_others_are_not_lost(request_: bytes):
    codec = ShardCodec()
    bad = ForwardRaw(2, 0, ORIGIN, "b", Raw(request_))
    (body,) = codec.encode([GOOD, bad, Acknowledge(1, 2, 3), Ask(4, Raw(b"1"))])
    good, alone, acknowledge, ask = codec.decode(body)
    assert (good, acknowledge) == (GOOD, Acknowledge(1, 2, 3))
    assert isinstance(alone, ForwardRaw)
    assert (alone.seq, bytes(alone.request)) == (2, request_)
    assert isinstance(ask, Ask)


@pytest.mark.parametrize("body", [b"", b"[7]", b'[["deliver",1,2,3,["x"]]]', b'[["forward",1]]'])
def test_what_is_no_frame_is_refused_as_a_whole(body: bytes):
    with pytest.raises(ProtocolViolation):
        ShardCodec().decode(body)


@pytest.mark.parametrize("wants_end", [False, True])
@pytest.mark.parametrize("request_", [b'["start","hello",1]', b'["start",7]'])
def test_whether_its_end_is_wanted_stays_with_a_start_also_if_it_is_none(
    request_: bytes, *, wants_end: bool
):
    raw = ForwardRaw(2, 0, ORIGIN, "b", Raw(request_), wants_end)
    bad = ForwardRaw(3, 0, ORIGIN, "c", Raw(b"7"), wants_end)
    (body,) = Codec(ToHost).encode([raw, bad])
    assert [each.wants_end for each in ShardCodec().decode(body)] == [wants_end] * 2


# -- releases that do not know of ends that are wanted ---------------------------------------------


class OldCall(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """`Call` before it told what is wanted; `TypedCall` was the same."""

    seq: int
    low: int
    instance_id: str
    request: Request


class OldForward(msgspec.Struct, frozen=True, array_like=True, tag="forward"):
    """`Forward` before it told what is wanted; `ForwardRaw` was the same."""

    seq: int
    partition: int
    origin: Origin
    instance_id: str
    request: Request


START = Start("hello", fresh=True)
RAW = Raw(msgspec.json.encode(START))


@pytest.mark.parametrize("wants_end", [False, True])
@pytest.mark.parametrize(
    ("old_type", "old", "new"),
    [
        (FromClient, OldCall(1, 1, "a", START), Call(1, 1, "a", RAW)),
        (FromClient, OldCall(1, 1, "a", START), TypedCall(1, 1, "a", START)),
        (ToHost, OldForward(1, 2, ORIGIN, "a", START), ForwardRaw(1, 2, ORIGIN, "a", RAW)),
        (ToHost, OldForward(1, 2, ORIGIN, "a", START), Forward(1, 2, ORIGIN, "a", START)),
    ],
)
def test_old_hosts_take_starts_of_new_ones_and_new_hosts_those_of_old_ones(
    old_type: Any, old: Any, new: Any, *, wants_end: bool
):
    codec = Codec(old_type)
    (sent,) = codec.encode([msgspec.structs.replace(new, wants_end=wants_end)])
    assert Codec(type(old)).decode(sent) == [old]
    (decoded,) = codec.decode(sent)
    assert decoded.wants_end is wants_end
    (sent_by_old,) = codec.encode([old])
    (decoded,) = codec.decode(sent_by_old)
    assert (decoded.seq, decoded.instance_id, decoded.wants_end) == (1, "a", False)
    assert decoded.request == RAW


def test_an_old_start_is_a_forward_without_a_wish():
    (sent,) = ShardCodec().encode([OldForward(1, 2, ORIGIN, "a", START)])
    assert ShardCodec().decode(sent) == [Forward(1, 2, ORIGIN, "a", START)]


@pytest.mark.parametrize("incoming", [FromShard, FromHost, ToClient])
def test_what_is_taken_is_told_all_the_way(incoming: Any):
    messages = [Accepted((1, 2)), Answer(1)]
    (sent,) = Codec(incoming).encode(messages)
    assert Codec(incoming).decode(sent) == messages
