"""The statements of `queries.sql` by name."""

from __future__ import annotations

from shardrt.store.named_queries import load_queries

PACKAGE = "shardrt.store.sqlite"

SQL = load_queries(PACKAGE)
