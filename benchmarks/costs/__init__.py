"""What a step costs, by part.

python -m benchmarks.costs               CPU of `hello` under load, by process and by layer
python -m benchmarks.costs.observing     CPU of `hello` without metrics, with them, with traces
python -m benchmarks.costs.instructions  instructions of a shard per `hello`, over partitions
python -m benchmarks.costs.commits       every commit of one `hello` alone, and what is in it
"""
