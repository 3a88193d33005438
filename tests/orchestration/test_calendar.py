"""Due times: cron in time zones through clock changes, and intervals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from shardrt.errors import InputInvalid
from shardrt.orchestration.calendar import SECOND, Schedule, latest_due, next_due

BERLIN = ZoneInfo("Europe/Berlin")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(when: datetime) -> int:
    return (when - EPOCH) // timedelta(microseconds=1)


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    return micros(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold))


def cron(expression: str, **options: Any) -> Schedule:
    schedule = Schedule(orchestrator="x", cron=expression, timezone="Europe/Berlin", **options)
    schedule.check()
    return schedule


def dues(schedule: Schedule, after: int, until: int) -> list[int]:
    found = []
    due = next_due(schedule, 0, after)
    while due is not None and due <= until:
        found.append(due)
        due = next_due(schedule, 0, due)
    return found


def test_a_time_of_day_is_local_in_summer_and_winter():
    daily = cron("0 4 * * *")
    found = dues(daily, at("2026-03-28T12:00"), at("2026-03-30T12:00"))
    assert found == [at("2026-03-29T04:00"), at("2026-03-30T04:00")]
    assert found[1] - found[0] == 24 * 3600 * SECOND
    assert dues(daily, at("2026-03-28T00:00"), found[0])[0] == found[0] - 23 * 3600 * SECOND


def test_a_time_that_the_clock_skips_is_due_right_after():
    found = dues(cron("30 2 * * *"), at("2026-03-28T12:00"), at("2026-03-30T12:00"))
    assert found == [at("2026-03-29T03:00"), at("2026-03-30T02:30")]


def test_a_time_that_comes_twice_is_due_once():
    found = dues(cron("30 2 * * *"), at("2026-10-24T12:00"), at("2026-10-26T12:00"))
    assert found == [at("2026-10-25T02:30"), at("2026-10-26T02:30")]


def test_every_quarter_of_an_hour_goes_by_real_time_through_both_changes():
    for day in ("2026-03-29", "2026-10-25"):
        found = dues(cron("*/15 * * * *"), at(f"{day}T00:00"), at(f"{day}T06:00"))
        assert {b - a for a, b in pairwise(found)} == {900 * SECOND}


@pytest.mark.parametrize(
    "schedule",
    [
        cron("*/5 * * * *"),
        cron("30 2 * * *"),
        cron("0 4 * * MON-FRI"),
        cron("*/20 * * * * *"),
        cron("0 0 1 * *", start=at("2026-03-02T00:00"), end=at("2026-04-20T00:00")),
        Schedule(orchestrator="x", every=7 * 60 * SECOND),
        Schedule(orchestrator="x", every=3600 * SECOND, start=at("2026-03-29T01:30")),
    ],
    ids=lambda each: each.cron or str(each.every),
)
@pytest.mark.parametrize("day", ["2026-03-29T00:00", "2026-10-25T00:00"])
def test_looking_back_finds_what_looking_forward_found(schedule: Schedule, day: str):
    begin = at(day)
    found = dues(schedule, begin - 6 * 3600 * SECOND, begin + 6 * 3600 * SECOND)
    for before, after in pairwise(found):
        for moment in (before, before + 1, (before + after) // 2, after - 1):
            assert latest_due(schedule, 0, moment) == before
    if found:
        assert latest_due(schedule, 0, found[-1] + SECOND // 2) == found[-1]


def test_nothing_is_due_before_the_start_or_after_the_end():
    schedule = cron("0 * * * *", start=at("2026-05-01T10:30"), end=at("2026-05-01T12:00"))
    expected = [at("2026-05-01T11:00"), at("2026-05-01T12:00")]
    assert dues(schedule, 0, at("2026-06-01T00:00")) == expected
    assert latest_due(schedule, 0, at("2026-06-01T00:00")) == expected[-1]
    assert latest_due(schedule, 0, at("2026-05-01T10:45")) is None


def test_an_interval_counts_from_its_start_or_else_from_when_it_was_made():
    every = Schedule(orchestrator="x", every=10)
    assert (next_due(every, 3, 3), next_due(every, 3, 13), next_due(every, 3, 30)) == (13, 23, 33)
    assert (latest_due(every, 3, 12), latest_due(every, 3, 29)) == (None, 23)
    since = Schedule(orchestrator="x", every=10, start=5)
    assert (next_due(since, 3, 0), next_due(since, 3, 5)) == (5, 15)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"cron": "* * *"}, "not a cron expression"),
        ({"cron": "61 * * * *"}, "not a cron expression"),
        ({"cron": "0 0 30 2 *"}, "not a cron expression"),
        ({"cron": "* * * * *", "timezone": "Europe/Nowhere"}, "no time zone"),
        ({"cron": "* * * * *", "timezone": "../etc/passwd"}, "no time zone"),
        ({}, "either cron or every"),
        ({"cron": "* * * * *", "every": 5}, "either cron or every"),
        ({"every": -5}, "negative"),
        ({"every": 5, "start": 9, "end": 8}, "end before"),
        ({"every": 5, "orchestrator": ""}, "name of an orchestrator"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options: dict[str, Any], problem: str):
    with pytest.raises(InputInvalid, match=problem):
        Schedule(**{"orchestrator": "x", **options}).check()
