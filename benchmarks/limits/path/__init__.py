"""The path of a `hello` with everything left out that makes a hub of it, beside the hub."""
