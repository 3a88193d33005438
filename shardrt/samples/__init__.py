"""Samples: small orchestrations that `shardrt serve` runs out of the box.

hello       five activities in a row                    python -m shardrt.samples hello
orders      payment, approval, shipping, compensation   python -m shardrt.samples.orders
fanout      many activities at once                     python -m shardrt.samples fanout 1000
monitor     runs for ever, in bounded memory            python -m shardrt.samples monitor
wordcount   map and reduce over a text file             python -m shardrt.samples.wordcount
bank        accounts as entities, transfers with locks  see `shardrt.samples.bank`

Each of the commands hosts the app by itself, in memory; with `--store` it is durable, and
with `--url` it is a client of a host that runs already.
"""

from shardrt import App
from shardrt.samples import bank, fanout, hello, monitor, orders, wordcount

app = App()
for sample in (bank, fanout, hello, monitor, orders, wordcount):
    app.include(sample.app)
