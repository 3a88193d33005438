"""The async client, through a real gateway, to a stand-in for a shard."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from shardrt import App, OrchestrationContext
from shardrt.client import Client, Failure, StartRequest, Status
from shardrt.core import requests as r
from shardrt.core.ids import partition_of
from shardrt.errors import (
    ConfigInvalid,
    ConnectionLost,
    InputInvalid,
    InstanceExists,
    InstanceFinished,
    InstanceNotFinished,
    InstanceNotFound,
    OrchestrationCanceled,
    OrchestrationFailed,
    OrchestrationTerminated,
    OrchestratorNotRegistered,
    PayloadTooLarge,
    Unauthorized,
)
from tests.fake_host import LIMITS, PARTITIONS, FakeHost
from tests.loops import in_loop
from tests.waiting import eventually

LATER = datetime(2100, 1, 1, tzinfo=UTC)

app = App()


@dataclass
class Order:
    id: str
    amount: float


@app.orchestrator(name="process-order", version="2")
async def process_order(ctx: OrchestrationContext, order: Order) -> Order:
    return order


@in_loop
async def test_starting_by_function_uses_its_name_version_and_type() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        handle = await client.start(process_order, Order("7", 1.5), tags={"k": "v"})
        (sent,) = host.shard.received
        request = sent.request
        assert isinstance(request, r.Start)
        assert (request.name, request.version, request.tags) == ("process-order", "2", {"k": "v"})
        assert bytes(request.input) == b'{"id":"7","amount":1.5}'
        assert request.fresh
        assert len(handle.instance_id) == 32
        host.shard.end(handle.instance_id, output=b'{"id":"7","amount":2.5}')
        assert await handle.result() == Order("7", 2.5)
        assert await handle.result(type=dict) == {"id": "7", "amount": 2.5}


@in_loop
async def test_starting_by_name_with_an_id_and_a_time() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        when = datetime(2030, 1, 1, tzinfo=UTC)
        handle = await client.start("hello", instance_id="mine", start_at=when)
        request = host.shard.requests[0]
        assert request == r.Start("hello", start_at=int(when.timestamp() * 1_000_000))
        assert handle.instance_id == "mine"
        with pytest.raises(InstanceExists, match="mine"):
            await client.start("hello", instance_id="mine")
        again = await client.start("hello", instance_id="mine", on_conflict="return")
        assert again.instance_id == "mine"


@in_loop
async def test_executing_starts_and_gives_the_output_of_the_type() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        running = asyncio.ensure_future(
            client.execute(process_order, Order("7", 1.5), tags={"k": "v"})
        )
        await host.shard.until(lambda: len(host.shard.waits) == 1)
        [(instance_id, snapshot)] = host.shard.instances.items()
        assert (snapshot.name, snapshot.tags) == ("process-order", {"k": "v"})
        assert len(instance_id) == 32
        host.shard.tell_accepted(instance_id)
        await eventually(lambda: not client._session.is_calling)
        host.shard.end(instance_id, output=b'{"id":"7","amount":2.5}')
        assert await running == Order("7", 2.5)
        (sent,) = host.shard.received
        assert sent.wants_end, "it took one request"


@pytest.mark.parametrize("is_old", [False, True])
@in_loop
async def test_executing_raises_how_it_has_ended(is_old: bool) -> None:
    async with FakeHost.running() as host, await host.client() as client:
        host.shard.is_old = is_old
        runs = [asyncio.ensure_future(client.execute("hello", instance_id=each)) for each in "abcd"]
        await host.shard.until(lambda: len(host.shard.waits) == 4)
        host.shard.end("a", output=b"[1,2]")
        host.shard.end("b", Status.FAILED, failure=Failure(type="ValueError", message="bad"))
        host.shard.end("c", Status.TERMINATED, reason="enough")
        host.shard.end("d", Status.CANCELED, reason="stopped")
        assert await runs[0] == [1, 2]
        with pytest.raises(OrchestrationFailed, match="ValueError: bad"):
            await runs[1]
        with pytest.raises(OrchestrationTerminated, match="enough"):
            await runs[2]
        with pytest.raises(OrchestrationCanceled, match="stopped"):
            await runs[3]
        assert len(host.shard.received) == (8 if is_old else 4)


@in_loop
async def test_executing_what_exists() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        await client.start("hello", instance_id="x")
        with pytest.raises(InstanceExists, match="x"):
            await client.execute("hello", instance_id="x")
        with pytest.raises(OrchestratorNotRegistered):
            await client.execute("unknown")
        same_start = r.Start("hello", on_conflict="return")
        same = [
            asyncio.ensure_future(
                client.execute("hello", instance_id="x", on_conflict="return", timeout=20)
            )
            for _ in range(2)
        ]
        await host.shard.until(lambda: host.shard.requests.count(same_start) == 2)
        await host.shard.until(lambda: len(host.shard.waits.get("x", [])) == 1)
        host.shard.end("x", output=b"3")
        assert await asyncio.gather(*same) == [3, 3]
        assert host.shard.requests.count(r.Wait()) == 1, "they share what they wait for"
        assert await client.execute("hello", instance_id="x", on_conflict="return") == 3


@in_loop
async def test_a_timeout_of_executing_ends_only_the_waiting() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        with pytest.raises(TimeoutError, match=r"'x' has not .*; x is Running"):
            await client.execute("hello", instance_id="x", timeout=0.1)
        host.shard.tell_accepted("x")
        await eventually(lambda: not client._session.is_waiting)
        found = await client.get("x")
        assert found is not None
        assert found.status == "Running"
        with pytest.raises(InputInvalid, match="on_conflict"):
            await client.execute("hello", on_conflict="maybe")  # type: ignore[call-overload]


@in_loop
async def test_a_host_that_restarts_does_not_lose_what_it_executes() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        runs = [asyncio.ensure_future(client.execute("hello", instance_id=each)) for each in "ab"]
        await host.shard.until(lambda: len(host.shard.waits) == 2)
        host.shard.tell_accepted("a")
        await eventually(lambda: len(client._session._waits) == 1)
        await host.restart_http()
        await host.shard.until(lambda: len(host.shard.received) == 4)
        again = {each.instance_id: each for each in host.shard.received[2:]}
        assert again["a"].request == r.Wait()
        assert again["b"].request == r.Start("hello")
        assert again["b"].wants_end
        first = {each.instance_id: each.origin.seq for each in host.shard.received[:2]}
        assert first == {each: again[each].origin.seq for each in "ab"}
        for each in "ab":
            host.shard.end(each, output=b"1")
        assert await asyncio.gather(*runs) == [1, 1]


@in_loop
async def test_many_starts_keep_their_order() -> None:
    async with FakeHost.running(shards=2) as host, await host.client() as client:
        wanted = (StartRequest("hello", i, instance_id=f"i{i}") for i in range(10_000))
        handles = await client.start_many(wanted)
        assert [handle.instance_id for handle in handles] == [f"i{i}" for i in range(10_000)]
        assert [len(shard.instances) > 1000 for shard in host.shards] == [True, True]


@in_loop
async def test_the_first_refusal_of_many_starts_is_raised() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        wanted = [StartRequest(name, instance_id=name) for name in ("a", "unknown", "c")]
        with pytest.raises(OrchestratorNotRegistered):
            await client.start_many(wanted)
        assert set(host.shard.instances) == {"a", "c"}


@in_loop
async def test_how_an_instance_stands() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        assert await client.get("nobody") is None
        handle = await client.start("hello", {"a": [1]}, instance_id="x", tags={"k": "v"})
        found = await handle.status(history=True)
        assert found is not None
        assert (found.instance_id, found.name, found.status) == ("x", "hello", "Running")
        assert (found.input, found.output, found.tags) == ({"a": [1]}, None, {"k": "v"})
        assert found.created_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
        assert not found.is_final
        assert found.history is not None
        assert [event.kind for event in found.history] == [
            "ExecutionStarted",
            "OrchestratorStarted",
            "TaskScheduled",
            "TaskCompleted",
            "ExecutionCompleted",
        ]
        with pytest.raises(InstanceNotFound):
            await client.history("nobody")


@in_loop
async def test_results_of_all_ends() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        handles = [await client.start("hello", instance_id=each) for each in "abcd"]
        results = [asyncio.ensure_future(each.result()) for each in handles]
        await host.shard.until(lambda: len(host.shard.waits) == 4)
        failure = Failure(type="ValueError", message="bad", details="trace")
        host.shard.end("a", output=b"[1,2]")
        host.shard.end("b", Status.FAILED, failure=failure)
        host.shard.end("c", Status.TERMINATED, reason="enough")
        host.shard.end("d", Status.CANCELED, reason="stopped")
        assert await results[0] == [1, 2]
        with pytest.raises(OrchestrationFailed, match="ValueError: bad") as failed:
            await results[1]
        assert (failed.value.error_type, failed.value.details) == ("ValueError", "trace")
        with pytest.raises(OrchestrationTerminated, match="enough"):
            await results[2]
        with pytest.raises(OrchestrationCanceled, match="stopped") as canceled:
            await results[3]
        assert canceled.value.reason == "stopped"
        with pytest.raises(InstanceNotFound):
            await client.handle("nobody").result()


@in_loop
async def test_a_timeout_ends_only_the_waiting() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        handle = await client.start("hello")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await handle.result(timeout=0.01)
        result = asyncio.ensure_future(handle.result(timeout=20))
        await host.shard.until(lambda: len(host.shard.waits) == 1)
        host.shard.end(handle.instance_id, output=b'"done"')
        assert await result == "done"
        asked = [each for each in host.shard.received if isinstance(each.request, r.Wait)]
        assert len(asked) == 1


@in_loop
async def test_steering_an_instance() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        handle = await client.start("hello", instance_id="x")
        await handle.raise_event("go", {"n": 1})
        await handle.suspend("pause")
        await handle.resume("on")
        await handle.rewind("again")
        await handle.cancel("gently")
        await handle.terminate("stop", recursive=False)
        assert host.shard.requests[1:] == [
            r.Raise("go", host.shard.requests[1].data),
            r.Suspend("pause"),
            r.Resume("on"),
            r.Rewind("again"),
            r.Cancel("gently"),
            r.Terminate("stop", recursive=False),
        ]
        assert bytes(host.shard.requests[1].data) == b'{"n":1}'
        with pytest.raises(InstanceNotFinished):
            await handle.purge()
        host.shard.end("x")
        with pytest.raises(InstanceFinished):
            await handle.raise_event("go")
        assert await handle.restart() is handle
        assert await handle.purge() == 1
        assert await handle.status() is None


@in_loop
async def test_lists_are_read_page_by_page() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        await client.start_many(StartRequest("hello", instance_id=f"{i:03}") for i in range(25))
        after = datetime(2020, 1, 1)  # noqa: DTZ001 - naive times are UTC
        found = client.list(status="running", created_from=after, tags={"a": "b"}, page_size=10)
        assert [each.instance_id async for each in found] == [f"{i:03}" for i in range(25)]
        where = host.shard.questions[0].where
        assert (where.status, where.tags) == (("Running",), {"a": "b"})
        assert where.created_from == int(after.replace(tzinfo=UTC).timestamp()) * 1_000_000
        assert len(host.shard.questions) == 3
        assert await client.count() == {"Running": 25}
        with pytest.raises(InputInvalid, match="no status 'asleep'"):
            await client.count(status=["asleep"])


@in_loop
async def test_purging_by_condition() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        await client.start_many(StartRequest("hello", instance_id=f"{i}") for i in range(10))
        for i in range(0, 10, 2):
            host.shard.end(f"{i}")
        assert await client.purge_where(completed_to=LATER) == 5
        assert sorted(host.shard.instances) == ["1", "3", "5", "7", "9"]


@in_loop
async def test_what_cannot_be_sent_is_refused_here() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        with pytest.raises(PayloadTooLarge, match=r"input of \d+ bytes exceeds 65536"):
            await client.start("hello", "x" * LIMITS.payload_bytes_max)
        with pytest.raises(PayloadTooLarge, match="event data"):
            await client.raise_event("x", "go", "x" * LIMITS.payload_bytes_max)
        with pytest.raises(InputInvalid, match=r"nan"):
            await client.start("hello", float("nan"))
        for wrong in ("", "a\0b", "a\nb", "\ud800"):
            with pytest.raises(InputInvalid):
                await client.start("hello", instance_id=wrong)
            with pytest.raises(InputInvalid):
                await client.get(wrong)
        with pytest.raises(InputInvalid, match="on_conflict"):
            await client.start("hello", on_conflict="maybe")  # type: ignore[call-overload]
        with pytest.raises(ConfigInvalid, match="not an orchestrator"):
            await client.start(7)  # type: ignore[call-overload]
        assert host.shard.received == []
        with pytest.raises(InputInvalid, match="255"):
            await client.start("hello", instance_id="x" * 256)


@in_loop
async def test_payloads_up_to_the_limit_pass_in_any_number() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        value = "x" * (LIMITS.payload_bytes_max - 2)
        # Together they are longer than any frame that the host takes.
        await client.start_many([StartRequest("hello", value)] * 40)
        assert len(host.shard.instances) == 40


@in_loop
async def test_a_host_that_restarts_loses_nothing() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        done = await client.start("hello", instance_id="before")
        result = asyncio.ensure_future(done.result())
        await host.shard.until(lambda: bool(host.shard.waits))
        host.shard.hold = True
        starting = asyncio.ensure_future(client.start("hello", instance_id="during"))
        await host.shard.until(lambda: bool(host.shard.held))
        await host.restart_http()
        await host.shard.until(lambda: len(host.shard.held) == 3)
        host.shard.release()
        assert (await starting).instance_id == "during"
        host.shard.end("before", output=b"1")
        assert await result == 1
        keys = [(each.origin.client, each.origin.seq) for each in host.shard.received]
        assert len(keys) == len(set(keys)) + 2, "the start and the wait were repeated"


@in_loop
async def test_several_hosts_are_tried_in_turn() -> None:
    async with FakeHost.running() as host:
        urls = ["http://127.0.0.1:9", host.url]
        async with await Client.connect(urls) as client:
            await client.start("hello")
        with pytest.raises(ConnectionLost, match="cannot reach"):
            await Client.connect(urls[:1])
    with pytest.raises(ConfigInvalid):
        await Client.connect([])
    with pytest.raises(ConfigInvalid):
        await Client.connect(" , ")


@in_loop
async def test_a_client_goes_on_elsewhere_when_its_host_lets_it_go() -> None:
    async with FakeHost.running() as one, FakeHost.running() as other:
        async with await Client.connect(f"{one.url}, {other.url}") as client:
            other.gateway.set_routes([one.target] * PARTITIONS, other.owner)
            one.shard.hold = True
            starting = asyncio.ensure_future(client.start("hello", instance_id="x"))
            await one.shard.until(lambda: bool(one.shard.held))
            one.gateway.set_routes([None] * PARTITIONS, one.owner)
            other.route()
            await one.gateway.drain(0.0)
            assert (await starting).instance_id == "x"
            # The same request of the same session, so that an owner could tell.
            assert other.shard.received[0].origin == one.shard.received[0].origin
            # Although the first still listens.
            await client.start("hello", instance_id="y")
            assert set(other.shard.instances) == {"x", "y"}


@in_loop
async def test_a_client_that_knows_several_hosts_goes_to_the_one_that_serves() -> None:
    async with FakeHost.running() as one, FakeHost.running(owner="other/1") as other:
        where = [partition_of(f"i{number}", PARTITIONS) for number in range(40)]
        half = PARTITIONS // 2
        one.gateway.set_routes(
            [one.paths[0]] * half + [other.target] * (PARTITIONS - half), one.owner
        )
        other.gateway.set_routes(
            [one.target] * half + [other.paths[0]] * (PARTITIONS - half), other.owner
        )
        async with await Client.connect([one.url, other.url]) as client:
            await eventually(lambda: None not in client._session._lines.routes)
            for number in range(40):
                await client.start("hello", instance_id=f"i{number}")
        for host, served in ((one, range(half)), (other, range(half, PARTITIONS))):
            expected = [f"i{number}" for number in range(40) if where[number] in served]
            assert list(host.shard.instances) == expected
            assert not host.gateway._peers, "nobody forwards anything"


@in_loop
async def test_what_is_under_way_when_a_client_is_closed_is_sent_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeHost.running() as one, FakeHost.running() as other:
        client = await Client.connect([one.url, other.url])
        await eventually(lambda: None not in client._session._lines.routes)
        for host in (one, other):
            host.shard.hold = True
        starting = asyncio.ensure_future(client.start("hello", instance_id="x"))
        await eventually(lambda: one.shard.held or other.shard.held)
        held = len(one.shard.held) + len(other.shard.held)
        await client.close()
        with pytest.raises(ConnectionLost, match="closed"):
            await starting
        assert len(one.shard.held) + len(other.shard.held) == held
    assert [each.getMessage() for each in caplog.records if each.name == "asyncio"] == []


@in_loop
async def test_the_token_must_be_right() -> None:
    async with FakeHost.running(token="s3cret") as host:
        async with await host.client() as client:
            await client.start("hello")
        for wrong in (None, "", "s3cre", "s3crets"):
            with pytest.raises(Unauthorized):
                await Client.connect(host.url, token=wrong)


@in_loop
async def test_starting_later_counts_from_now() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        await client.start("hello")
        await client.start("hello", start_at=timedelta(0))
        await client.start("hello", start_at=timedelta(hours=1))
        none, now, later = (request.start_at for request in host.shard.requests)
        assert none is None
        assert (later - now) / 1e6 == pytest.approx(3600, abs=60)


@in_loop
async def test_the_cluster_of_a_gateway_without_supervisor_is_empty() -> None:
    async with FakeHost.running() as host, await host.client() as client:
        assert await client.cluster() == {}
