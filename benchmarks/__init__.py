"""Load tests of shardrt: `python -m benchmarks WORKLOAD`. See `benchmarks.__main__`."""
