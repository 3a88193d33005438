"""Exported instances, replayed against the code that made them and against other code."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from click.testing import CliRunner

from shardrt import App, OrchestrationContext, RetryPolicy
from shardrt.cli import main
from shardrt.cli.export import file_name
from shardrt.config import Settings
from shardrt.config.settings import ShardSettings
from shardrt.errors import (
    InstanceNotFound,
    NonDeterminism,
    OrchestratorNotRegistered,
    RecordCorrupt,
)
from shardrt.testing import Environment, replay, run_virtual
from shardrt.testing.replaying import files_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ran: list[str] = []


def make(variant: str = "", codec: Any = None) -> App:  # noqa: C901 - so many ways
    """Return the app, or one whose code differs in one way."""
    app = App(payload_codec=codec)

    @app.activity(retry=RetryPolicy(max_attempts=1))
    async def step(name: str) -> str:
        ran.append(name)
        if name == "broken":
            raise OSError(name)
        return name.upper()

    @app.activity
    async def other(name: str) -> str:
        return name

    @app.orchestrator
    async def order(ctx: OrchestrationContext, name: str) -> str:
        token = str(ctx.new_uuid())
        if variant != "missing":
            await ctx.call_activity(other if variant == "renamed" else step, name)
        if variant != "impatient":
            await ctx.wait_for_event("go", str)
        if variant == "random":
            return str(time.monotonic())
        if variant == "fails":
            raise ValueError("new bug")
        if variant == "waits":
            await ctx.wait_for_event("never")
        return token

    @app.orchestrator(version="2" if variant == "newer" else "1")
    async def versioned(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(5)

    add_larger(app, variant)
    return app


def add_larger(app: App, variant: str) -> None:
    @app.orchestrator
    async def counter(ctx: OrchestrationContext, left: int) -> int:
        await ctx.call_activity("step", f"{left}")
        if left:
            ctx.continue_as_new(left - 1)
            return 0
        if variant != "again":
            await ctx.wait_for_event("go")
        else:
            ctx.continue_as_new(5)
        return left

    @app.orchestrator
    async def tree(ctx: OrchestrationContext) -> list[Any]:
        child = ctx.call_sub_orchestrator("order", "leaf", instance_id=f"{ctx.execution_id}.child")
        first = await ctx.call_activity("step", "first")
        try:
            await ctx.call_activity("step", "broken")
        except Exception:
            if variant != "swallows":
                raise
        async with asyncio.timeout(60):
            return [first, await child]

    @app.orchestrator
    async def huge(ctx: OrchestrationContext) -> str:
        await ctx.call_activity("step", "a")
        await ctx.call_activity("step", "x" * 5_000_000)
        return ""


async def drive(env: Environment) -> dict[str, bytes]:
    """Bring instances into all kinds of states, and export them."""
    client = env.client
    await client.start("order", "running", instance_id="running")
    done = await client.start("order", "done", instance_id="done", tags={"k": "v"})
    await done.raise_event("go", "now")
    await done.result()
    await client.start("order", "ended", instance_id="ended")
    await client.start("counter", 3, instance_id="counter")
    await client.start("versioned", instance_id="versioned")
    await client.start("tree", instance_id="failed")
    await client.start("huge", instance_id="huge")
    await env.advance(timedelta(seconds=1))
    await client.terminate("ended")
    await client.start("tree", instance_id="rewound")
    await env.advance(timedelta(seconds=1))
    await client.rewind("rewound")
    await env.advance(timedelta(seconds=1))
    await client.suspend("running")
    await client.resume("running")
    with pytest.raises(InstanceNotFound):
        await client.export("nobody")
    ids = ["running", "done", "ended", "counter", "versioned", "failed", "huge", "rewound"]
    return {each: await client.export(each) for each in ids}


def export_all(codec: Any = None) -> dict[str, bytes]:
    async def main() -> dict[str, bytes]:
        async with Environment(make(codec=codec)) as env:
            return await drive(env)

    return run_virtual(main())


@pytest.fixture(scope="module")
def exported() -> dict[str, bytes]:
    return export_all()


def test_a_file_says_everything(exported: dict[str, bytes]):
    done = json.loads(exported["done"])
    history = done.pop("history")
    assert [each[0] for each in history if each[0] != "OrchestratorStarted"] == [
        "ExecutionStarted",
        "TaskScheduled",
        "TaskCompleted",
        "EventRaised",
        "ExecutionCompleted",
    ]
    assert done.pop("created_at") > 1_700_000_000_000_000
    assert done.pop("execution_id") == done.pop("seed")
    assert done == {
        "format": 1,
        "instance_id": "done",
        "name": "order",
        "version": None,
        "status": "Completed",
        "parent": None,
        "tags": {"k": "v"},
        "input": "done",
    }


def test_the_states_are_what_they_are_called(exported: dict[str, bytes]):
    found = {key: json.loads(each) for key, each in exported.items()}
    assert {key: each["status"] for key, each in found.items()} == {
        "running": "Running",
        "done": "Completed",
        "ended": "Terminated",
        "counter": "Running",
        "versioned": "Running",
        "failed": "Failed",
        "huge": "Failed",
        "rewound": "Failed",
    }
    assert found["counter"]["input"] == 0
    assert found["rewound"]["seed"] != found["rewound"]["execution_id"]
    assert any(each[0] == "ExecutionRewound" for each in found["rewound"]["history"])
    assert found["huge"]["history"][-1][4]["type"] == "PayloadTooLarge"


def test_what_was_evicted_is_exported_from_the_store(exported: dict[str, bytes]):
    shard = ShardSettings(checkpoint_interval_s=0.01, resident_bytes_max=1)

    async def main() -> None:
        async with Environment(make(), settings=Settings(shard=shard)) as env:
            await env.client.start("order", "x", instance_id="x")
            await env.settle()
            before = await env.client.export("x")
            (member,) = env.hub.members
            await env.hub.until(lambda: member.shard.checkpointer.evictions)
            assert await env.client.export("x") == before
            replay(make(), before)

    run_virtual(main())


def test_the_same_code_fits_every_history_and_nothing_is_executed(exported: dict[str, bytes]):
    ran.clear()
    for each in exported.values():
        replay(make(), each)
    assert ran == []


@pytest.mark.parametrize(
    ("variant", "instance_id", "message"),
    [
        ("renamed", "running", r"TaskScheduled #1 'step', the code asked for .* 'other' .*py:\d+"),
        ("missing", "running", "TaskScheduled #1 'step', the code asked for nothing more"),
        ("fails", "done", "ends Completed, but the code ended with ValueError: new bug"),
        ("waits", "done", "ends Completed, but the code waits"),
        ("impatient", "running", "history goes on, but the code ended"),
        ("random", "done", r"time\.monotonic"),
        ("again", "counter", "but the code continued as new"),
        ("swallows", "failed", "TimerCreated|ends Failed"),
        ("swallows", "rewound", "TimerCreated|ends Failed"),
        ("renamed", "ended", "TaskScheduled"),
    ],
)
def test_other_code_is_found_out(
    exported: dict[str, bytes], variant: str, instance_id: str, message: str
):
    with pytest.raises(NonDeterminism, match=message):
        replay(make(variant), exported[instance_id])


def test_calls_that_are_not_deterministic_may_be_let_pass(exported: dict[str, bytes]):
    replay(make("random"), exported["done"], guard="off")


def test_the_seed_makes_a_rewound_execution_ask_for_the_same_child(exported: dict[str, bytes]):
    wrong = json.loads(exported["rewound"])
    wrong["seed"] = wrong["execution_id"]
    with pytest.raises(NonDeterminism, match=r"\.child"):
        replay(make(), json.dumps(wrong).encode())


def test_what_is_not_registered_is_said(exported: dict[str, bytes]):
    with pytest.raises(OrchestratorNotRegistered, match="version '1' is not registered"):
        replay(make("newer"), exported["versioned"])
    with pytest.raises(OrchestratorNotRegistered, match="order"):
        replay(App(), exported["running"])


def without_turn(history: list[Any]) -> list[Any]:
    return [each for each in history if each[0] != "OrchestratorStarted"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"{",
        lambda text: b"[]",
        lambda text: text.replace(b'"format":1', b'"format":2'),
        lambda text: text.replace(b"TaskScheduled", b"TaskRescheduled"),
        lambda text: msgspec.json.encode(json.loads(text) | {"history": []}),
        lambda text: msgspec.json.encode(json.loads(text) | {"history": None}),
        lambda text: msgspec.json.encode(
            json.loads(text) | {"history": without_turn(json.loads(text)["history"])}
        ),
    ],
)
def test_what_is_no_exported_instance_is_refused(
    exported: dict[str, bytes], spoil: Callable[[bytes], bytes]
):
    with pytest.raises(RecordCorrupt):
        replay(make(), spoil(exported["running"]))


class Reverse:
    def encode(self, data: bytes, /) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        return data[::-1]


class Lost(Reverse):
    def decode(self, data: bytes, /) -> bytes:
        raise ValueError("wrong key")


def test_payloads_stay_sealed_in_the_file():
    exported = export_all(Reverse())
    assert json.loads(exported["done"])["input"].startswith("shardrt:sealed:")
    for each in exported.values():
        replay(make(codec=Reverse()), each)
    with pytest.raises(RecordCorrupt, match="no payload codec"):
        replay(make(), exported["done"])
    with pytest.raises(RecordCorrupt, match="wrong key"):
        replay(make(codec=Lost()), exported["done"])


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(exported: dict[str, bytes], tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    for name, content in exported.items():
        (tmp_path / "deep" / f"{name}.json").write_bytes(content)
    return tmp_path


def test_a_directory_is_replayed(folder: Path):
    replay(make(), folder)
    replay(make(), str(folder / "deep" / "done.json"))
    with pytest.raises(NonDeterminism, match=r"done\.json: not deterministic"):
        replay(make("renamed"), folder)
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no \.json file"):
        replay(make(), folder / "empty")
    assert len(files_of([folder])) == 8


APP = """
from tests.testing.test_replaying import make
good, renamed, newer = make(), make("renamed"), make("newer")
"""


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    place = tmp_path_factory.mktemp("code")
    (place / "replay_apps.py").write_text(APP)
    monkeypatch.syspath_prepend(place)
    return lambda *arguments: CliRunner().invoke(main, ["replay", *map(str, arguments)])


def test_the_command_tells_of_every_file(folder: Path, run: Any):
    done = run("--app", "replay_apps:good", folder)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "8 ok"
    (folder / "bad.json").write_text("?")
    answers = {}
    for app in ("good", "renamed", "newer"):
        done = run("--app", f"replay_apps:{app}", "--json", folder, folder / "gone.json")
        assert done.exit_code == 1
        results = json.loads(done.stdout)
        answers[app] = {each["path"].rpartition("/")[2]: each for each in results}
    verdicts = {app: {each["verdict"] for each in found.values()} for app, found in answers.items()}
    assert verdicts["good"] == {"ok", "not readable"}
    assert verdicts["renamed"] == {"ok", "diverged", "not readable"}
    assert answers["newer"]["versioned.json"]["verdict"] == "not registered"
    assert answers["good"]["gone.json"]["verdict"] == "not readable"
    diverged = answers["renamed"]["running.json"]
    assert "history says TaskScheduled #1 'step'" in diverged["reason"]
    assert "the code asked for TaskScheduled #1 'other'" in diverged["reason"]
    assert "test_replaying.py:" in diverged["reason"]
    assert (diverged["name"], diverged["status"]) == ("order", "Running")
    assert "diverged" in run("--app", "replay_apps:renamed", folder / "deep").stdout


def test_wrong_use_is_said(tmp_path: Path, run: Any):
    assert run("--app", "replay_apps:good", tmp_path).exit_code == 2
    assert run("--app", "replay_apps:none", tmp_path).exit_code == 2
    assert run("--app", "replay_apps:good").exit_code == 2


def test_names_of_files_are_those_of_their_instances():
    assert file_name("order-1.a") == "order-1.a"
    assert file_name("../a/b") == "..%2Fa%2Fb"
    long = {file_name("ä" * 100 + str(number)) for number in range(3)}
    assert len(long) == 3
    assert all(len(each) < 200 for each in long)
