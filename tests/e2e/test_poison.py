"""Code that ends its shard process, on a real host: it is found, put away, and others go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from shardrt.client import SyncClient
from shardrt.core.history import Status
from tests.serving import Served
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.proc]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Served]:
    variables = {"SHARDRT_SHARD_WATCHDOG_S": "1.5", "SHARDRT_PARTITIONS": "4"}
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    served = Served(
        url, tmp_path, "--shards", "1", app="tests.e2e.poison_app:app", variables=variables
    )
    try:
        yield served.start()
    finally:
        served.close()


def test_a_bomb_is_defused_and_its_neighbours_go_on(host: Served) -> None:
    with SyncClient.connect(host.url) as client:
        good = client.start("sleeper", instance_id="good!1")
        # Answered once it is durable, which its own code prevents until it is not run any more.
        client.start("bomb", instance_id="bad!1")
        found = client.get("bad!1")
        assert found is not None
        assert found.status is Status.SUSPENDED
        assert found.reason.startswith("quarantined: its code was running in 3 deaths")
        assert "died while it ran code of instance=bad!1, 3 of 3 times" in host.stderr
        client.raise_event("good!1", "go", "on")
        assert good.result() == "fine"
        client.terminate("bad!1")
        assert client.purge("bad!1") == 1


def test_code_that_does_not_let_go_is_blamed_too(host: Served) -> None:
    with SyncClient.connect(host.url) as client:
        client.start("hog", instance_id="hog!2")
        blamed = "died while it ran code of instance=hog!2, 1 of 3 times"
        wait_until(lambda: blamed in host.stderr, within_s=30)


def test_an_orchestrator_that_ends_processes_is_not_run_for_any_instance(host: Served) -> None:
    with SyncClient.connect(host.url) as client:
        good = client.start("sleeper", instance_id="good!1")
        ids = [f"mine-{n}!{n % 4}" for n in range(8)]
        for each in ids:
            client.start("mine", instance_id=each)
        wait_until(
            lambda: "orchestrator=mine version=None is quarantined" in host.stderr, within_s=50
        )

        def reasons() -> list[str]:
            return [found.reason for each in ids if (found := client.get(each))]

        wait_until(lambda: all(each.startswith("quarantined: ") for each in reasons()), within_s=30)
        alone = [each for each in reasons() if each.startswith("quarantined: its code was running")]
        assert len(alone) <= 3, "others were put away before they ended anything"
        (code,) = client.cluster()["quarantined_orchestrators"]
        assert code == {"name": "mine", "version": None, "instances": 3}
        with httpx.Client(base_url=host.url, timeout=10) as http:
            checks = http.get("/health/details").json()["checks"]
            (said,) = (each["message"] for each in checks if each["name"] == "code")
            assert said == "not run, as it ended shard processes: mine"
            assert "orchestrators_quarantined{" in http.get("/metrics").text
        client.raise_event("good!1", "go", "on")
        assert good.result() == "fine"
        client.resume(ids[-1])
        wait_until(
            lambda: "orchestrator=mine version=None is run again" in host.stderr, within_s=30
        )


@pytest.mark.parametrize("activity", ["leave_thread", "leave"])
def test_an_activity_that_ends_the_process_fails_and_one_beside_it_does_not(
    host: Served, activity: str
) -> None:
    with SyncClient.connect(host.url) as client:
        beside = client.start("calls", "wait_long", instance_id="beside!0")
        bad = client.start("calls", activity, instance_id="bad!1")
        told = "ShardDied: it was running in 3 deaths of shard processes"
        assert str(bad.result()).endswith(told)
        assert beside.result() == "waited"
