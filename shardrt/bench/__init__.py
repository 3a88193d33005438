"""Load tests: how much a hub carries, measured with the same code that users write.

    shardrt serve --app shardrt.bench:app &
    shardrt bench hello

`app` has the orchestrators of every workload. All names begin with ``bench.``, so that it
can be included in an app of one's own (`App.include`) and its instances can be found and
purged. Importing this is cheap: what measures is imported by those who measure.
"""

from shardrt import App
from shardrt.bench.workloads import (
    bank,
    counter,
    eternal,
    events,
    fanout,
    hello,
    history,
    payload,
    producers,
    recovery,
    sequence,
    timers,
    tree,
    wordcount,
)

app = App()
for workload in (
    *(bank, counter, eternal, events, fanout, hello, history),
    *(payload, producers, recovery, sequence, timers, tree, wordcount),
):
    app.include(workload.app)
