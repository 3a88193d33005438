"""Bytes in the store: stable for ever, and never misread.

`golden.txt` is what release 1 writes. If a test here fails because bytes have changed, then
journals that exist cannot be read any more: append fields with defaults, or make a new version.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from msgspec import Raw

from shardrt.core import codec, entries as e, history as h
from shardrt.core.entity import Entity
from shardrt.core.messages import Message
from shardrt.core.state import Head, Instance
from shardrt.core.work import Outcome
from shardrt.errors import RecordCorrupt
from tests.core import samples

GOLDEN = (Path(__file__).parent / "golden.txt").read_bytes().splitlines()
RECORDS = [line for line in GOLDEN if line.startswith(b"1:")]


def test_there_is_a_sample_of_everything():
    kinds = {type(entry) for entry in samples.ENTRIES}
    assert kinds == set(get_args(e.Entry))
    actions = [*samples.ACTIONS, *samples.ENTITY_ACTIONS]
    assert {type(action) for action in actions} == set(get_args(h.Action))
    messages = [*samples.MESSAGES, *samples.ENTITY_MESSAGES, *samples.SLOT_MESSAGES]
    assert {type(message) for message in messages} == set(get_args(Message))
    outcomes = [*samples.OUTCOMES, *samples.CANCELED]
    assert {type(outcome) for outcome in outcomes} == set(get_args(Outcome))


@pytest.mark.parametrize(
    ("entry", "golden"),
    list(zip(samples.ENTRIES, RECORDS, strict=False)),
    ids=lambda value: type(value).__name__ if not isinstance(value, bytes) else "",
)
def test_a_record_is_written_and_read_as_ever(entry: e.Entry, golden: bytes):
    assert codec.encode_record([entry]) == golden
    assert codec.decode_record(golden) == [entry]


@pytest.mark.parametrize(
    "record",
    [
        b'1:05f9051b:[["Created",12,"a","a-exec","code",null,null,null,null,null]]',
        b'1:f4464964:[["Raised","a",["EventRaised",21,"go","now"],["client-1",7,5]]]',
        b'1:1a81f407:[["Received",18,6,42,["event","other","go",null],19]]',
    ],
)
def test_records_from_before_there_were_traces_are_read(record: bytes):
    assert codec.decode_record(record)[0] in samples.ENTRIES


def test_a_cancelled_call_from_before_it_said_why_is_read():
    action = b'["TaskCanceled",1]'
    assert msgspec.json.decode(action, type=h.TaskCanceled) == h.TaskCanceled(1)


def test_the_partition_wide_state_is_written_and_read_as_ever():
    golden = RECORDS[-1]
    assert codec.encode_head(samples.HEAD) == golden
    assert codec.decode_head(golden) == samples.HEAD


def test_an_instance_is_written_and_read_as_ever():
    instances = (samples.INSTANCE, samples.HOLDER, samples.LIMITED_INSTANCE, samples.CANCELING)
    for golden, instance in zip(GOLDEN[-6:-2], instances, strict=True):
        assert codec.encode_instance(instance) == golden
        assert codec.decode_resident("a", golden) == instance


def test_an_entity_is_written_and_read_as_ever():
    for golden, entity in zip(GOLDEN[-2:], (samples.ENTITY, samples.LIMITER), strict=True):
        assert codec.encode_entity(entity) == golden
        assert codec.decode_resident(entity.instance_id, golden) == entity


def test_every_golden_line_is_looked_at():
    assert len(RECORDS) == len(samples.ENTRIES) + 1
    assert len(GOLDEN) == len(RECORDS) + 6


def test_a_record_holds_entries_in_order():
    assert codec.decode_record(codec.encode_record(samples.ENTRIES)) == list(samples.ENTRIES)


def test_a_record_may_hold_nothing():
    assert codec.decode_record(codec.encode_record([])) == []


def test_an_instance_is_written_without_its_tail_and_keeps_it():
    instance = Instance(instance_id="a", execution_id="x", name="code", created_at=1, updated_at=1)
    instance.tail = [h.OrchestratorStarted(1)]
    decoded = codec.decode_instance(codec.encode_instance(instance))
    assert decoded.tail == []
    assert instance.tail == [h.OrchestratorStarted(1)]


def test_decoded_instances_share_nothing():
    data = codec.encode_instance(
        Instance(instance_id="a", execution_id="x", name="code", created_at=1, updated_at=1)
    )
    first, second = codec.decode_instance(data), codec.decode_instance(data)
    first.inbox.append(samples.EVENT)
    first.timers[1] = 1
    assert (second.inbox, second.timers) == ([], {})


def test_history_is_written_as_json_for_all_to_read():
    events = [h.OrchestratorStarted(1), *samples.ACTIONS]
    data = codec.encode_history(events)
    assert codec.decode_history(data) == events
    assert msgspec.json.decode(data)[0] == ["OrchestratorStarted", 1]


# -- what is not right is refused --------------------------------------------------------------


def framed(payload: bytes) -> bytes:
    return codec.frame(payload)


@pytest.mark.parametrize("golden", RECORDS, ids=range(len(RECORDS)))
def test_a_flipped_bit_anywhere_is_noticed(golden: bytes):
    for place in range(len(golden)):
        damaged = bytearray(golden)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(RecordCorrupt):
            codec.unframe(bytes(damaged))


@pytest.mark.parametrize("golden", RECORDS[:3], ids=range(3))
def test_a_record_cut_short_is_noticed(golden: bytes):
    for length in range(len(golden)):
        with pytest.raises(RecordCorrupt):
            codec.decode_record(golden[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "unknown record version"),
        (b"2:00000000:[]", "unknown record version: b'2:00000000:'"),
        (b"10:0000000:[]", "unknown record version"),
        (b"1:00000000:[]", "checksum does not fit"),
        (b"1:D6938EC2:[]", "checksum does not fit"),
        (framed(b""), "cannot be decoded"),
        (framed(b"{}"), "cannot be decoded: Expected `array`, got `object`"),
        (framed(b"[[]]"), "cannot be decoded"),
        (framed(b'[["Taken",1]]'), "cannot be decoded"),
        (framed(b'[["Taken",1,"x"]]'), "cannot be decoded"),
        (framed(b'[["Invented",1]]'), "cannot be decoded: Invalid value 'Invented'"),
        (framed(b'[["Taken",1,2]] x'), "cannot be decoded"),
        (framed(b'[["Forgot",["\xff"]]]'), "cannot be decoded"),
        (framed(b'[["Created",1,"a","x","n",' + b"[" * 9999), "cannot be decoded"),
        (
            framed(b'[["Created",1,"a","x","n",' + b"[" * 99999 + b"]" * 99999 + b"]]"),
            "cannot be decoded: maximum recursion depth exceeded",
        ),
    ],
)
def test_what_cannot_be_understood_is_refused(data: bytes, message: str):
    with pytest.raises(RecordCorrupt, match=message.replace("(", r"\(")):
        codec.decode_record(data)


def test_rows_and_histories_that_cannot_be_understood_are_refused():
    for decode in (codec.decode_instance, codec.decode_history, codec.decode_head):
        with pytest.raises(RecordCorrupt):
            decode(b'["?"]')


def test_a_later_release_may_append_fields_with_defaults():
    assert codec.decode_record(framed(b'[["Taken",1,2,"later"]]')) == [e.Taken(1, 2)]
    assert codec.decode_record(framed(b'[["Terminated",1,"a"]]')) == [e.Terminated(1, "a")]
    scheduled = h.TaskScheduled(0, "act", Raw(b"[1]"))
    for written in (b'"act",[1]', b'"act",[1],null,null,false'):
        assert codec.decode_history(b'[["TaskScheduled",0,%b]]' % written) == [scheduled]


# -- whatever it is, it comes back as it was ---------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(samples.anything(e.Entry), max_size=4))
def test_any_record_comes_back_as_it_was(entries: list[e.Entry]):
    assert codec.decode_record(codec.encode_record(entries)) == entries


@settings(max_examples=50, deadline=None)
@given(samples.anything(Instance))
def test_any_instance_comes_back_as_it_was(instance: Instance):
    instance.tail = []
    assert codec.decode_instance(codec.encode_instance(instance)) == instance


@settings(max_examples=50, deadline=None)
@given(samples.anything(Entity))
def test_any_entity_comes_back_as_it_was(entity: Entity):
    assert codec.decode_entity(codec.encode_entity(entity)) == entity


@settings(max_examples=50, deadline=None)
@given(samples.anything(Head))
def test_any_partition_wide_state_comes_back_as_it_was(head: Head):
    assert codec.decode_head(codec.encode_head(head)) == head


@settings(max_examples=50, deadline=None)
@given(st.lists(samples.anything(h.HistoryEvent), max_size=4))
def test_any_history_comes_back_as_it_was(events: list[h.HistoryEvent]):
    assert codec.decode_history(codec.encode_history(events)) == events


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_do_worse_than_being_refused(data: bytes):
    decoders: list[Any] = [
        codec.decode_record,
        codec.decode_head,
        codec.decode_instance,
        codec.decode_history,
        lambda data: codec.decode_record(codec.frame(data)),
    ]
    for decode in decoders:
        with suppress(RecordCorrupt):
            decode(data)


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_policy_with_a_number_that_json_does_not_know_is_not_made(number: float):
    with pytest.raises(ValueError, match="finite"):
        h.Retry(max_attempts=1, first_interval=1, backoff=number)
    with pytest.raises(ValueError, match="finite"):
        h.Retry(max_attempts=1, first_interval=1, jitter=number)


def test_an_odd_payload_is_kept_byte_for_byte():
    odd = Raw(b'{ "a":1.0 ,"a":"\\ud83d\\ude00","\\u0000":-0e1}')
    entry = e.Created(1, "a", "x", "code", odd)
    (decoded,) = codec.decode_record(codec.encode_record([entry]))
    assert isinstance(decoded, e.Created)
    assert bytes(decoded.input) == bytes(odd)
