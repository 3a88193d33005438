"""The samples do what they say, on a runtime in this process."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from shardrt import Runtime
from shardrt.errors import EntityFailed
from shardrt.samples import __main__ as samples_main, app, bank, wordcount
from shardrt.samples.__main__ import ALIASES, AZURE, TOUR, main as run_sample
from shardrt.samples.monitor import Watch
from shardrt.samples.orders import Line, Order
from shardrt.samples.orders.__main__ import main as process_orders
from shardrt.samples.wordcount import Text
from shardrt.samples.wordcount.__main__ import main as count_file

if TYPE_CHECKING:
    from pathlib import Path

RESULT_TIMEOUT_S = 20.0
KETTLE = Order("1", "Ada", "4556-1111", "Norway", [Line("kettle", 2, Decimal("39.90"))])
PIANO = replace(KETTLE, lines=[Line("piano", 1, Decimal(2450))])


def result_of(name: str, given: Any = None, **events: Any) -> Any:
    """Run an orchestrator to its end, and return its result as plain JSON."""

    async def run() -> Any:
        async with Runtime(app, store="memory://") as runtime:
            handle = await runtime.client.start(name, given)
            for event, data in events.items():
                await runtime.client.raise_event(handle.instance_id, event, data)
            return await handle.result(timeout=RESULT_TIMEOUT_S)

    return asyncio.run(run())


def command_output(command: Any, *arguments: str) -> str:
    done = CliRunner().invoke(command, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def test_hello_greets_five_cities() -> None:
    assert json.loads(command_output(run_sample, "hello"))[0] == "Hello Tokyo!"


def test_without_a_name_all_samples_are_named() -> None:
    shown = command_output(run_sample).splitlines()
    assert {*TOUR, AZURE} < {line.partition(" ")[0] for line in shown}
    assert "hello (helloworld)" in shown
    named = re.findall(r"[a-z]+", " ".join(line.partition("(")[2] for line in shown))
    assert sorted(named) == sorted(ALIASES)


def test_a_sample_is_run_by_other_names_and_with_an_input_that_suits_it() -> None:
    settled = json.loads(command_output(run_sample, "durable"))
    assert settled == {"paid": None, "reminders": 3, "after_h": 0.0}
    assert json.loads(command_output(run_sample, "parallel", "3")) == 5


def test_the_sample_that_is_written_for_azure_runs_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = json.loads(command_output(run_sample, "azure"))
    assert "not compatible with expected type" not in caplog.text
    assert found["greetings"][1] == ["Hello London!", "Hello Rome!"]
    assert found["letters"] == sum(
        len(each) for greetings in found["greetings"] for each in greetings
    )


def test_without_azures_packages_there_is_a_line_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "shardrt.compat.azure", None)
    monkeypatch.setattr(samples_main, "TOUR", {"hello": None})
    done = CliRunner().invoke(run_sample, ["all"])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "1/1 ok")
    assert "azure_cities needs shardrt[azure]" in done.stderr


def test_all_samples_can_be_run_by_one_command() -> None:
    lines = command_output(run_sample, "all").splitlines()
    assert lines[-1] == f"{len(TOUR) + 1}/{len(TOUR) + 1} ok"
    assert lines[0].startswith('ok hello: ["Hello Tokyo!"')
    assert set(ALIASES.values()) <= {*TOUR, AZURE}


def test_a_sample_that_fails_is_named_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_main, "TOUR", {"fanout": -1, "no such": None, "hello": None})
    done = CliRunner().invoke(run_sample, ["all"])
    assert done.exit_code == 1
    assert re.findall(r"^\S+ [a-z_ ]+:", done.output, re.MULTILINE) == [
        "FAILED fanout:",
        "FAILED no such:",
        "ok hello:",
        "ok azure_cities:",
    ]
    assert done.output.splitlines()[-1] == "2/4 ok"


def test_the_bank_moves_what_is_there_and_nothing_else() -> None:
    async def run() -> list[Any]:
        async with Runtime(app) as runtime:
            client = runtime.client
            await client.signal_entity("@account@ann", "deposit", 100)
            found: list[Any] = []
            for amount in (30, 80):
                order = bank.Transfer("ann", "bob", amount)
                handle = await client.start(bank.transfer, order)
                found.append(await handle.result(timeout=RESULT_TIMEOUT_S))
            found.append(await client.call_entity("@account@ann", bank.Account.look))
            found.append(await client.call_entity("@account@bob", bank.Account.look))
            with pytest.raises(EntityFailed, match="only 30 there, not 31"):
                await client.call_entity("@account@bob", bank.Account.withdraw, 31)
            return found

    assert asyncio.run(run()) == [True, False, 70, 30]


def test_fanout_adds_up_squares() -> None:
    assert result_of("fanout", 10) == sum(n * n for n in range(10))


def test_monitor_ends_after_as_many_checks_as_asked_for() -> None:
    seen = result_of("monitor", Watch(load_max=-1.0, interval_s=0.01, checks=3))
    assert (seen["done"], seen["alerts"], seen["checks"]) == (3, 3, 0)


@pytest.mark.parametrize(
    ("order", "events", "result", "detail"),
    [
        (KETTLE, {}, "shipped", "track-1"),
        (replace(KETTLE, lines=[]), {}, "refused", "it has no lines"),
        (replace(KETTLE, card="1-0000"), {}, "refused", "card 1-0000 was declined"),
        (replace(KETTLE, country="Atlantis"), {}, "refunded", "no courier goes to Atlantis"),
        (PIANO, {"approval": True}, "shipped", "track-1"),
        (PIANO, {"approval": False}, "refunded", "the approval was denied"),
        (
            replace(PIANO, approval_timeout_s=0.05),
            {},
            "refunded",
            "nobody approved it within 0.05 s",
        ),
    ],
    ids=["plain", "empty", "declined", "no courier", "approved", "denied", "ignored"],
)
def test_an_order_ends_as_it_should(
    order: Order, events: dict[str, Any], result: str, detail: str
) -> None:
    outcome = result_of("orders", order, **events)
    assert outcome["result"] == result
    assert detail in outcome["detail"]


def test_a_file_of_orders_is_processed_and_bad_lines_are_named() -> None:
    output = command_output(process_orders)
    assert "orders.jsonl:8: skipped: Object missing required field `card`" in output
    assert "orders.jsonl:12: skipped: order 1001 was on a line before" in output
    summary = output.strip().splitlines()[-1]
    assert summary == "9 orders: 1 refunded, 3 refused, 5 shipped; 3 lines skipped"


def test_words_are_counted_as_a_simple_loop_counts_them() -> None:
    words = re.findall(r"[\w']+", wordcount.BUNDLED.read_text().lower())
    ranked = sorted(Counter(words).items(), key=wordcount.by_rank)[:5]
    summary = result_of("wordcount", Text(top=5, part_bytes=500))
    assert summary == {
        "words": len(words),
        "distinct": len(set(words)),
        "top": [list(entry) for entry in ranked],
    }


def test_the_words_of_a_given_file_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("the cat and the dog")
    assert "5 words, 4 different" in command_output(count_file, str(text))


def test_a_host_reads_no_file_outside_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PermissionError, match="not below"):
        wordcount.readable("../secret.txt")


def test_parts_of_a_text_end_with_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("one\ntwo\nthree\nfour\n")
    parts = wordcount.split_text(Text("text.txt", part_bytes=5))
    assert [(part.start, part.end) for part in parts] == [(0, 8), (8, 14), (14, 19)]
