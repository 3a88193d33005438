"""The blocking client: the same answers, without an event loop."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from shardrt.client import StartRequest, Status, SyncClient
from shardrt.errors import ConnectionLost, InstanceNotFound, OrchestrationFailed
from tests.fake_host import FakeHost, HostThread
from tests.waiting import wait_until


@pytest.fixture
def host() -> Iterator[HostThread]:
    with HostThread() as thread:
        yield thread


def test_the_blocking_client_has_the_same_names(host: HostThread) -> None:
    with SyncClient.connect(host.url) as client:
        handle = client.start("hello", {"a": 1}, instance_id="x")
        assert handle.instance_id == "x"
        found = handle.status(history=True)
        assert found is not None
        assert (found.status, len(found.history or ())) == ("Running", 5)
        handle.raise_event("go", 1)
        handle.suspend("s")
        handle.resume("r")
        handle.rewind("w")
        handle.cancel("c")
        handle.terminate("t")
        assert next(each.kind for each in handle.history()) == "ExecutionStarted"
        with pytest.raises(TimeoutError):
            handle.result(timeout=0.01)
        host.do(lambda fake: fake.shard.end("x", output=b"[2]"))
        assert handle.result() == [2]
        assert handle.restart() is handle
        assert handle.purge() == 1
        with pytest.raises(InstanceNotFound):
            client.handle("x").result(timeout=10)
        assert client.get("x") is None


def test_executing_blocks_until_the_end(host: HostThread) -> None:
    def finish(fake: FakeHost) -> bool:
        if "x" in fake.shard.waits:
            fake.shard.end("x", output=b"[2]")
        return "x" in fake.shard.instances

    with SyncClient.connect(host.url) as client:
        ending = threading.Thread(target=lambda: wait_until(lambda: host.do(finish)))
        ending.start()
        assert client.execute("hello", {"a": 1}, instance_id="x", timeout=20) == [2]
        ending.join()
        host.do(lambda fake: fake.shard.end("x", Status.FAILED))
        with pytest.raises(OrchestrationFailed):
            client.execute("hello", instance_id="x", on_conflict="return")
        with pytest.raises(TimeoutError, match="y"):
            client.execute("hello", instance_id="y", timeout=0.01)


def test_many_at_once(host: HostThread) -> None:
    with SyncClient.connect(host.url) as client:
        handles = client.start_many(StartRequest("hello", instance_id=f"{i}") for i in range(30))
        assert [each.instance_id for each in handles] == [f"{i}" for i in range(30)]
        found = client.list(page_size=7)
        assert {each.instance_id for each in found} == {f"{i}" for i in range(30)}
        assert client.count() == {"Running": 30}
        host.do(lambda fake: fake.shard.end("3", Status.FAILED))
        with pytest.raises(OrchestrationFailed):
            client.handle("3").result()
        assert client.purge_where(status=Status.FAILED) == 1
        assert client.cluster() == {}


def test_any_thread_may_call(host: HostThread) -> None:
    with SyncClient.connect(host.url) as client:
        threads = [
            threading.Thread(target=client.start, args=("hello",), kwargs={"instance_id": f"{i}"})
            for i in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert host.do(lambda fake: len(fake.shard.instances)) == 10


def test_a_closed_client_says_so(host: HostThread) -> None:
    client = SyncClient.connect(host.url)
    client.close()
    client.close()
    with pytest.raises(ConnectionLost, match="closed"):
        client.get("x")


def test_a_host_that_is_not_there_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ConnectionLost):
        SyncClient.connect("http://127.0.0.1:9")
    assert threading.active_count() == before


def test_it_works_within_a_running_loop_of_another_program(host: HostThread) -> None:
    async def main() -> str:
        with SyncClient.connect(host.url) as client:
            return client.start("hello", instance_id="x").instance_id

    assert asyncio.run(main()) == "x"
