"""What no implementation on this machine could beat: the same work with parts left out.

python -m benchmarks.limits.coroutines          the code of `hello`, nothing made durable
python -m benchmarks.limits.commits             the bytes of `hello`, committed by a bare loop
python -m benchmarks.limits.path                a hub beside its processes and commits alone
python -m benchmarks.limits.pauses              the same work after pauses
python -m benchmarks.limits.records             the store alone: what one more record costs
python -m benchmarks.limits.store postgresql://…     one store, driven without a hub
"""
