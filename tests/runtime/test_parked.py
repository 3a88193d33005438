"""Code that does not fit, from its deployment to its repair, with a store in between."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from shardrt import App, OrchestrationContext, Runtime
from shardrt.core.history import Status
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from shardrt.client.views import OrchestrationStatus

    Body = Callable[[OrchestrationContext], Awaitable[Any]]

ONE = "one!0"


def app_of(body: Body, version: str | None = None, name: str = "flow") -> App:
    app = App()

    @app.activity
    async def good(value: int) -> int:
        return value

    app.activity(name="other")(good)
    app.orchestrator(name=name, version=version)(body)  # type: ignore[type-var]
    return app


async def fitting(ctx: OrchestrationContext) -> str:
    await ctx.call_activity("good", 1)
    await ctx.wait_for_event("go")
    await ctx.call_activity("good", 2)
    return "done"


async def misfit(ctx: OrchestrationContext) -> str:
    await ctx.call_activity("other", 1)
    await ctx.wait_for_event("go")
    return "wrong"


async def reads_clock(ctx: OrchestrationContext) -> str:
    await ctx.call_activity("good", 1)
    await ctx.wait_for_event("go")
    return str(time.monotonic())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.pg)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        dsn: str = request.getfixturevalue("hub_dsn")
        return dsn
    return f"sqlite:///{tmp_path}/hub.db"


@asynccontextmanager
async def deployed(app: App, store: str) -> AsyncIterator[Runtime]:
    unsafe = {"store.unsafe": store.startswith("postgres")}
    async with Runtime(app, store=store, partitions=2, settings=unsafe) as runtime:
        yield runtime


async def parked(runtime: Runtime, instance_id: str = ONE) -> OrchestrationStatus:
    async def reason() -> str:
        status = await runtime.client.get(instance_id)
        return "" if status is None else status.reason

    await eventually(reason)
    status = await runtime.client.get(instance_id)
    assert status is not None
    return status


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [each for each in caplog.records if each.name == "shardrt.host.notices"]
    return [each.getMessage() for each in found]


def levels(runtime: Runtime) -> float:
    [(_, sample)] = runtime.host.samples()["orchestrations_parked"]
    return sample.value


async def started(store: str, app: App) -> None:
    """Start an instance and let it come to its wait."""
    async with deployed(app, store) as runtime:
        await runtime.client.start("flow", instance_id=ONE)

        async def waits() -> bool:
            return "TaskCompleted" in [each.kind for each in await runtime.client.history(ONE)]

        await eventually(waits)


async def completes(app: App, store: str) -> object:
    async with deployed(app, store) as runtime:
        return await runtime.client.handle(ONE).result(timeout=10)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (
            app_of(misfit),
            [
                "history says TaskScheduled #1 'good'",
                "the code asked for TaskScheduled #1 'other'",
                "test_parked.py:",
            ],
        ),
        (
            app_of(reads_clock),
            ["the code called time.monotonic()", "test_parked.py:", "in reads_clock"],
        ),
        (App(), ["no orchestrator 'flow' is registered"]),
        (app_of(fitting, "2"), ["orchestrator 'flow' without a version is not registered"]),
    ],
    ids=["misfit", "clock", "nobody", "version"],
)
def test_bad_code_parks_with_its_reason_and_good_code_completes(
    store: str, bad: App, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        await started(store, app_of(fitting))
        async with deployed(bad, store) as runtime:
            await runtime.client.raise_event(ONE, "go")
            status = await parked(runtime)
            assert status.status is Status.RUNNING
            for text in told:
                assert text in status.reason
            [line] = lines(caplog)
            assert line == f"instance={ONE} name=flow is parked: {status.reason}"
            assert levels(runtime) == 1
            with pytest.raises(TimeoutError, match=r"not ended within 0\.01 s; one!0 is Run"):
                await runtime.client.handle(ONE).result(timeout=0.01)

            async def listed() -> bool:
                return [each.reason async for each in runtime.client.list()] == [status.reason]

            await eventually(listed)
        async with deployed(bad, store) as runtime:
            # Again: whoever has deployed this should know.
            await eventually(lambda: len(lines(caplog)) == 2)
            assert levels(runtime) == 1
        assert await completes(app_of(fitting), store) == "done"

    asyncio.run(main())


def test_resume_tries_the_code_again_at_once(store: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await started(store, app_of(fitting))
        app = App()
        async with deployed(app, store) as runtime:
            await runtime.client.raise_event(ONE, "go")
            assert "no orchestrator" in (await parked(runtime)).reason
            await runtime.client.resume(ONE)  # still in vain
            assert "no orchestrator" in (await parked(runtime)).reason
            await eventually(lambda: len(lines(caplog)) == 2)
            await runtime.client.raise_event(ONE, "go")  # what nobody asked for is no news
            await runtime.client.resume(ONE)
            await eventually(lambda: len(lines(caplog)) == 3)
            app.include(app_of(fitting))
            await runtime.client.resume(ONE)
            assert await runtime.client.handle(ONE).result(timeout=10) == "done"
            after = await runtime.client.get(ONE)
            assert after is not None
            assert after.reason == ""
            assert levels(runtime) == 0

    asyncio.run(main())


def test_a_child_that_nobody_has_registered_is_visible(store: str) -> None:
    async def parent(ctx: OrchestrationContext) -> object:
        return await ctx.call_sub_orchestrator("kid", instance_id="kid!1")

    async def kid(ctx: OrchestrationContext) -> str:
        return f"kid {ctx.version}"

    async def main() -> None:
        async with deployed(app_of(parent), store) as runtime:
            await runtime.client.start("flow", instance_id=ONE)
            status = await parked(runtime, "kid!1")
            assert (status.status, status.reason) == (
                Status.PENDING,
                "no orchestrator 'kid' is registered",
            )
        both = app_of(parent)
        both.orchestrator(kid)
        assert await completes(both, store) == "kid None"

    asyncio.run(main())


def test_an_instance_ends_on_the_version_it_was_started_with(store: str) -> None:
    def flows(*versions: str) -> App:
        app = App()
        for version in versions:

            @app.orchestrator(name="flow", version=version)
            async def flow(ctx: OrchestrationContext, mine: str = version) -> object:
                if ctx.parent_instance_id is not None:
                    return ctx.version
                kid = await ctx.call_sub_orchestrator("flow")
                await ctx.wait_for_event("go")
                return [mine, ctx.version, kid]

        return app

    async def main() -> None:
        async with deployed(flows("1"), store) as runtime:
            await runtime.client.start("flow", instance_id=ONE)
            status = await runtime.client.get(ONE)
            assert status is not None
            assert status.version == "1"
        async with deployed(flows("1", "2"), store) as runtime:
            await runtime.client.raise_event(ONE, "go")
            assert await runtime.client.handle(ONE).result(timeout=10) == ["1", "1", "1"]
            handle = await runtime.client.start("flow")
            await handle.raise_event("go")
            assert await handle.result(timeout=10) == ["2", "2", "2"]
            handle = await runtime.client.start("flow", version="1")
            await handle.raise_event("go")
            assert await handle.result(timeout=10) == ["1", "1", "2"]

    asyncio.run(main())


def test_a_restart_of_code_in_between_does_not_lose_the_reason(store: str) -> None:
    async def main() -> None:
        await started(store, app_of(fitting))
        reasons: list[str] = []
        for _ in range(2):
            async with deployed(app_of(misfit), store) as runtime:
                if not reasons:
                    await runtime.client.raise_event(ONE, "go")
                reasons.append((await parked(runtime)).reason)
        assert reasons[0] == reasons[1]

    asyncio.run(main())
