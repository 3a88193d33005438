"""Partitions whose owner runs without an address: said once, and for how long it is so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.cluster.reach import Reach
from tests.cluster.test_alarms import told
from tests.cluster.test_holdings import ME, host, view

if TYPE_CHECKING:
    import pytest

    from shardrt.store.base import Host

A, B = "a/1", "b/1"
PROBLEM = (
    "2 partitions are owned by host b, which runs, or did a moment ago, and has no address to be "
    "reached at: give each program that shares a store `listen=` (or `host.advertise`), or run "
    "only one"
)


def hidden(name: str, left_us: int = 10_000_000) -> Host:
    return host(name, address="", left_us=left_us)


def test_an_owner_without_address_that_renews_its_lease_is_there_to_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reach = Reach()
    reach.look(view([B, B], hidden(ME), hidden(B)), ME)
    assert reach.problem == PROBLEM
    assert reach.why(1).startswith("partition 1 is owned by host b, which has no address")
    assert not reach.will_last(1), "it may be a program that has crashed"
    reach.look(view([B, B], hidden(ME), hidden(B, left_us=9_000_000)), ME)
    assert not reach.will_last(1)
    reach.look(view([B, B], hidden(ME), hidden(B, left_us=12_000_000)), ME)
    assert reach.will_last(1)
    assert told(caplog) == [f"requests cannot be served here: {PROBLEM}"]


def test_it_is_over_once_the_lease_ends(caplog: pytest.LogCaptureFixture) -> None:
    reach = Reach()
    reach.look(view([B], hidden(ME), hidden(B)), ME)
    reach.look(view([B], hidden(ME), hidden(B, left_us=-1)), ME)
    assert (reach.problem, reach.why(0), reach.will_last(0)) == ("", "", False)
    assert told(caplog)[1:] == ["requests can be served here: every owner can be reached"]


def test_what_is_about_to_be_handed_over_is_no_problem(caplog: pytest.LogCaptureFixture) -> None:
    reach = Reach()
    for left_us in (10_000_000, 12_000_000):
        reach.look(view([B], host(ME), hidden(B, left_us=left_us)), ME)
    assert (reach.problem, reach.will_last(0)) == ("", False)
    assert "no address" in reach.why(0)
    assert told(caplog) == []


def test_what_is_ours_or_has_an_address_or_nobody_serves_is_no_problem() -> None:
    reach = Reach()
    reach.look(view([ME, A, None], hidden(ME), host(A)), ME)
    assert [reach.why(partition) for partition in range(3)] == ["", "", ""]
    assert reach.problem == ""
