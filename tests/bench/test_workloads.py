"""Every workload runs small and gets its answers; a wrong answer ends it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from shardrt.bench import bench
from shardrt.bench.catalog import WORKLOADS
from shardrt.bench.errors import RunFailed, WrongAnswer
from shardrt.bench.measuring import measure
from shardrt.bench.options import Options
from shardrt.bench.workloads import timers, wordcount
from shardrt.bench.workloads.producers import Consumer, Message
from shardrt.client import Client, OrchestrationHandle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL: dict[str, dict[str, Any]] = {
    "hello": {"n": 20},
    "sequence": {"n": 3, "steps": 10},
    "fanout": {"n": 3, "width": 20},
    "tree": {"n": 2, "depth": 2, "width": 3},
    "events": {"n": 20},
    "timers": {"n": 20},
    "bank": {"n": 20, "accounts": 3},
    "counter": {"n": 30},
    "producer-consumer": {"n": 3, "consumers": 2, "batches": 3, "batch": 5, "bytes": 10},
    "wordcount": {"n": 1, "books": 3, "reducers": 4, "words": 50},
    "payload": {"n": 10},
    "long-history": {"n": 1, "steps": 20},
    "eternal": {"n": 2, "iterations": 20},
    "parked": {"n": 20, "idle_s": 0.05},
}
EMBEDDED = sorted(SMALL)


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for checkpoints: these runs are not for their figures."""
    monkeypatch.setattr(bench, "WRITE_BEHIND_S", 0.0)
    monkeypatch.setattr("shardrt.bench.workloads.parked.WRITE_BEHIND_S", 0.0)
    monkeypatch.setattr(timers, "LEAD_S_MIN", 0.3)


def small(name: str, **changes: Any) -> Options:
    sizes = dict(SMALL[name])
    given = {"n": sizes.pop("n"), "concurrency": 5, "warmup": 2, "partitions": 4}
    return Options(**(given | {"mode": "embedded", "store": "memory://", "sizes": sizes} | changes))


def figures_of(name: str, **changes: Any) -> dict[str, Any]:
    results = asyncio.run(measure(name, small(name, **changes)))
    assert (results["workload"], results["n"]) == (name, small(name).n)
    figures: dict[str, Any] = results["figures"]
    return figures


def test_every_workload_is_run_here_or_in_a_host() -> None:
    assert {*SMALL, "overload", "recovery"} == set(WORKLOADS)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_workload_gets_its_answers(name: str) -> None:
    assert figures_of(name)


def test_speculative_activities_get_their_answers() -> None:
    assert figures_of("hello", sizes={"speculative": True})


def test_an_open_loop_gets_its_answers() -> None:
    assert figures_of("hello", rate=500.0)["latency_ms"]["max"] > 0


@pytest.mark.slow
@pytest.mark.proc
def test_a_host_that_is_killed_gives_every_answer(tmp_path: Path) -> None:
    options = small(
        "hello", n=10, sizes={"steps": 5}, mode="serve", store=f"sqlite:///{tmp_path / 'hub.db'}"
    )
    figures = asyncio.run(measure("recovery", options))["figures"]
    assert 0 < figures["kill_to_ready_s"] <= figures["kill_to_first_progress_s"]
    assert figures["kill_to_first_progress_s"] <= figures["kill_to_all_partitions_s"]
    # Started; five times a turn, what it asked for and what came; the last turn.
    assert figures["history_events_each"] == 17


def plus_one(value: Any) -> Any:
    return value + 1 if isinstance(value, int) else value


def early(value: Any) -> Any:
    return -0.001 if isinstance(value, float) else value


def one_more_word(found: Any) -> Any:
    if found is not None:
        found.state.words += 1
    return found


WRONG: list[tuple[str, type[Any], str, Callable[[Any], Any]]] = [
    ("hello", Client, "execute", sorted),
    ("sequence", Client, "execute", plus_one),
    ("fanout", Client, "execute", sorted),
    ("tree", Client, "execute", plus_one),
    ("events", OrchestrationHandle, "result", plus_one),
    ("timers", OrchestrationHandle, "result", early),
    ("bank", OrchestrationHandle, "result", lambda moved: not moved),
    ("bank", Client, "call_entity", lambda balance: -balance),
    ("counter", Client, "call_entity", plus_one),
    ("producer-consumer", OrchestrationHandle, "result", lambda counts: counts[:-1]),
    ("producer-consumer", Client, "call_entity", lambda _: ["1 of a instead of 0"]),
    ("wordcount", Client, "get_entity", one_more_word),
    ("payload", OrchestrationHandle, "result", str.upper),
    ("long-history", OrchestrationHandle, "status", lambda _: None),
    ("eternal", OrchestrationHandle, "result", plus_one),
    ("parked", OrchestrationHandle, "result", plus_one),
]


@pytest.mark.parametrize(("name", "owner", "method", "change"), WRONG)
def test_a_wrong_answer_ends_the_run(
    name: str,
    owner: type[Any],
    method: str,
    change: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = getattr(owner, method)

    async def wrong(*args: Any, **kwargs: Any) -> Any:
        return change(await right(*args, **kwargs))

    monkeypatch.setattr(owner, method, wrong)
    with pytest.raises((WrongAnswer, BaseExceptionGroup)) as raised:
        figures_of(name)
    assert flat(raised.value) == {WrongAnswer}


def flat(error: BaseException) -> set[type[BaseException]]:
    if isinstance(error, BaseExceptionGroup):
        return set().union(*(flat(each) for each in error.exceptions))
    return {type(error)}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("bank", {"accounts": 1}), ("long-history", {"steps": 9}), ("eternal", {"iterations": 9})],
)
def test_a_size_that_says_nothing_is_refused(name: str, sizes: dict[str, int]) -> None:
    with pytest.raises(RunFailed):
        figures_of(name, sizes=sizes)


def test_a_host_that_is_not_ours_is_not_killed() -> None:
    with pytest.raises(RunFailed, match="must be its own"):
        asyncio.run(measure("recovery", small("hello", sizes={"steps": 5})))


def test_a_consumer_notices_what_is_lost_repeated_or_out_of_order() -> None:
    def mistakes_of(*numbers: int) -> list[str]:
        consumer = Consumer()
        for number in numbers:
            consumer.take(Message("a", number, ""))
        return consumer.mistakes()

    assert mistakes_of(0, 1, 2) == []
    assert mistakes_of(0, 2) == ["2 of a instead of 1"]
    assert mistakes_of(0, 0) == ["0 of a instead of 1"]
    assert mistakes_of(1, 0) == ["1 of a instead of 0"]


def test_the_corpus_is_the_same_every_time_and_skewed() -> None:
    texts = wordcount.corpus(2, 1000)
    assert texts == wordcount.corpus(2, 1000)
    counts = Counter(" ".join(texts).split())
    assert counts.total() == 2000
    assert counts.most_common(1)[0][1] > 100
