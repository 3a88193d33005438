"""A host of several processes: starts, watches and ends them; owns the lease."""
