"""Whether what one step costs depends on how much there is of everything else.

Each part varies one thing and measures the rest with the workloads of `shardrt.bench`, which check
their answers.
"""
