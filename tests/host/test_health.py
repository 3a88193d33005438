"""The verdict on a host, from what is known of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shardrt.config import HostSettings, Settings, StoreSettings
from shardrt.host.health import (
    COMMIT_S_MAX,
    LAG_S_MAX,
    SILENT_S,
    SILENT_S_MAX,
    Report,
    Status,
    report_of,
)

H, D, U = Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY


def child(name: str = "shard-0", **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "role": name.partition("-")[0],
        "pid": 7,
        "ready": True,
        "uptime_s": 60.0,
        "restarts": 0,
        "silent_s": 0.3,
        "lag_s": 0.0,
        "partitions": [0],
        "counters": {},
    } | facts


def partition(number: int = 0, **facts: Any) -> dict[str, Any]:
    return {
        "partition": number,
        "owner": "me",
        "epoch": 3,
        "phase": "serving",
        "commit_lsn": 7,
        "checkpoint_lsn": 4,
        "applied_lsn": 9,
        "trouble": None,
        "unserved_s": None,
    } | facts


def report(*children: dict[str, Any], **facts: Any) -> Report:
    view: dict[str, Any] = {
        "host_id": "me",
        "lease": "held",
        "renewed_s": 1.0,
        "ping_s": 0.002,
        "problem": "",
        "partitions": [partition()],
        "children": list(children) or [child(), child("shard-1"), child("gateway-0")],
    }
    return report_of(view | facts, Settings())


def unhealthy_or_so(found: Report) -> dict[str, Status]:
    return {each.name: each.status for each in found.checks if each.status is not H}


def test_a_host_with_default_settings_is_healthy() -> None:
    found = report()
    assert (found.status, found.is_ready, unhealthy_or_so(found)) == (H, True, {})
    [row] = found.partitions
    assert (row.epoch, row.commit_lag, row.checkpoint_lag) == (3, 2, 3)
    assert [each.name for each in found.processes] == ["shard-0", "shard-1", "gateway-0"]


@pytest.mark.parametrize(
    ("facts", "name", "status", "is_ready"),
    [
        ({"lease": "doubtful", "problem": "no answer"}, "store", U, False),
        ({"lease": "expired"}, "lease", U, False),
        ({"lease": "joining"}, "lease", U, False),
        ({"lease": "leaving"}, "lease", U, False),
        ({"partitions": [partition(trouble="CRC")]}, "partitions", D, True),
        ({"partitions": [partition(owner=None, unserved_s=60.0)]}, "partitions", D, True),
        ({"partitions": []}, None, H, True),
        ({"partitions": [partition(owner=None, unserved_s=1.0)]}, None, H, True),
    ],
)
def test_the_hub(facts: dict[str, Any], name: str | None, status: Status, is_ready: bool) -> None:
    found = report(**facts)
    assert unhealthy_or_so(found) == ({} if name is None else {name: status})
    assert (found.status, found.is_ready) == (status, is_ready)


@pytest.mark.parametrize(
    ("facts", "name", "status", "message"),
    [
        ({"silent_s": SILENT_S - 0.1}, None, H, ""),
        ({"silent_s": SILENT_S}, "processes", D, "shard-0 has been silent for 2.0 s"),
        ({"silent_s": SILENT_S_MAX}, "processes", U, "shard-0 has been silent for 5.0 s"),
        ({"lag_s": LAG_S_MAX}, "processes", D, "the loop of shard-0 was 1.0 s late"),
        ({"ready": False}, "processes", D, "shard-0 is starting or ending"),
        (
            {"pid": None, "ready": False, "silent_s": None, "lag_s": None},
            "processes",
            U,
            "shard-0 is down",
        ),
        (
            {"counters": {"commit_wait_s": COMMIT_S_MAX}},
            "store",
            U,
            "a commit has been under way for 5.0 s",
        ),
        ({"counters": {"commit_wait_s": 2.5}}, "store", D, "a commit has been under way for 2.5 s"),
        (
            {"counters": {"checkpoint_wait_s": 99.0}},
            "checkpoints",
            D,
            "one has been under way for 99 s",
        ),
    ],
)
def test_processes(facts: dict[str, Any], name: str | None, status: Status, message: str) -> None:
    others = [child("shard-1"), child("gateway-0")]
    found = report(child(**facts), *others)
    assert found.status is status
    assert unhealthy_or_so(found) == ({} if name is None else {name: status})
    if name is not None:
        said = next(each.message for each in found.checks if each.name == name)
        assert said == message
    # A shard that is down or frozen holds back its own partitions and no others.
    assert found.is_ready is ((name, status) != ("store", U))


def test_without_any_shard_that_answers_nothing_should_come() -> None:
    down = child(pid=None, ready=False, silent_s=None)
    frozen = child(silent_s=SILENT_S_MAX)
    assert not report(down, child("gateway-0")).is_ready
    assert not report(frozen, child("gateway-0")).is_ready
    assert report(down, child("shard-1")).is_ready
    assert not report(child("gateway-0")).is_ready


def test_a_gateway_that_is_frozen_keeps_nobody_from_the_others() -> None:
    frozen = child("gateway-0", silent_s=9.0)
    assert report(child(), frozen, child("gateway-1")).is_ready


def test_settings_that_are_seldom_meant_degrade_a_host() -> None:
    settings = Settings(
        store=StoreSettings(url="postgresql://me:sesame@db/x", unsafe=True),
        host=HostSettings(token="sesame"),
    )
    view = {"children": [child()], "lease": "held"}
    found = report_of(view, settings)
    assert unhealthy_or_so(found) == {"configuration": D}
    assert (found.status, found.is_ready) == (D, True)
    assert b"sesame" not in msgspec.json.encode(found)


def test_before_there_is_a_membership_nothing_should_come() -> None:
    found = report_of({"children": [child()]}, Settings())
    assert (found.status, found.is_ready) == (U, False)
