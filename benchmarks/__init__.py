"""What is measured beside `shardrt bench`: what the machine allows, and what others reach.

`benchmarks.targets` compares with what was meant to be reached, `benchmarks.costs` splits CPU by
layer, `benchmarks.scale` varies how much there is of everything else, `benchmarks.takeover` kills
hosts, `benchmarks.limits` leaves parts out, `benchmarks.peers` runs other systems.
"""
