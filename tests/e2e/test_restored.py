"""A store that is restored from a backup beneath a host that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shardrt.client import SyncClient
from tests.e2e.test_verify import execute
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.serving import Served

pytestmark = [pytest.mark.slow, pytest.mark.proc]


def test_a_host_goes_on_by_itself_with_what_the_store_has(host: Served, store_url: str) -> None:
    host.start()
    with SyncClient.connect(host.url) as client:
        before = client.start("hello", instance_id="before").result()
        shards = host.children("shard")
        execute(store_url, ["UPDATE partitions SET epoch = 0, owner = NULL"])
        assert client.start("hello", instance_id="after").result() == before
        assert client.start("hello", instance_id="before", on_conflict="return").result() == before
        assert host.children("shard") == shards
        # Some are found out by a write that is refused, the others by a renewal.
        wait_until(
            lambda: all(each["phase"] == "serving" for each in client.cluster()["partitions"]),
            within_s=20,
        )
        assert "broken" not in host.stderr
