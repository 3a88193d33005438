"""Words counted by entities: mappers cut books into words, reducers count, a summary adds up.

The books are made: words of a made-up vocabulary, drawn with the frequencies of a natural
language (Zipf's law), always the same ones. One signal per word goes from a mapper to the
reducer in charge of it.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardrt import App, EntityContext, EntityId
from shardrt.bench.errors import check

if TYPE_CHECKING:
    from shardrt.bench.bench import Bench

app = App()

TOP = 20
SYLLABLES = ("ba", "den", "fir", "go", "hul", "ka", "lo", "mir", "nu", "pes", "ra", "son", "ti")
VOCABULARY = 5_000
SEED = 1
POLL_S = 0.05

Ranked = list[tuple[str, int]]


@dataclass(frozen=True)
class Book:
    """A text, and who takes part in counting it."""

    run: str
    text: str
    mappers: int
    reducers: int


@dataclass(frozen=True)
class End:
    """A mapper tells every reducer that all its words were sent."""

    run: str
    mappers: int


@dataclass(frozen=True)
class Report:
    """What a reducer counted."""

    words: int
    distinct: int
    top: Ranked


@app.entity(name="bench.mapper")
class Mapper:
    """Sends each word of a book to the reducer in charge of it."""

    def take(self, ctx: EntityContext, book: Book) -> None:
        reducers = [EntityId(Reducer, f"{book.run}-{number}") for number in range(book.reducers)]
        for word in book.text.split():
            # Not hash(): that is another one in every process.
            ctx.signal(reducers[zlib.crc32(word.encode()) % book.reducers], Reducer.add, word)
        for reducer in reducers:
            ctx.signal(reducer, Reducer.end, End(book.run, book.mappers))


@app.entity(name="bench.reducer")
class Reducer:
    """Counts words until every mapper is done, then reports."""

    counts: dict[str, int] = field(default_factory=dict)
    ended: int = 0

    def add(self, word: str) -> None:
        self.counts[word] = self.counts.get(word, 0) + 1

    def end(self, ctx: EntityContext, end: End) -> None:
        self.ended += 1
        if self.ended == end.mappers:
            report = Report(sum(self.counts.values()), len(self.counts), ranked(self.counts))
            ctx.signal(EntityId(Summary, end.run), Summary.take, report)


@app.entity(name="bench.summary")
class Summary:
    """Adds up what the reducers report: no word is known to two of them."""

    reports: int = 0
    words: int = 0
    distinct: int = 0
    top: Ranked = field(default_factory=list)

    def take(self, report: Report) -> None:
        self.reports += 1
        self.words += report.words
        self.distinct += report.distinct
        self.top = ranked(dict([*self.top, *report.top]))


def ranked(counts: dict[str, int]) -> Ranked:
    """Return the most frequent words; equals by alphabet."""
    return heapq.nsmallest(TOP, counts.items(), key=lambda entry: (-entry[1], entry[0]))


def corpus(books: int, words: int) -> list[str]:
    """Return texts of so many words each; the same ones every time."""
    chance = random.Random(SEED)  # noqa: S311 - shall be the same every time
    known = ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(VOCABULARY)]
    weights = [1 / rank for rank in range(1, VOCABULARY + 1)]
    return [" ".join(chance.choices(known, weights, k=words)) for _ in range(books)]


async def run(bench: Bench) -> None:
    """Count one corpus, and compare with a plain loop."""
    books, reducers = bench.size("books"), bench.size("reducers")
    texts = corpus(books, bench.size("words"))
    expected = Counter(word for text in texts for word in text.split())
    summary = EntityId(Summary, bench.name)
    bar = bench.progress.add_task("reducers done", total=reducers)
    async with bench.accounting(expected.total()):
        started_s = time.perf_counter()
        for number, text in enumerate(texts):
            mapper = EntityId(Mapper, f"{bench.name}-{number}")
            book = Book(bench.name, text, books, reducers)
            await bench.client.signal_entity(mapper, Mapper.take, book)
        found = None
        while found is None or found.state.reports < reducers:
            await asyncio.sleep(POLL_S)
            found = await bench.client.get_entity(summary, state_type=Summary)
            bench.progress.update(bar, completed=found.state.reports if found else 0)
        seconds = time.perf_counter() - started_s
    state = found.state
    check(
        (state.words, state.distinct, list(state.top)),
        (expected.total(), len(expected), ranked(expected)),
        "the summary",
    )
    bench.figures["seconds"] = round(seconds, 3)
    bench.figures["words_per_s"] = round(expected.total() / seconds, 1)
