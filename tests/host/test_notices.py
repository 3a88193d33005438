"""What the log tells of instances: a few lines for each name, then a count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.core.history import Failure
from shardrt.core.state import Instance
from shardrt.host.notices import LINES_MAX, TEXT_CHARS_MAX, WINDOW_S, Notices
from tests.cluster.test_alarms import told

if TYPE_CHECKING:
    import pytest


class Time:
    now_s = 0.0


def notices() -> tuple[Notices, Time]:
    time = Time()
    return Notices(lambda: time.now_s), time


def failed(message: str) -> Instance:
    instance = Instance(instance_id="i", execution_id="e", name="pay", created_at=0, updated_at=0)
    instance.failure = Failure(type="ValueError", message=message)
    return instance


def test_each_is_told_of_with_its_reason_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    found, _ = notices()
    found.parked("i", "pay", "no such\n code")
    found.failed(failed("no\nmoney"))
    assert told(caplog) == [
        "instance=i name=pay is parked: no such code",
        "instance=i name=pay has failed: ValueError: no money",
    ]
    found.failed(failed("x" * 2 * TEXT_CHARS_MAX))
    assert len(told(caplog)[0]) < TEXT_CHARS_MAX + 100


def test_texts_of_errors_are_left_out_where_payloads_are_sealed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = Notices(lambda: 0.0, sealed=True)
    found.failed(failed("card 4111"))
    assert told(caplog) == ["instance=i name=pay has failed: ValueError"]


def test_many_of_one_name_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    found, time = notices()
    for number in range(LINES_MAX + 7):
        found.parked(f"i{number}", "pay", "no code")
    found.parked("j", "ship", "no code")
    found.failed(failed("no money"))
    assert len(told(caplog)) == LINES_MAX + 2
    time.now_s = WINDOW_S - 1
    found.tick()
    assert told(caplog) == []
    time.now_s = WINDOW_S
    found.tick()
    found.tick()
    assert told(caplog) == ["name=pay 7 more: each is parked"]
    found.parked("k", "pay", "no code")
    assert told(caplog) == ["instance=k name=pay is parked: no code"]
