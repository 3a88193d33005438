"""The little that an outsider knows of a random life: what was asked, and what was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from shardrt.core import requests as r


class Asked(NamedTuple):
    """A request that may be repeated."""

    origin: r.Origin
    instance_id: str
    request: r.Request
    answer: object
    """What it must be answered again, if it was applied."""


class Given(NamedTuple):
    """An event that was handed to an instance."""

    instance_id: str
    root: str
    data: bytes
    node: int
    record: int
    """The record that makes it durable."""
