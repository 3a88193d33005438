"""What is measured beside `shardrt bench`: what the machine allows, and what others reach.

`benchmarks.limits` leaves parts out, `benchmarks.peers` runs other systems.
"""
