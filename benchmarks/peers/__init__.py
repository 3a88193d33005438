"""Other systems on the same workload, each with the best settings that we know for it.

benchmarks/peers/setup.sh               # once: environments of their own
python -m benchmarks.peers --rounds 3   # interleaved runs, a table of medians and ratios

A driver (`dbos_hello`, `restate_hello`) runs in the environment of its peer and knows nothing
of shardrt. It starts what the peer needs, warms up, and prints `begin` and `end {…}` around
the measurement under full load, then `alone {…}` for one instance at a time. CPU is counted
between `begin` and `end` over all its processes and the database.
"""
