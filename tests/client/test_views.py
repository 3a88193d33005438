"""What users see of snapshots and history."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given, strategies as st
from msgspec import Raw

from shardrt import errors
from shardrt.client.refusals import exception_of
from shardrt.client.views import history_of, to_datetime, to_micros
from shardrt.core import history as h
from shardrt.core.requests import Refusal


@given(st.integers(-(10**15), 2 * 10**16))
def test_times_survive_the_way_there_and_back(micros: int) -> None:
    when = to_datetime(micros)
    assert when.tzinfo is UTC
    assert to_micros(when) == micros


def test_times_of_other_kinds() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert to_micros(timedelta(seconds=1), now) == to_micros(now) + 1_000_000
    assert to_micros(now.replace(tzinfo=None)) == to_micros(now)
    east = now.astimezone(timezone(timedelta(hours=5)))
    assert to_micros(east) == to_micros(now)


def test_every_kind_of_event_is_shown_with_its_fields() -> None:
    failure = h.Failure(type="E", message="m")
    raw = Raw(b'{"a":1}')
    events: list[h.HistoryEvent] = [
        h.ExecutionStarted(1, "n", raw, "v", h.Parent("p", "e", 3, "pn"), {"k": "t"}),
        h.OrchestratorStarted(2_000_000),
        h.TaskScheduled(0, "act", raw, h.Retry(max_attempts=3, first_interval=1), 1_500_000),
        h.TaskCanceled(0, cooperative=True),
        h.TimerCreated(1, 5_000_000),
        h.TimerCanceled(1),
        h.SubOrchestrationInstanceCreated(2, "child", "n", raw),
        h.EventSent(3, "other", "go", raw),
        h.TaskCompleted(0, 3, raw),
        h.TaskFailed(0, 4, failure),
        h.TimerFired(1, 5),
        h.SubOrchestrationInstanceCompleted(2, 6, raw),
        h.SubOrchestrationInstanceFailed(2, 7, failure),
        h.EventRaised(8, "go", raw),
        h.ExecutionSuspended(9, "why"),
        h.ExecutionResumed(10, "why"),
        h.ExecutionTerminated(11, "why"),
        h.CancelRequested(11, "why"),
        h.ContinueAsNew(12, raw),
        h.ExecutionCompleted(13, h.Status.FAILED, failure=failure),
    ]
    shown = history_of(Raw(msgspec.json.encode(events)))
    assert [each.kind for each in shown] == [type(each).__name__ for each in events]
    assert [each.event_id for each in shown] == list(range(len(events)))
    started, _, scheduled, *_ = shown
    assert (started.parent_instance_id, started.tags, started.version) == ("p", {"k": "t"}, "v")
    assert started.input == {"a": 1}
    # What the code asked for has the time of its turn.
    assert scheduled.timestamp == to_datetime(2_000_000)
    assert scheduled.timeout == 1.5
    assert scheduled.retry == {"max_attempts": 3, "first_interval": 1}
    assert (shown[3].cooperative, scheduled.cooperative) == (True, None)
    assert shown[4].fire_at == to_datetime(5_000_000)
    assert (shown[6].instance_id, shown[7].data) == ("child", {"a": 1})
    assert (shown[8].result, shown[9].failure) == ({"a": 1}, failure)
    assert (shown[14].reason, shown[-1].status) == ("why", "Failed")


@pytest.mark.parametrize(
    "kind",
    [
        errors.InstanceNotFound,
        errors.ConfigInvalid,
        errors.OrchestratorNotRegistered,
        errors.PartitionUnavailable,
        errors.StoreUnavailable,
    ],
)
def test_refusals_are_raised_as_the_class_of_their_code(kind: type[errors.ShardrtError]) -> None:
    error = exception_of(Refusal(kind.code, "because"))
    assert type(error) is kind
    assert str(error) == "because"


def test_refusals_that_are_special() -> None:
    overloaded = exception_of(Refusal("Overloaded", "full", 3.0))
    assert isinstance(overloaded, errors.Overloaded)
    assert overloaded.retry_after_s == 3.0
    assert type(exception_of(Refusal("NeverHeardOf", "x"))) is errors.ShardrtError
    assert type(exception_of(Refusal("ActivityFailed", "x"))) is errors.ShardrtError
