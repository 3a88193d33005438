"""Log lines: for people, and as JSON with what they are about as fields."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from shardrt.config import LogSettings
from shardrt.host.logs import JsonFormatter, log_to_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level


def line(message: str, *args: object, **record: Any) -> dict[str, Any]:
    made = logging.LogRecord("shardrt.host", logging.WARNING, "f.py", 1, message, args, None)
    vars(made).update(record)
    parsed: dict[str, Any] = json.loads(JsonFormatter("shard-0", "alpha").format(made))
    return parsed


def test_what_a_line_is_about_becomes_fields():
    told = line("partition=%d epoch=%d lost, %s", 3, 7, "epoch=8 is another's", created=0.5)
    assert told == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "warning",
        "process": "shard-0",
        "host": "alpha",
        "logger": "shardrt.host",
        "message": "lost, epoch=8 is another's",
        "partition": 3,
        "epoch": 7,
    }


def test_facts_of_loggers_are_fields_and_not_repeated_in_the_text():
    told = line("charged [instance_id=a attempt=2]", instance_id="a", attempt=2)
    assert (told["message"], told["instance_id"], told["attempt"]) == ("charged", "a", 2)


def test_a_line_within_a_span_names_it():
    sampled = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1))
    with use_span(NonRecordingSpan(sampled)):
        told = line("charged")
    assert (told["trace_id"], told["span_id"]) == (f"{7:032x}", f"{8:016x}")
    with use_span(NonRecordingSpan(SpanContext(7, 8, is_remote=False))):
        assert "trace_id" not in line("charged")


def test_nothing_hides_what_a_line_is():
    told = line("host=beta level=9 process=x serves", logger="mine")
    assert told["host"] == "alpha"
    assert told["level"] == "warning"
    assert (told["process"], told["logger"], told["message"]) == (
        "shard-0",
        "shardrt.host",
        "serves",
    )


def test_a_line_is_one_line_whatever_is_in_it():
    error = LookupError("a\nb")
    record = logging.LogRecord(
        "x", logging.ERROR, "f", 1, "two\nlines", (), (LookupError, error, None)
    )
    text = JsonFormatter("shard-0", "").format(record)
    assert "\n" not in text
    told = json.loads(text)
    assert (told["message"], told["error"]) == ("two\nlines", "LookupError: a\nb")


def test_facts_that_are_no_json_are_described():
    assert line("x", thing=object)["thing"] == "<class 'object'>"


@pytest.mark.parametrize("form", ["text", "json"])
def test_levels_and_forms_are_as_set(form, capsys):
    log_to_stderr("gateway-0", LogSettings(level="warning", format=form), host_id="alpha")
    logging.getLogger("a").info("not told")
    logging.getLogger("a").warning("partition=%d told", 4)
    (told,) = capsys.readouterr().err.splitlines()
    if form == "json":
        assert json.loads(told)["partition"] == 4
    else:
        assert told.endswith(" WARNING gateway-0 a: partition=4 told")
