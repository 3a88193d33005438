"""What a shard reads: a bad request comes out alone, a bad frame ends the link."""

import pytest
from msgspec import Raw

from shardrt.core.requests import Get, Origin
from shardrt.errors import ProtocolViolation
from shardrt.links.messages import Acknowledge, Ask, Forward, ForwardRaw
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
