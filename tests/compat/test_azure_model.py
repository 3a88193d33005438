"""The finer points of Azure's programming model."""

from __future__ import annotations

import gc
import inspect
import logging
import random
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import azure.durable_functions as df
import pytest

from shardrt.compat.azure import from_azure
from shardrt.errors import ConfigInvalid, OrchestrationFailed
from shardrt.host.imports import import_app
from shardrt.testing import Environment, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINUTE = timedelta(minutes=1)


def run(orchestrator: Callable[[Any], Any], given: Any = None) -> Any:
    """Run one generator as an orchestration, with the activities below; return its result."""

    async def test() -> Any:
        app = df.DFApp()
        add_activities(app)
        app.orchestration_trigger(context_name="context", orchestration="it")(orchestrator)
        async with Environment(from_azure(app)) as env:
            return await (await env.client.start("it", given)).result()

    return run_virtual(test())


def add_activities(app: Any) -> None:
    called.clear()

    @app.activity_trigger(input_name="value")
    def same(value: Any) -> Any:
        called.append(value)
        return value

    @app.orchestration_trigger(context_name="context")
    def slow(context: Any) -> Any:
        seconds = context.get_input()
        yield context.create_timer(context.current_utc_datetime + timedelta(seconds=seconds))
        return seconds

    @app.activity_trigger(input_name="text")
    async def fail(text: str) -> None:
        raise ValueError(text)

    @app.activity_trigger(input_name="value")
    def facts(value: Any, context: Any) -> Any:
        return [value, context.function_name, context.invocation_id.split(":")[1:]]


called: list[Any] = []


def test_a_task_that_is_not_yielded_asks_for_nothing() -> None:
    def it(context: Any) -> Any:
        never = context.call_activity("same", "never")
        assert (never.is_completed, never.id) == (False, None)
        timer = context.create_timer(context.current_utc_datetime + MINUTE)
        timer.cancel()
        return (yield context.call_activity("same", "once"))

    assert run(it) == "once"
    assert called == ["once"]


def test_the_first_task_wins_even_if_it_fails_and_others_go_on() -> None:
    def it(context: Any) -> Any:
        slow, failing = context.call_sub_orchestrator("slow", 5), context.call_activity("fail", "f")
        first = yield context.task_any([slow, failing])
        assert first is failing
        assert first.is_completed
        assert (first.state.name, slow.state.name) == ("FAILED", "RUNNING")
        assert "ValueError: f" in str(first.result)
        second = yield context.task_any([slow])
        third = yield context.task_any([slow, context.call_sub_orchestrator("slow", 1)])
        assert second is third is slow
        return [slow.result, (yield slow), (yield context.task_all([slow, slow]))]

    assert run(it) == [5, 5, [5, 5]]


def test_all_tasks_fail_with_the_first_failure_at_once() -> None:
    def it(context: Any) -> Any:
        began = context.current_utc_datetime
        tasks = [
            context.call_sub_orchestrator("slow", 60),
            context.call_activity("fail", "at once"),
        ]
        try:
            yield context.task_all(tasks)
        except Exception as error:  # noqa: BLE001
            return [str(error)[-7:], (context.current_utc_datetime - began).total_seconds() < 1]

    assert run(it) == ["at once", True]


def test_groups_in_groups_and_empty_ones() -> None:
    def it(context: Any) -> Any:
        late = context.create_timer(context.current_utc_datetime + MINUTE)
        both = context.task_all(
            [context.call_sub_orchestrator("slow", 2), context.call_sub_orchestrator("slow", 1)]
        )
        winner = yield context.task_any([late, both])
        assert winner is both
        late.cancel()
        assert late.is_cancelled
        return [both.result, (yield context.task_all([])), (yield context.task_any([]))]

    assert run(it) == [[2, 1], [], None]


def test_a_group_can_be_waited_for_again_while_it_is_pending() -> None:
    def it(context: Any) -> Any:
        def timer(seconds: int) -> Any:
            return context.create_timer(began + timedelta(seconds=seconds))

        began = context.current_utc_datetime
        both = context.task_all([context.call_sub_orchestrator("slow", n) for n in (2, 10)])
        soon, late = timer(1), timer(20)
        assert (yield context.task_any([both, soon])) is soon
        assert (yield context.task_any([both, late])) is both
        return both.result

    assert run(it) == [2, 10]


def test_what_cannot_be_waited_for_is_an_error_where_it_is_yielded() -> None:
    def it(context: Any) -> Any:
        errors = []
        done = context.create_timer(context.current_utc_datetime)
        yield done
        with pytest.raises(ValueError, match="Cannot cancel a completed task"):
            done.cancel()
        given_up = context.create_timer(context.current_utc_datetime + MINUTE)
        given_up.cancel()
        for wrong in (given_up, "text", [done]):
            try:
                yield wrong
            except (ValueError, TypeError) as error:
                errors.append(type(error).__name__)
        with pytest.raises(TypeError, match="no task"):
            context.task_all(["text"])
        return errors

    assert run(it) == ["ValueError", "TypeError", "TypeError"]


def test_nothing_runs_after_continue_as_new() -> None:
    def it(context: Any) -> Any:
        number = context.get_input()
        if number == 2:
            return (yield context.wait_for_external_event("kept"))
        context.continue_as_new(number + 1)
        assert context.will_continue_as_new
        yield context.call_activity("same", "never")
        called.append("never")

    async def test() -> None:
        app = df.DFApp()
        add_activities(app)
        app.orchestration_trigger(context_name="context")(it)
        async with Environment(from_azure(app)) as env:
            handle = await env.client.start("it", 0)
            await handle.raise_event("kept", 7)
            assert await handle.result() == 7

    run_virtual(test())
    assert called == []


def test_a_generator_that_is_left_is_closed_in_its_turn() -> None:
    def it(context: Any) -> Any:
        if context.get_input():
            return called.copy()
        kept: Any = None
        try:
            yield context.call_activity("fail", "f")
        except Exception as error:  # noqa: BLE001
            kept = error  # knows this frame: only the garbage collector would find it
        try:
            context.continue_as_new(True)
            yield context.call_activity("same", "never")
        finally:
            called.append(f"closed: {kept.error_type}")

    gc.collect()
    gc.disable()
    try:
        assert run(it) == ["closed: ValueError"]
    finally:
        gc.enable()


class Envelope:
    """Comes as itself only where somebody says so, or in its envelope."""

    def __init__(self, text: str) -> None:
        self.text = text

    @staticmethod
    def to_json(envelope: Envelope) -> str:
        return envelope.text

    @staticmethod
    def from_json(text: str) -> Envelope:
        return Envelope(text)


@pytest.mark.parametrize("declared", [True, False])
def test_types_that_are_declared_are_enough_for_strict_codecs(
    declared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_FUNCTIONS_DURABLE_STRICT_TYPING", "1")
    app = df.DFApp()
    kind = Envelope if declared else None

    @app.orchestration_trigger(context_name="context", input_type=kind)
    def it(context: Any) -> Any:
        return context.get_input().text

    async def test() -> Any:
        given = {"__class__": "Envelope", "__module__": __name__, "__data__": "inside"}
        async with Environment(from_azure(app)) as env:
            return await (await env.client.start("it", given)).result()

    if declared:
        assert run_virtual(test()) == "inside"
    else:
        with pytest.raises(OrchestrationFailed, match="strict mode requires expected_type"):
            run_virtual(test())


def test_facts_about_the_execution() -> None:
    def it(context: Any) -> Any:
        assert context.parent_instance_id is None
        assert context.current_utc_datetime.utcoffset() == timedelta(0)
        assert context.function_context.function_name == "it"
        assert (context.version, context.custom_status) == (None, None)
        assert context.is_replaying is False
        with pytest.raises(NotImplementedError):
            _ = context.histories
        naive = (context.current_utc_datetime + MINUTE).replace(tzinfo=None)
        began = context.current_utc_datetime
        yield context.create_timer(naive)
        assert context.current_utc_datetime - began >= MINUTE
        return (yield context.call_activity("facts", context.get_input()))

    assert run(it, "x") == ["x", "facts", ["2", "1"]]


def test_an_orchestrator_need_not_wait_for_anything() -> None:
    assert run(lambda context: {"input": context.get_input()}, 5) == {"input": 5}


def test_what_has_no_json_form_fails_the_instance() -> None:
    for value in (float("nan"), object()):
        with pytest.raises(OrchestrationFailed, match="InputInvalid"):
            run(lambda _, value=value: value)  # type: ignore[misc]


def test_an_unhandled_failure_fails_the_instance() -> None:
    def it(context: Any) -> Any:
        yield context.call_activity("fail", "at last")

    with pytest.raises(OrchestrationFailed, match="ValueError: at last"):
        run(it)


def test_what_is_called_must_have_the_trigger() -> None:
    app = df.DFApp()
    add_activities(app)

    @app.orchestration_trigger(context_name="context")
    def other(context: Any) -> Any:
        return None

    def it(context: Any) -> Any:
        for wrong in (other, test_groups_in_groups_and_empty_ones):
            with pytest.raises(ValueError, match="activityTrigger"):
                context.call_activity(wrong)
        with pytest.raises(ValueError, match="orchestrationTrigger"):
            context.call_sub_orchestrator(app._function_builders[0])
        return "refused"

    assert run(it) == "refused"


def test_a_function_is_called_by_the_name_in_its_trigger_and_by_its_own() -> None:
    app = df.DFApp()

    @app.function_name("renamed")
    @app.activity_trigger(input_name="value", activity="alias")
    def original(value: Any) -> Any:
        return value

    @app.activity_trigger(input_name="context")
    def named_context(context: Any) -> Any:
        return context

    def it(context: Any) -> Any:
        names = ["renamed", "alias", original, named_context]
        return (yield context.task_all([context.call_activity(each, 7) for each in names]))

    app.orchestration_trigger(context_name="context")(it)

    async def test() -> Any:
        async with Environment(from_azure(app)) as env:
            return await (await env.client.start("it")).result()

    assert run_virtual(test()) == [7, 7, 7, 7]
    assert from_azure(app) is from_azure(app)


def test_what_cannot_be_served_is_said(caplog: pytest.LogCaptureFixture) -> None:
    app = df.DFApp()

    @app.timer_trigger(schedule="0 * * * * *", arg_name="timer")
    def tick(timer: Any) -> None:
        return None

    with caplog.at_level(logging.WARNING):
        from_azure(app)
    assert "'tick' is not run" in caplog.text

    wrong = df.DFApp()

    @wrong.activity_trigger(input_name="value")
    @wrong.durable_client_input(client_name="client")
    async def start(value: Any, client: Any) -> None:
        return None

    with pytest.raises(ConfigInvalid, match="'start' needs the binding durableClient"):
        from_azure(wrong)


def test_a_state_that_is_changed_in_place_is_kept_and_a_failure_undoes_it() -> None:
    app = df.DFApp()

    @app.entity_trigger(context_name="context")
    def basket(context: Any) -> None:
        context.set_result([context.entity_name, context.entity_key, context.is_newly_constructed])
        items = context.get_state(list)
        items.append(context.get_input())
        if context.operation_name == "init":
            context.set_state(items)
        if context.get_input() == "bad":
            raise ValueError("no such thing")

    async def test() -> None:
        async with Environment(from_azure(app)) as env:
            call = env.client.call_entity
            assert await call("@basket@b", "look", "lost") == ["basket", "b", True]
            assert await call("@basket@b", "init", "one") == ["basket", "b", True]
            assert await call("@basket@b", "add", "two") == ["basket", "b", False]
            with pytest.raises(Exception, match="no such thing"):
                await call("@basket@b", "add", "bad")
            found = await env.client.get_entity("@basket@b")
            assert found is not None
            assert found.state == ["one", "two"]

    run_virtual(test())


def test_calls_that_are_not_deterministic_are_refused_also_if_imported_by_name() -> None:
    scope: dict[str, Any] = {"random": inspect.unwrap(random.random)}
    exec("def it(context):\n    yield context.call_activity('same', random())", scope)
    app = df.DFApp()
    add_activities(app)
    app.orchestration_trigger(context_name="context")(scope["it"])

    async def test() -> None:
        async with Environment(from_azure(app)) as env:
            handle = await env.client.start("it")
            await env.settle()
            found = await env.client.get(handle.instance_id)
            assert found is not None
            assert "random.random()" in found.reason

    run_virtual(test())
    assert called == []


# -- call_http ------------------------------------------------------------------------------------


class _Answers(BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[Any, ...]]] = []

    def log_message(self, *args: Any) -> None:
        return

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(("POST", self.path, body, self.headers["Content-Type"]))
        self.send_response(202)
        self.send_header("Location", "/status")
        self.send_header("Retry-After", "5")
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append(("GET", self.path, self.headers["X-Key"]))
        ready = len(self.asked) > 2
        self.send_response(418 if ready else 202)
        if not ready:
            self.send_header("Location", "/status")
        self.end_headers()
        self.wfile.write(b"a pot")


@contextmanager
def http_server() -> Iterator[str]:
    _Answers.asked.clear()
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_an_http_call_follows_what_was_promised() -> None:
    def it(context: Any) -> Any:
        began = context.current_utc_datetime
        url = context.get_input()
        answer = yield context.call_http("post", f"{url}/jobs", {"a": 1}, {"X-Key": "k"})
        took = (context.current_utc_datetime - began).total_seconds()
        return [answer["statusCode"], answer["content"], sorted(answer), round(took)]

    with http_server() as url:
        found = run(it, url)
    # Five seconds, as the server said, and thirty, as it said nothing the second time.
    assert found == [418, "a pot", ["content", "headers", "statusCode"], 35]
    assert _Answers.asked == [
        ("POST", "/jobs", '{"a": 1}', "application/json"),
        ("GET", "/status", "k"),
        ("GET", "/status", "k"),
    ]


def test_an_http_call_that_cannot_be_made() -> None:
    def it(context: Any) -> Any:
        with pytest.raises(TypeError, match="must be a str"):
            context.call_http("POST", "http://h", {"a": 1}, is_raw_str=True)
        with pytest.raises(NotImplementedError):
            context.call_http("GET", "http://h", token_source=object())
        try:
            yield context.call_http("GET", "file:///etc/hosts")
        except Exception as error:  # noqa: BLE001
            return str(error)

    assert "not an HTTP address" in run(it)


# -- serving --------------------------------------------------------------------------------------


def test_an_azure_app_is_imported_like_any_other() -> None:
    names = {each.name for each in import_app("tests.compat.apps.chaining:app").orchestrators}
    assert names == {"quote"}
    with pytest.raises(ConfigInvalid, match="is a type, not a"):
        import_app("tests.compat.apps.values:Person")


def test_nobody_else_needs_azures_packages() -> None:
    code = (
        "import sys, shardrt, shardrt.cli, shardrt.http.app, shardrt.host.imports\n"
        "shardrt.host.imports.import_app('shardrt.samples:app')\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'azure']"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
