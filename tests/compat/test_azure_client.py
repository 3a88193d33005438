"""Every call of Azure's own client, from PyPI's ``azure-functions-durable``, against our hosts."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import azure.durable_functions as df
import azure.functions as func
import pytest

from tests.compat.azure_client import azure_client
from tests.compat.hosted import serving
from tests.loops import in_loop
from tests.serving import Served
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

Status = df.OrchestrationRuntimeStatus
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
ENDED = 6
"""So many instances have ended in the end and were not purged one by one."""
FAR_OFF = datetime(2999, 1, 1, tzinfo=UTC)


async def every_call(url: str) -> None:
    async with azure_client(url) as client:
        await starts_and_looks(client)
        await lists(client)
        await raises_events(client)
        await steers(client)
        await fails_and_rewinds(client)
        await restarts(client)
        await speaks_to_entities(client)
        await answers_requests(client, url)
        await purges(client)


async def until(client: Any, instance_id: str, *statuses: Any) -> Any:
    """Return the status of an instance once it is one of these."""

    async def reached() -> bool:
        found.append(await client.get_status(instance_id))
        return found[-1].runtime_status in statuses

    found: list[Any] = []
    await eventually(reached)
    return found[-1]


async def is_refused(asked: Awaitable[Any], words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        await asked
    assert type(caught.value) is Exception, "it is the client's own"


async def starts_and_looks(client: Any) -> None:
    assert await client.start_new("hello", "first", {"a": 1}) == "first"
    done = await until(client, "first", Status.Completed)
    assert bool(done)
    assert (done.name, done.instance_id) == ("hello", "first")
    # The client encodes its input twice, and Azure keeps the text as it comes.
    assert done.input_ == '{"a": 1}'
    assert done.output == '{"A": 1}'
    assert done.created_time <= done.last_updated_time
    whole = await client.get_status("first", True, True, True)
    assert whole.input_ == '{"a": 1}'
    kinds = [event["EventType"] for event in whole.historyEvents]
    assert kinds == ["ExecutionStarted", "TaskCompleted", "ExecutionCompleted"]
    unnamed = await client.start_new("hello")
    assert len(unnamed) == 32
    assert (await until(client, unnamed, Status.Completed)).output is None
    assert not await client.get_status("nobody")
    await is_refused(client.start_new("missing"), "no orchestrator 'missing'")
    await is_refused(client.start_new("hello", "@x"), "must not start with")


async def lists(client: Any) -> None:
    async def listed(question: Callable[[], Awaitable[list[Any]]], expected: set[str]) -> None:
        async def fits() -> bool:
            return {each.instance_id for each in await question()} >= expected

        await eventually(fits)

    await client.start_new("wait", "open")
    await listed(client.get_status_all, {"first", "open"})
    await listed(lambda: client.get_status_by(runtime_status=[Status.Running]), {"open"})
    running = await client.get_status_by(LONG_AGO, FAR_OFF, [Status.Running])
    assert [each.instance_id for each in running] == ["open"]
    assert await client.get_status_by(created_time_from=FAR_OFF) == []
    several = [Status.Running, Status.Completed]
    prefixed = await client.get_status_by(runtime_status=several, instance_id_prefix="fir")
    assert [each.instance_id for each in prefixed] == ["first"]


async def raises_events(client: Any) -> None:
    await until(client, "open", Status.Running)
    await client.raise_event("open", "GO", [1, 2], "hub", "storage")
    assert (await until(client, "open", Status.Completed)).output == "[1, 2]"
    await is_refused(client.raise_event("open", "go"), "410|gone|completed|already")
    await is_refused(client.raise_event("nobody", "go", 1), "nobody")
    await client.start_new("wait", "silent")
    await client.raise_event("silent", "go")
    assert (await until(client, "silent", Status.Completed)).output == "null"


async def steers(client: Any) -> None:
    await client.start_new("wait", "steered")
    running = await until(client, "steered", Status.Running)
    assert not running.output
    await client.suspend("steered", "a pause & more")
    await until(client, "steered", Status.Suspended)
    await client.resume("steered", "go on")
    await until(client, "steered", Status.Running)
    await client.terminate("steered", "so be it?")
    assert (await until(client, "steered", Status.Terminated)).output == "so be it?"
    for call in (client.suspend, client.resume, client.terminate):
        await call("steered", "too late, which is fine")
        await is_refused(call("nobody", "r"), "No instance with ID 'nobody' found")


async def fails_and_rewinds(client: Any) -> None:
    await is_refused(client.rewind("nobody", "r"), "No instance with ID nobody found")
    await is_refused(client.rewind("steered", "r"), "only supported on failed")
    await client.start_new("flaky", "flaky")
    failed = await until(client, "flaky", Status.Failed)
    assert "RuntimeError: not yet" in failed.output
    await client.rewind("flaky", "again", "hub", "storage")
    assert (await until(client, "flaky", Status.Completed)).output == "at last"


async def restarts(client: Any) -> None:
    other = await client.restart("first")
    assert (other["id"] == "first", len(other["id"])) == (False, 32)
    assert (await until(client, other["id"], Status.Completed)).output == '{"A": 1}'
    same = await client.restart("first", restart_with_new_instance_id=False)
    assert same["id"] == "first"
    await until(client, "first", Status.Completed)
    await is_refused(client.restart("nobody"), "400")


async def speaks_to_entities(client: Any) -> None:
    entity = df.EntityId("counter", "mine")
    assert not (await client.read_entity_state(entity)).entity_exists
    await client.signal_entity(entity, "add", 5)
    await client.signal_entity(entity, "add", task_hub_name="hub", connection_name="storage")

    async def counted() -> bool:
        found = await client.read_entity_state(entity, "hub", "storage")
        return bool(found.entity_exists and found.entity_state == 6)

    await eventually(counted)


async def answers_requests(client: Any, url: str) -> None:
    request = func.HttpRequest("POST", f"{url}/api/start", body=b"")
    checked = client.create_check_status_response(request, "first")
    assert checked.status_code == 202
    hook = f"{url}/runtime/webhooks/durabletask/instances/first?taskHub=H"
    assert checked.headers["Location"].startswith(hook)
    assert json.loads(checked.get_body())["statusQueryGetUri"].startswith(hook)
    assert client.create_http_management_payload("first")["id"] == "first"
    assert client.get_client_response_links(request, "first")["id"] == "first"

    wait = client.wait_for_completion_or_create_check_status_response
    done = await wait(request, "first", 5_000, 50)
    assert (done.status_code, json.loads(done.get_body())) == (200, {"A": 1})
    await client.start_new("flaky", "failed")
    failed = await wait(request, "failed", 10_000, 50)
    assert (failed.status_code, json.loads(failed.get_body())["runtimeStatus"]) == (500, "Failed")
    ended = await wait(request, "steered", 5_000, 50)
    assert json.loads(ended.get_body())["runtimeStatus"] == "Terminated"
    await client.start_new("wait", "endless")
    assert (await wait(request, "endless", 100, 50)).status_code == 202


async def purges(client: Any) -> None:
    assert (await client.purge_instance_history("first")).instances_deleted == 1
    assert (await client.purge_instance_history("first")).instances_deleted == 0
    await eventually(lambda: _purged(client, [Status.Failed], 1))
    assert await _purged(client, [Status.Failed], 0)
    ends = [Status.Completed, Status.Terminated]

    async def all_are_listed() -> bool:
        ended = await client.get_status_by(runtime_status=ends)
        return {each.instance_id for each in ended} >= {"open", "silent", "steered", "flaky"} and (
            len(ended) == ENDED
        )

    await eventually(all_are_listed)
    deleted = await client.purge_instance_history_by(LONG_AGO, FAR_OFF)
    assert deleted.instances_deleted == ENDED
    assert (await client.get_status("endless")).runtime_status is Status.Running


async def _purged(client: Any, statuses: list[Any], count: int) -> bool:
    deleted = await client.purge_instance_history_by(LONG_AGO, runtime_status=statuses)
    return bool(deleted.instances_deleted == count)


@in_loop
async def test_every_call_of_the_client_at_an_embedded_host() -> None:
    async with serving() as (_, url):
        await every_call(url)


@pytest.mark.proc
@pytest.mark.slow
def test_every_call_of_the_client_at_a_real_host(tmp_path: Path) -> None:
    served = Served(
        f"sqlite:///{tmp_path / 'hub.db'}", tmp_path, "--shards", "2", app="tests.compat.hosted:app"
    )
    with served:
        asyncio.run(every_call(served.url))
        assert served.interrupt() == 0
