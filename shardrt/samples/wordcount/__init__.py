"""The most frequent words of a text file, by map and reduce over sub-orchestrations.

    python -m shardrt.samples.wordcount [FILE]

The file is cut into parts. A child per part counts words and sorts them into buckets; a child
per bucket adds up what all parts found. So the counting of a large file spreads over all
shards, and a crash loses at most the parts that were being counted.

Hosts read only files below their working directory, and the text that is beside this module.
"""

import asyncio
import heapq
import itertools
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shardrt import App, OrchestrationContext

app = App()

BUNDLED = Path(__file__).with_name("harbour.txt")
BUCKETS = 4
PART_BYTES = 64 * 1024
FILE_BYTES_MAX = 256 * 1024 * 1024

Counts = dict[str, int]


@dataclass(frozen=True)
class Text:
    """What to count."""

    path: str | None = None
    """A file on the host; None is the bundled text."""
    top: int = 10
    part_bytes: int = PART_BYTES


@dataclass(frozen=True)
class Part:
    """Bytes `start` to `end` of a file."""

    path: str
    start: int
    end: int


@dataclass(frozen=True)
class Bucket:
    """What all parts found of the words of one bucket."""

    found: list[Counts]
    top: int


@dataclass(frozen=True)
class Summary:
    """Words counted, and the most frequent of them."""

    words: int
    distinct: int
    top: list[tuple[str, int]]


@app.activity
def split_text(text: Text) -> list[Part]:
    """Cut a file into parts that end with a line."""
    path = readable(text.path)
    size = path.stat().st_size
    if size > FILE_BYTES_MAX:
        raise ValueError(f"{path.name} has {size} bytes, more than {FILE_BYTES_MAX}")
    cuts = [0]
    with path.open("rb") as file:
        while cuts[-1] < size:
            file.seek(cuts[-1] + max(text.part_bytes, 1))
            file.readline()
            cuts.append(min(file.tell(), size))
    return [Part(str(path), *pair) for pair in itertools.pairwise(cuts)]


@app.activity
def count_words(part: Part) -> list[Counts]:
    """Count the words of a part, in `BUCKETS` buckets."""
    with readable(part.path).open("rb") as file:
        file.seek(part.start)
        text = file.read(part.end - part.start).decode(errors="replace")
    buckets: list[Counts] = [{} for _ in range(BUCKETS)]
    for word, count in Counter(re.findall(r"[\w']+", text.lower())).items():
        # Not hash(): that is another one in every process.
        buckets[zlib.crc32(word.encode()) % BUCKETS][word] = count
    return buckets


@app.activity
def add_counts(bucket: Bucket) -> Summary:
    total: Counter[str] = Counter()
    for counts in bucket.found:
        total.update(counts)
    ranked = heapq.nsmallest(bucket.top, total.items(), key=by_rank)
    return Summary(total.total(), len(total), ranked)


def by_rank(entry: tuple[str, int]) -> tuple[int, str]:
    """Sort key: the most frequent first, equals by alphabet."""
    return -entry[1], entry[0]


def readable(path: str | None) -> Path:
    """Return a path that clients may have read, or raise PermissionError."""
    resolved = (BUNDLED if path is None else Path(path)).resolve()
    if resolved != BUNDLED.resolve() and not resolved.is_relative_to(Path.cwd()):
        raise PermissionError(f"{path} is not below the host's working directory")
    return resolved


@app.orchestrator
async def map_part(ctx: OrchestrationContext, part: Part) -> list[Counts]:
    return await ctx.call_activity(count_words, part)


@app.orchestrator
async def reduce_bucket(ctx: OrchestrationContext, bucket: Bucket) -> Summary:
    return await ctx.call_activity(add_counts, bucket)


@app.orchestrator
async def wordcount(ctx: OrchestrationContext, text: Text | None = None) -> Summary:
    text = text or Text()
    parts = await ctx.call_activity(split_text, text)
    mapped = await asyncio.gather(*(ctx.call_sub_orchestrator(map_part, part) for part in parts))
    buckets = [Bucket([counts[n] for counts in mapped], text.top) for n in range(BUCKETS)]
    sums = await asyncio.gather(*(ctx.call_sub_orchestrator(reduce_bucket, b) for b in buckets))
    ranked = [entry for summary in sums for entry in summary.top]
    return Summary(
        words=sum(summary.words for summary in sums),
        distinct=sum(summary.distinct for summary in sums),
        top=heapq.nsmallest(text.top, ranked, key=by_rank),
    )
