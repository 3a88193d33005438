"""One shard at work: partitions, group commits, checkpoints, activities."""
