"""What one route is asked and answers, declared beside the code that does it.

Routes are made from these, and so is ``/openapi.json``: what is not declared does not exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from msgspec import Meta
from starlette.responses import Response
from starlette.routing import Route

from shardrt.http.answers import Problem

Endpoint = Callable[..., Awaitable[Response]]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""ISO 8601; without an offset it is UTC."""


class Parameter(NamedTuple):
    """Something in the query, or in a header."""

    name: str
    what: str = ""
    kind: Any = str
    place: str = "query"
    is_list: bool = False
    """May be given several times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    """As Starlette writes it."""
    name: str
    """Unique among all."""
    summary: str
    answer: Endpoint
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    """The type of what it is sent as JSON; None: nothing is looked at."""
    needs_body: bool = False
    answers: dict[int, Any]
    """What a good request is answered: JSON of which type, by status; None: no body."""
    refusals: tuple[int, ...] = ()
    """Statuses of those that are refused, beside `common_refusals`."""
    is_open: bool = False
    """Asks for no token."""
    media_type: str = "application/json"
    """Of what it answers."""
    key_schemes: tuple[str, ...] = field(default=())
    """Further ways to present a token."""

    @property
    def changes(self) -> bool:
        """Whether it takes a token that may do more than read."""
        return self.method not in {"GET", "HEAD"}

    def route(self) -> Route:
        return Route(self.path, self.answer, methods=[self.method], name=self.name)

    def common_refusals(self) -> set[int]:
        """Return the statuses that follow from what it is, whatever it does."""
        if self.is_open:
            return set()
        refusals = {400, 401, 404, 429, 503}
        if self.changes:
            refusals.add(403)
        if self.body is not None:
            refusals.add(413)
        return refusals

    def all_answers(self) -> dict[int, Any]:
        """Return every status that it answers with, and the type of its JSON."""
        refused = dict.fromkeys({*self.common_refusals(), *self.refusals}, Problem)
        return dict(sorted((refused | self.answers).items()))


REFUSED_STATES = (409, 410)
"""The instance is not in a state in which this makes sense."""
