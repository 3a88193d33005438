"""Samples: small orchestrations that `shardrt serve` runs out of the box.

hello       five activities in a row                    python -m shardrt.samples hello
orders      payment, approval, shipping, compensation   python -m shardrt.samples.orders
fanout      many activities at once                     python -m shardrt.samples fanout 1000
monitor     runs for ever, in bounded memory            python -m shardrt.samples monitor
wordcount   map and reduce over a text file             python -m shardrt.samples.wordcount
bank        accounts as entities, transfers with locks  see `shardrt.samples.bank`
sequential  each step with the result of the last one   python -m shardrt.samples sequential
timers      days and weeks, cancelled in time           python -m shardrt.samples timers
approval    a human decides, or nobody in time          see `shardrt.samples.approval`
resilient   retries, and a chain of others to ask       python -m shardrt.samples resilient
trip        a saga of sub-orchestrations, undone        see `shardrt.samples.trip`
heartbeat   the same call for ever, run every time      see `shardrt.samples.heartbeat`
pipeline    check, transform in parallel, load          python -m shardrt.samples pipeline
ticket      a state machine driven by events            see `shardrt.samples.ticket`
typed       typed inputs, results and failures          see `shardrt.samples.typed`
shop        a package that registers by itself          see `shardrt.samples.shop`
azure       written for Azure Durable Functions         python -m shardrt.samples azure
chaos       orders under faults, completed or undone    python -m shardrt.samples.chaos

Each of the commands hosts the app by itself, in memory; with `--store` it is durable, and
with `--url` it is a client of a host that runs already.
"""

from shardrt import App
from shardrt.samples import (
    approval,
    bank,
    fanout,
    heartbeat,
    hello,
    monitor,
    orders,
    pipeline,
    resilient,
    sequential,
    shop,
    ticket,
    timers,
    trip,
    typed,
    wordcount,
)

app = App()
for sample in (
    *(hello, sequential, fanout, timers, approval, resilient, trip, monitor, heartbeat),
    *(pipeline, ticket, typed, shop, orders, wordcount, bank),
):
    app.include(sample.app)
