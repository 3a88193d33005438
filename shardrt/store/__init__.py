"""Where a hub is kept: one protocol (`base`) and its implementations."""
