"""What the HTTP API needs of whatever it stands in front of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from msgspec import Raw

    from shardrt.core.requests import Request, Result
    from shardrt.links.admin import Question


class Caller(Protocol):
    """Answers requests about instances and questions about the hub.

    Both a `Session` to a gateway and a `Client` of an embedded runtime are one. What is
    refused is raised as the class of `shardrt.errors` that belongs to its code.
    """

    async def call(self, instance_id: str, request: Request) -> Result | None:
        """Ask the owner of an instance; `Get` and `GetHistory` may answer None."""
        ...

    async def ask(self, question: Question) -> Raw:
        """Return the JSON of the answer."""
        ...
