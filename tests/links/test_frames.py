"""The frame codec: what goes in comes out, however the stream is cut; what is wrong is told."""

import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec import Raw

from shardrt.core.requests import Origin, Refusal, Start
from shardrt.errors import PayloadTooLarge, ProtocolViolation
from shardrt.links.frames import FRAME_MESSAGES_MAX, Codec, FrameReader, framed
from shardrt.links.messages import (
    Answer,
    Ask,
    Call,
    Forward,
    ForwardRaw,
    FromClient,
    FromShard,
    Hello,
    ToShard,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PAYLOADS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=5,
).map(lambda value: Raw(msgspec.json.encode(value)))
NUMBERS = st.integers(0, 2**53)
CALLS = st.builds(Call, NUMBERS, NUMBERS, TEXTS, PAYLOADS)
ANSWERS = st.builds(Answer, NUMBERS, PAYLOADS, st.none() | st.builds(Refusal, TEXTS, TEXTS))
ASKS = st.builds(Ask, NUMBERS, PAYLOADS)


@given(st.lists(st.binary(max_size=50), max_size=10), st.data())
def test_bodies_survive_any_cutting_of_the_stream(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(framed(bodies))
    reader, found = FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == bodies


@given(st.lists(CALLS | ASKS | st.builds(Hello, TEXTS)))
def test_what_clients_say_survives_the_wire(messages: list[object]) -> None:
    codec = Codec(FromClient)
    assert [m for body in codec.encode(messages) for m in codec.decode(body)] == messages


@given(st.lists(ANSWERS))
def test_answers_survive_the_wire(messages: list[Answer]) -> None:
    codec = Codec(FromShard)
    assert [m for body in codec.encode(messages) for m in codec.decode(body)] == messages


@given(st.lists(CALLS, max_size=40), st.integers(200, 2000))
def test_frames_are_cut_to_the_limit_without_losing_order(calls: list[Call], limit: int) -> None:
    codec = Codec(FromClient, limit)
    sizes = [len(codec.encode([call])[0]) for call in calls if _size(call) <= limit]
    fitting = [call for call in calls if _size(call) <= limit]
    bodies = codec.encode(fitting)
    assert max(map(len, bodies), default=0) <= limit
    assert [m for body in bodies for m in codec.decode(body)] == fitting
    assert len(bodies) <= max(1, len(sizes))


def _size(call: Call) -> int:
    return len(msgspec.json.encode([call]))


@given(st.binary(max_size=100))
def test_any_bytes_are_either_messages_or_refused(body: bytes) -> None:
    codec = Codec(ToShard)
    try:
        messages = codec.decode(body)
    except ProtocolViolation:
        return
    assert isinstance(messages, list)


def test_a_forwarded_request_arrives_as_the_request() -> None:
    start = Start("hello", Raw(b'{"a":1}'), fresh=True)
    origin = Origin("client", 7, 3)
    raw = ForwardRaw(1, 2, origin, "id", Raw(msgspec.json.encode(start)))
    (body,) = Codec(FromShard).encode([raw])
    assert Codec(ToShard).decode(body) == [Forward(1, 2, origin, "id", start)]


def test_many_messages_become_several_frames() -> None:
    codec = Codec(FromShard)
    bodies = codec.encode([Answer(seq) for seq in range(3 * FRAME_MESSAGES_MAX)])
    assert len(bodies) >= 3
    assert [m.seq for body in bodies for m in codec.decode(body)] == list(
        range(3 * FRAME_MESSAGES_MAX)
    )


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(ProtocolViolation, match="frame of 101 bytes exceeds 100"):
        FrameReader(100).feed((101).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"{}",
        b'[["call",1]]',
        b'[["answer",1]]',
        b'["x"]',
        b'[["call","1",1,"",0]]',
        b'[["hello","\xff"]]',
        b'[["hello","\\ud800"]]',
        b'[["ask",1,' + b"[" * 5000 + b"]]",
    ],
)
def test_what_is_no_frame_of_a_client_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Codec(FromClient).decode(body)


def test_an_answer_over_the_limit_becomes_a_refusal() -> None:
    codec = Codec(FromShard, 200)
    bodies = codec.encode([Answer(1), Answer(2, Raw(b'"' + b"x" * 500 + b'"')), Answer(3)])
    answers = [m for body in bodies for m in codec.decode(body)]
    assert [answer.seq for answer in answers] == [1, 2, 3]
    assert answers[1].refusal.code == "PayloadTooLarge"


def test_another_message_over_the_limit_is_the_senders_fault() -> None:
    with pytest.raises(PayloadTooLarge, match="exceeds 200"):
        Codec(FromClient, 200).encode([Hello("x" * 500)])
