"""Entities as users write them: state, operations, and what fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from shardrt import App, EntityContext, EntityId
from shardrt.core import entity as en
from shardrt.core.history import NULL, Parent
from shardrt.errors import ConfigInvalid, EntityNotRegistered
from shardrt.orchestration.entity_executor import EntityExecutor
from tests.orchestration.harness import START, raw, value_of

app = App()
CALLER = Parent("i", "x", 1)


@app.entity
class Account:
    balance: int = 0
    log: list[str] = field(default_factory=list)

    def deposit(self, amount: int) -> int:
        self.balance += amount
        self.log.append(f"+{amount}")
        return self.balance

    def withdraw(self, ctx: EntityContext, amount: int) -> int:
        self.balance -= amount
        ctx.signal("@audit@all", "note", f"-{amount}")
        if self.balance < 0:
            raise ValueError("not enough")
        return self.balance

    async def double(self) -> int:
        self.balance = await self._times(2)
        return self.balance

    async def _times(self, factor: int) -> int:
        return self.balance * factor

    async def wait(self) -> None:
        self.balance = -1
        await asyncio.sleep(0)

    def close(self, ctx: EntityContext) -> None:
        ctx.delete_state()

    def broken(self) -> Any:
        self.balance = 77
        return object()

    def spoil(self) -> None:
        self.balance = float("nan")  # type: ignore[assignment]


@app.entity
def note(ctx: EntityContext, value: Any) -> Any:
    match ctx.operation:
        case "set":
            ctx.set_state(value)
        case "get":
            return [ctx.has_state, ctx.get_state(Any, default="none")]
        case "forget":
            ctx.delete_state()
        case "who":
            return [ctx.entity_id, ctx.name, ctx.key, str(ctx.current_utc_datetime)]
        case "typed":
            return ctx.get_input(int) + ctx.get_state(int, 0)
        case _:
            pass
    return None


@dataclass
class Run:
    """What came of some operations."""

    step: en.EntityStep

    @property
    def results(self) -> list[Any]:
        return [
            value_of(each.result) if each.failure is None else each.failure.type
            for each in self.step.results
        ]

    @property
    def state(self) -> Any:
        assert self.step.state is not None
        return value_of(self.step.state[0]) if self.step.state else None


def run(
    name: str,
    *operations: tuple[str, Any] | str,
    state: en.State = (),
    key: str = "k",
    waited_for: bool = True,
) -> Run:
    asked = [each if isinstance(each, tuple) else (each, None) for each in operations]
    work = en.EntityWork(
        f"@{name}@{key}",
        "1.1",
        START,
        3,
        name,
        state,
        tuple(
            en.Operation(each, raw(value), CALLER if waited_for else None) for each, value in asked
        ),
    )
    return Run(EntityExecutor(app).run(work))


# -- classes ---------------------------------------------------------------------------------------


def test_operations_change_the_state_one_after_the_other():
    found = run("account", ("deposit", 5), ("deposit", 2), "double")
    assert found.results == [5, 7, 14]
    assert found.state == {"balance": 14, "log": ["+5", "+2"]}


def test_a_state_that_is_as_it_was_is_not_written_again():
    state = (raw({"balance": 0, "log": []}),)
    assert run("account", "double", state=state).step.state is None


def test_a_failed_operation_undoes_itself_and_no_other():
    found = run("account", ("deposit", 5), ("withdraw", 9), ("withdraw", 3))
    assert found.results == [5, "ValueError", 2]
    assert found.state == {"balance": 2, "log": ["+5"]}
    (signal,) = found.step.outputs
    assert signal == en.SignalSent("@audit@all", "note", raw("-3"))


def test_an_input_that_does_not_fit_fails_the_operation():
    found = run("account", ("deposit", "much"), ("deposit", 1))
    assert found.results == ["InputInvalid", 1]


def test_an_unknown_operation_fails_and_names_the_known():
    found = run("account", "steal")
    (result,) = found.step.results
    assert result.failure is not None
    assert "no operation 'steal'; it has broken, close, deposit" in result.failure.message


@pytest.mark.parametrize("name", ["_times", "__init__", "balance"])
def test_what_is_not_public_is_no_operation(name: str):
    assert run("account", name).results == ["InputInvalid"]


def test_an_operation_that_waits_fails_and_says_what_to_do():
    found = run("account", ("deposit", 1), "wait")
    assert found.results == [1, "OperationSuspended"]
    assert found.state["balance"] == 1
    failure = found.step.results[1].failure
    assert failure is not None
    assert "call an activity from an orchestration" in failure.message


def test_what_has_no_json_form_fails_the_operation():
    found = run("account", ("deposit", 1), "broken", "spoil")
    assert found.results == [1, "InputInvalid", "InputInvalid"]
    assert found.state["balance"] == 1


def test_a_deleted_state_is_gone_and_can_come_back():
    state = (raw({"balance": 3}),)
    assert run("account", "close", state=state).step.state == ()
    assert run("account", "delete", state=state).step.state == ()
    assert run("account", "close", ("deposit", 1), state=state).state["balance"] == 1


def test_a_state_that_does_not_fit_its_class_any_more_fails_the_operation():
    assert run("account", ("deposit", 1), state=(raw("text"),)).results == ["InputInvalid"]


def test_a_failed_signal_is_logged_as_nobody_hears_of_it(caplog: pytest.LogCaptureFixture):
    run("account", ("withdraw", 1), waited_for=False)
    assert "entity=@account@k operation=withdraw, which nobody waits for, failed" in caplog.text


@pytest.mark.parametrize("base", [msgspec.Struct, object])
def test_any_class_with_fields_will_do(base: type):
    other = App()

    class Bag(base):  # type: ignore[misc]
        items: list[int] = field(default_factory=list) if base is object else []

        def put(self, item: int) -> int:
            self.items.append(item)
            return len(self.items)

    other.entity(Bag)
    work = en.EntityWork("@bag@1", "1.1", 1, 0, "bag", (), (en.Operation("put", raw(7)),))
    step = EntityExecutor(other).run(work)
    assert step.state == (raw({"items": [7]}),)


# -- functions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, False, "", [], {}])
def test_a_falsy_state_is_a_state(value: object):
    found = run("note", ("set", value), "get")
    assert found.results == [None, [True, value]]
    assert found.step.state == (raw(value),)


def test_null_is_no_state():
    found = run("note", ("set", None), "get", state=(raw(1),))
    assert found.results == [None, [False, "none"]]
    assert found.step.state == ()


def test_a_function_can_forget_its_state():
    assert run("note", "forget", "get", state=(raw(1),)).results == [None, [False, "none"]]


def test_an_operation_knows_whose_it_is():
    moment = str(datetime.fromtimestamp(START / 1e6, UTC))
    assert run("note", "who", key="a@b").results == [["@note@a@b", "note", "a@b", moment]]


def test_input_and_state_have_the_type_asked_for():
    assert run("note", ("typed", 2), state=(raw(3),)).results == [5]
    assert run("note", ("typed", "x")).results == ["InputInvalid"]


# -- others ----------------------------------------------------------------------------------------


def test_signals_for_later_and_starts_are_outputs():
    other = App()

    @other.orchestrator(name="flow", version="2")
    async def flow() -> None: ...

    @other.entity
    class Boss:
        def go(self, ctx: EntityContext) -> list[str]:
            ctx.signal(EntityId("boss", "x"), Boss.go, at=timedelta(seconds=1))
            ctx.logger.info("started")
            named = ctx.start_orchestration("other", 1, instance_id="mine")
            return [named, ctx.start_orchestration(flow), ctx.start_orchestration(flow)]

        def wrong(self, ctx: EntityContext) -> None:
            ctx.start_orchestration("other", instance_id="@boss@x")

    operations = (en.Operation("go"), en.Operation("wrong"), en.Operation("go"))
    step = EntityExecutor(other).run(
        en.EntityWork("@boss@1", "1.1", START, 0, "boss", (), operations)
    )
    signal, named, *rest = step.outputs
    assert signal == en.SignalSent("@boss@x", "go", NULL, START + 1_000_000)
    assert named == en.OrchestrationStarted("mine", "other", raw(1))
    assert rest[0].name == "flow"
    ids = [each.instance_id for each in step.outputs if isinstance(each, en.OrchestrationStarted)]
    assert len(ids) == 6
    assert len(set(ids)) == 5
    failure = step.results[1].failure
    assert failure is not None
    assert failure.type == "InputInvalid"


def test_what_is_too_large_fails_the_operation():
    class Limits:
        def instance_id(self, instance_id: str) -> str | None:
            return "too long" if len(instance_id) > 9 else None

        def name(self, name: str, what: str) -> str | None:
            return None

        def version(self, version: str | None) -> str | None:
            return None

        def payload(self, payload: Raw, what: str) -> str | None:
            return f"{what} is too large" if len(bytes(payload)) > 40 else None

    def perform(operation: str, value: object) -> str | None:
        operations = (en.Operation(operation, raw(value)),)
        work = en.EntityWork("@account@1", "1.1", START, 0, "account", (), operations)
        (result,) = EntityExecutor(app, Limits()).run(work).results
        return None if result.failure is None else result.failure.message

    assert perform("deposit", 1) is None
    assert perform("deposit", 10**30) == "state is too large"
    assert perform("withdraw", -1) == "too long"


def test_an_entity_that_nobody_knows_is_parked():
    work = en.EntityWork("@none@1", "1.1", START, 0, "none", (), (en.Operation("x"),))
    assert EntityExecutor(app).run(work).parked == "no entity 'none' is registered"


# -- registering -----------------------------------------------------------------------------------


def test_entities_are_found_by_name_class_and_function():
    assert app.find_entity("ACCOUNT") is app.find_entity(Account)
    assert app.find_entity(note).name == "note"
    assert [each.name for each in app.entities] == ["account", "note"]
    with pytest.raises(EntityNotRegistered, match="no entity 'x'"):
        app.find_entity("x")


def test_a_name_is_taken_once_whatever_its_case():
    other = App()
    other.include(app)
    other.include(app)
    with pytest.raises(ConfigInvalid, match="entity 'account' is registered twice"):
        other.entity(name="ACCOUNT")(note)
    third = App()
    third.entity(name="Account")(lambda ctx: None)
    with pytest.raises(ConfigInvalid, match="registered twice"):
        other.include(third)


def test_what_cannot_be_an_entity_is_refused():
    other = App()
    with pytest.raises(ConfigInvalid, match="is no name"):
        other.entity(name="a@b")(note)
    with pytest.raises(ConfigInvalid, match="has no operations"):

        @other.entity
        class Empty:
            x: int = 0

    with pytest.raises(ConfigInvalid, match="goes on a class or function"):
        other.entity(3)  # type: ignore[call-overload]


def test_an_entity_id_is_told_by_name_and_key():
    one = EntityId(Account, "a@b")
    assert str(one) == "@account@a@b"
    assert EntityId.parse("@Account@a@b") == one
    assert EntityId("ACCOUNT", "a@b") == one
    with pytest.raises(ConfigInvalid):
        EntityId("a@b", "c")
    with pytest.raises(ConfigInvalid, match="not an entity"):
        EntityId(object(), "c")  # type: ignore[arg-type]
