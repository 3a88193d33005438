"""What can be run, by name, with the sizes at which it says something."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from shardrt.bench.bench import Bench
from shardrt.bench.options import Mode
from shardrt.bench.workloads import (
    bank,
    counter,
    eternal,
    events,
    fanout,
    hello,
    history,
    overload,
    parked,
    payload,
    producers,
    recovery,
    sequence,
    timers,
    tree,
    wordcount,
)

Run = Callable[[Bench], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Size:
    """A setting of one workload."""

    default: int | float
    help: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload and its usual size."""

    run: Run
    """Notes its figures in `bench.figures`; raises `WrongAnswer`."""
    about: str
    n: int
    concurrency: int
    sizes: Mapping[str, Size] = field(default_factory=dict)
    modes: tuple[Mode, ...] = ("url", "serve", "embedded")
    """Where it can run."""
    has_loop: bool = True
    """Whether it can run at a fixed rate, and warm up."""


WORKLOADS: dict[str, Workload] = {
    "hello": Workload(
        run=hello.run,
        about="Five activities in a row.",
        n=20_000,
        concurrency=500,
        sizes={"speculative": Size(default=False, help="Activities need not wait for commits.")},
    ),
    "sequence": Workload(
        run=sequence.run,
        about="Many activities in a row.",
        n=500,
        concurrency=50,
        sizes={"steps": Size(default=100, help="Activities of each instance.")},
    ),
    "fanout": Workload(
        run=fanout.run,
        about="Many activities at once.",
        n=200,
        concurrency=10,
        sizes={"width": Size(default=100, help="Activities of each instance.")},
    ),
    "tree": Workload(
        run=tree.run,
        about="A tree of sub-orchestrations with an activity in each leaf.",
        n=200,
        concurrency=10,
        sizes={
            "depth": Size(default=3, help="Levels below the root."),
            "width": Size(default=4, help="Children of each node."),
        },
    ),
    "events": Workload(
        run=events.run, about="Start, raise an event, finish.", n=10_000, concurrency=500
    ),
    "timers": Workload(
        run=timers.run,
        about="Timers due within one second: how late they are.",
        n=10_000,
        concurrency=1,
        has_loop=False,
    ),
    "bank": Workload(
        run=bank.run,
        about="Transfers between two locked entities.",
        n=3_000,
        concurrency=100,
        sizes={"accounts": Size(default=1000, help="Few make transfers wait for each other.")},
    ),
    "counter": Workload(run=counter.run, about="Signals to one entity.", n=20_000, concurrency=500),
    "producer-consumer": Workload(
        run=producers.run,
        about="Orchestrations signal entities, which check order and number.",
        n=20,
        concurrency=20,
        sizes={
            "consumers": Size(default=4, help="Entities that every producer sends to."),
            "batches": Size(default=5, help="Executions of each producer."),
            "batch": Size(default=50, help="Messages to each consumer in an execution."),
            "bytes": Size(default=100, help="Padding of each message."),
        },
    ),
    "wordcount": Workload(
        run=wordcount.run,
        about="Words of made-up books, counted by entities.",
        n=1,
        concurrency=1,
        sizes={
            "books": Size(default=15, help="Mappers, one book each."),
            "reducers": Size(default=40, help="Entities that count."),
            "words": Size(default=2000, help="Words in a book."),
        },
        has_loop=False,
    ),
    "payload": Workload(
        run=payload.run,
        about="Values of 1 kB, 100 kB and 1 MB, in and out.",
        n=5_000,
        concurrency=50,
    ),
    "long-history": Workload(
        run=history.run,
        about="One instance of many steps: cost of early and of late ones.",
        n=1,
        concurrency=1,
        sizes={"steps": Size(default=10_000, help="Activities in a row.")},
    ),
    "eternal": Workload(
        run=eternal.run,
        about="Continue as new, for ever: what grows.",
        n=1,
        concurrency=1,
        sizes={"iterations": Size(default=10_000, help="Executions of each instance.")},
        has_loop=False,
    ),
    "parked": Workload(
        run=parked.run,
        about="Instances that wait: memory, idle queries, waking up.",
        n=10_000,
        concurrency=1,
        sizes={"idle_s": Size(default=10.0, help="For how long the idle hub is watched.")},
        has_loop=False,
    ),
    "overload": Workload(
        run=overload.run,
        about="More hello than the hub can carry: what is still done, and what is refused.",
        n=20_000,
        concurrency=1_000,
        sizes={
            "factor": Size(default=5.0, help="Starts offered, as a multiple of the maximum."),
            "offer_s": Size(default=10.0, help="For how long."),
        },
        modes=("serve",),
        has_loop=False,
    ),
    "recovery": Workload(
        run=recovery.run,
        about="kill -9 of a host under load, with instances open.",
        n=1_000,
        concurrency=1_000,
        sizes={"steps": Size(default=20, help="Activities behind each open instance.")},
        modes=("serve",),
        has_loop=False,
    ),
}
