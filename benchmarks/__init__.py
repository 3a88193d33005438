"""What is measured beside `shardrt bench`: what the machine allows, and what others reach.

python -m benchmarks.limits.store postgresql://…     one store, driven without a hub
"""
