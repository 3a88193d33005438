"""Partitions that nobody serves are told of once, then rarely."""

from __future__ import annotations

import pytest

from shardrt.cluster.alarms import AGAIN_S, GRACE_S, Alarms
from shardrt.cluster.holdings import Holding, Holdings, Phase
from tests.cluster.test_holdings import ME, host, view

TTL_S = 10.0
LATE_S = TTL_S + GRACE_S


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_a_partition_without_owner_is_told_of_once_then_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alarms, seen = Alarms(TTL_S), view([None, "b/1"], host(ME), host("b/1"))
    for now_s in (0.0, LATE_S):
        alarms.look(seen, ME, Holdings(), now_s)
    assert told(caplog) == []
    for now_s in (LATE_S + 1, LATE_S + 2, AGAIN_S):
        alarms.look(seen, ME, Holdings(), now_s)
    assert told(caplog) == ["partition=0 has not been served for 16 s: it has no owner"]
    alarms.look(seen, ME, Holdings(), AGAIN_S + LATE_S + 1)
    assert len(told(caplog)) == 1
    assert alarms.unserved_s(0, LATE_S) == LATE_S
    assert alarms.unserved_s(1, LATE_S) is None
    alarms.look(view(["b/1", "b/1"], host(ME), host("b/1")), ME, Holdings(), 700.0)
    assert told(caplog) == ["partition=0 is served again after 700 s"]
    assert alarms.unserved_s(0, 700.0) is None


def test_a_short_pause_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    alarms = Alarms(TTL_S)
    for now_s in range(0, 100, 10):
        owner = None if now_s % 20 else "b/1"
        alarms.look(view([owner], host("b/1")), ME, Holdings(), now_s)
    assert told(caplog) == []


def test_an_owner_whose_lease_is_over_serves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    alarms, seen = Alarms(TTL_S), view(["b/1"], host("b/1", left_us=-1))
    for now_s in (0.0, LATE_S + 1):
        alarms.look(seen, ME, Holdings(), now_s)
    assert told(caplog) == ["partition=0 has not been served for 16 s: its owner b/1 is gone"]


@pytest.mark.parametrize("phase", list(Phase))
def test_what_is_ours_is_served_in_some_phases_only(
    phase: Phase, caplog: pytest.LogCaptureFixture
) -> None:
    alarms, seen, holdings = Alarms(TTL_S), view([ME], host(ME)), Holdings()
    holdings.held[0] = Holding(epoch=3, phase=phase, since_s=0)
    for now_s in (0.0, LATE_S + 1):
        alarms.look(seen, ME, holdings, now_s)
    served = phase in {Phase.SERVING, Phase.MOVING, Phase.REVOKING}
    assert bool(told(caplog)) is not served


def test_the_reason_is_told(caplog: pytest.LogCaptureFixture) -> None:
    alarms, seen, holdings = Alarms(TTL_S), view([ME], host(ME)), Holdings()
    holdings.held[0] = Holding(epoch=3, phase=Phase.BROKEN, since_s=0)
    holdings.trouble(0, "record 7 fails its checksum", 1.0)
    holdings.trouble(0, "record 7 fails its checksum", 2.0)
    assert holdings.troubles[0].since_s == 1.0
    for now_s in (0.0, LATE_S + 1):
        alarms.look(seen, ME, holdings, now_s)
    (line,) = told(caplog)
    assert line == "partition=0 has not been served for 16 s: record 7 fails its checksum"
