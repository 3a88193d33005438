"""Limits as users write them: what makes sense, and which one a call counts for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from shardrt import App, EntityId, Limit, OrchestrationContext
from shardrt.core.history import Quota, TaskScheduled
from shardrt.core.limiter import Numbers
from shardrt.core.work import Completed, Failed
from shardrt.errors import ConfigInvalid
from shardrt.orchestration.executor import Executor
from tests.orchestration.harness import Instance, raw

MINUTE = 60_000_000
API = Limit("api", concurrency=2)


@dataclass
class Order:
    tenant: Any


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "concurrency or rate must be given"),
        ({"per": 5}, "concurrency or rate must be given"),
        ({"concurrency": 0}, "concurrency must be a whole number from 1 on, not 0"),
        ({"concurrency": 1.5}, "concurrency must be a whole number from 1 on, not 1.5"),
        ({"concurrency": True}, "concurrency must be a whole number from 1 on, not True"),
        ({"rate": 0}, "rate must be a whole number from 1 to 1000, not 0"),
        ({"rate": 6000, "per": 60}, "6000 per 60 s is 100 per 1 s"),
        ({"rate": 1, "per": 0}, "per must be from a microsecond to a century, not 0"),
        ({"rate": 1, "per": 1e-9}, "per must be from"),
        ({"rate": 1, "per": float("nan")}, "per must be from"),
        ({"rate": 1, "per": timedelta(seconds=-1)}, "per must be from"),
        ({"rate": 1, "per": timedelta(days=40_000)}, "per must be from"),
        ({"rate": 1, "per": "1"}, "per must be from"),
        ({"name": "", "rate": 1}, "name must be a printable text of 1 to 100 characters"),
        ({"name": "x" * 101, "rate": 1}, "name must be a printable text of 1 to 100 characters"),
        ({"name": "a\nb", "rate": 1}, "name must be a printable text"),
        ({"name": 5, "rate": 1}, "name must be a printable text"),
        ({"name": "a/b", "rate": 1}, "name must have no slash"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any], problem: str):
    with pytest.raises(ConfigInvalid) as caught:
        Limit(**{"name": "api"} | options)
    assert problem in str(caught.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigInvalid) as caught:
        Limit("", concurrency=0, rate=0, per=0)
    assert len(caught.value.problems) == 4


def test_a_limit_at_its_bounds_is_taken():
    assert Limit("a", rate=1000, per=timedelta(minutes=1)).numbers() == Numbers(None, 1000, MINUTE)
    assert Limit("a", 1).numbers() == Numbers(1)
    assert Limit("a", 1, 1, 1e-6).numbers() == Numbers(1, 1, 1)


async def work(order: Order) -> None: ...


def blocking(order: Order) -> None: ...


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"limit": API, "speculative": True}, "speculative does not go with a limit"),
        ({"limit_key": len}, "limit_key is a function, and goes with a limit"),
        ({"limit": API, "limit_key": "acme"}, "limit_key is a function, and goes with a limit"),
    ],
)
def test_an_activity_that_cannot_be_limited_so_is_refused(options: Any, problem: str):
    with pytest.raises(ConfigInvalid, match=problem):
        App().activity(**options)(work)


def test_transactions_and_processes_can_be_limited():
    app = App()
    app.activity(limit=API, transactional=True)(work)
    app.activity(limit=API, executor="process")(blocking)
    assert [each.limit for each in app.activities] == [API, API]


def test_limits_of_one_name_are_one_limit_and_have_the_same_numbers():
    app, other = App(), App()
    app.activity(limit=API)(work)
    app.activity(limit=Limit("api", concurrency=2, per=5), name="same")(work)
    problem = "activity 'blocking': its limit 'api' has other numbers than that of activity 'work'"
    with pytest.raises(ConfigInvalid, match=problem):
        app.activity(limit=Limit("api", concurrency=3))(blocking)
    other.activity(limit=Limit("api", concurrency=3))(blocking)
    with pytest.raises(ConfigInvalid, match=problem):
        app.include(other)
    assert "blocking" not in [each.name for each in app.activities]


@pytest.mark.parametrize("name", ["$limit", "$Limit", "$"])
def test_names_of_entities_do_not_begin_with_a_dollar_sign(name: str):
    with pytest.raises(ConfigInvalid, match="is no name for an entity"):
        EntityId(name, "api")
    with pytest.raises(ConfigInvalid, match="is no name for an entity"):
        EntityId.parse(f"@{name}@api")
    with pytest.raises(ConfigInvalid, match="is no name for an entity"):
        App().entity(name=name)(Order)


# -- which one a call counts for ---------------------------------------------------------------


def scheduled(order: object = None, options: Any = None, **call: Any) -> TaskScheduled:
    """Return how a call of an activity is recorded, or raise what it fails with."""
    app = App()
    app.activity(limit=API, **options or {})(work)

    @app.orchestrator
    async def caller(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(work, Order("acme") if order is None else order, **call)

    step = Instance(app, "caller").run()
    if isinstance(step.outcome, Failed):
        raise ValueError(step.outcome.failure.message)  # noqa: TRY004
    (action,) = step.actions
    assert isinstance(action, TaskScheduled)
    return action


def quota(limiter: str) -> Quota:
    return Quota(limiter=limiter, numbers=Numbers(2))


BY_TENANT = {"limit_key": lambda order: order.tenant}


def test_without_a_key_the_whole_hub_shares_it():
    assert scheduled().limit == quota("@$limit@api")


@pytest.mark.parametrize(("tenant", "key"), [("acme", "acme"), (7, "7"), ("", ""), ("a/b", "a/b")])
def test_the_key_is_made_of_the_input(tenant: object, key: str):
    assert scheduled(Order(tenant), BY_TENANT).limit == quota(f"@$limit@api/{key}")


def test_the_key_of_the_call_wins():
    assert scheduled(None, BY_TENANT, limit_key="other").limit == quota("@$limit@api/other")
    assert scheduled(None, None, limit_key=0, timeout=5).limit == quota("@$limit@api/0")


@pytest.mark.parametrize("tenant", [None, 1.5, True, ["acme"], b"acme"])
def test_a_key_is_a_text_or_a_whole_number(tenant: object):
    with pytest.raises(ValueError, match="must be a text or a whole number"):
        scheduled(Order(tenant), BY_TENANT)


@pytest.mark.parametrize("name", ["free", "elsewhere"])
def test_a_key_goes_with_a_limit(name: str):
    app = App()
    app.activity(name="free")(work)

    @app.orchestrator
    async def caller(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(name, Order("acme"), limit_key="acme")

    outcome = Instance(app, "caller").run().outcome
    assert isinstance(outcome, Failed)
    assert outcome.failure.message == (
        f"activity {name!r} has no limit here that 'acme' could be a key of"
    )


def test_another_limit_does_not_contradict_a_history():
    """A deploy may change limits: what was recorded stays, and the code goes on."""
    app, changed = App(), App()
    for each, limit in ((app, API), (changed, None)):
        each.activity(limit=limit)(work)

        @each.orchestrator
        async def caller(ctx: OrchestrationContext) -> str:
            await ctx.call_activity(work, Order("acme"))
            return "done"

    instance = Instance(app, "caller")
    instance.run()
    instance.executor = Executor(changed)
    replayed = instance.run(instance.completed(1), replay=True)
    assert replayed.outcome == Completed(raw("done"))
