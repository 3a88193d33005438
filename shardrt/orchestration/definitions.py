"""Activities and orchestrators as registered, and who knows them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from shardrt.core.history import Retry
    from shardrt.orchestration.binding import Binding
    from shardrt.orchestration.entity import EntityDefinition
    from shardrt.orchestration.limit import Limit, LimitKey
    from shardrt.orchestration.middleware import (
        ExecutionKind,
        ExecutionMiddleware,
        SchedulingMiddleware,
        SchedulingSource,
    )
    from shardrt.orchestration.sealing import Sealer

Mode: TypeAlias = Literal["async", "thread", "process"]

DEFINITION = "__shardrt_orchestrator__"
"""Attribute of a registered function: its (first) `OrchestratorDefinition`. By it a client,
which knows no app, finds the name to start and the type of the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityDefinition:
    """An activity as registered."""

    name: str
    fn: Callable[..., Any] = field(repr=False)
    binding: Binding = field(repr=False, compare=False)
    executor: Mode
    retry: Retry | None = None
    """The default for calls that do not bring their own."""
    timeout: int | None = None
    """Microseconds for one attempt; likewise a default."""
    max_concurrency: int | None = None
    """Per shard."""
    speculative: bool = False
    transactional: bool = False
    """Runs in a transaction of the hub's database, which commits its outcome too."""
    limit: Limit | None = None
    """In the whole hub."""
    limit_key: LimitKey | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorDefinition:
    """An orchestrator as registered."""

    name: str
    version: str | None
    fn: Callable[..., Coroutine[Any, Any, Any]] = field(repr=False)
    binding: Binding = field(repr=False, compare=False)


def title_of(definition: OrchestratorDefinition) -> str:
    """Return the name and version of an orchestrator, as messages say them."""
    version = definition.version
    return repr(definition.name) + ("" if version is None else f" version {version!r}")


_PARTS = re.compile(r"\d+|[^\W\d_]+")


def age_of(version: str | None) -> tuple[tuple[int, str], ...]:
    """Return what sorts versions from old to new: none, then by their numbers and words.

    Words come before numbers, and so ``2-beta`` before ``2-1``.
    """
    parts = _PARTS.findall(version or "")
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


class Registry(Protocol):
    """Finds definitions by name or function."""

    def find_activity(self, fn: Callable[..., Any] | str) -> ActivityDefinition:
        """Raise `ActivityNotRegistered` if there is none."""

    def find_orchestrator(
        self, fn: Callable[..., Any] | str, version: str | None = None
    ) -> OrchestratorDefinition:
        """Return what a start means; raise `OrchestratorNotRegistered` if there is none."""

    def orchestrator_of(self, name: str, version: str | None) -> OrchestratorDefinition:
        """Return what an instance runs; raise `OrchestratorNotRegistered` if there is none."""

    @property
    def sealer(self) -> Sealer | None:
        """What seals payloads, if anything does."""

    @property
    def orchestrators(self) -> list[OrchestratorDefinition]:
        """All versions of all of them."""

    def find_entity(self, entity: Callable[..., Any] | str) -> EntityDefinition:
        """Raise `EntityNotRegistered` if there is none."""

    def executing(self, kind: ExecutionKind) -> tuple[ExecutionMiddleware, ...]:
        """Return what wraps things of this kind, outermost first."""

    def scheduling(self, source: SchedulingSource) -> tuple[SchedulingMiddleware, ...]:
        """Return what looks at things of this source, outermost first."""
