"""From what a user says to start, to the request that says it to a host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta  # noqa: TC003 - a TypedDict's annotations
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar

from shardrt.client.instance_ids import new_instance_id
from shardrt.client.views import to_micros
from shardrt.core.requests import Start
from shardrt.errors import ConfigInvalid, InputInvalid, PayloadTooLarge
from shardrt.orchestration.context import OrchestrationContext
from shardrt.orchestration.definitions import DEFINITION, OrchestratorDefinition
from shardrt.orchestration.payload import ANY, Codec, encode
from shardrt.tracing.joining import current_trace

if TYPE_CHECKING:
    from msgspec import Raw

    from shardrt.orchestration.sealing import Sealer

OnConflict: TypeAlias = Literal["fail", "return", "restart"]
Orchestrator: TypeAlias = str | Callable[..., Any]

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
WithoutInput: TypeAlias = (
    Callable[[OrchestrationContext], Awaitable[R]] | Callable[[], Awaitable[R]]
)
WithInput: TypeAlias = (
    Callable[[OrchestrationContext, I], Awaitable[R]]
    | Callable[[I, OrchestrationContext], Awaitable[R]]
    | Callable[[I], Awaitable[R]]
)
"""Orchestrators as type checkers see them."""

_CONFLICTS = ("fail", "return", "restart")


@dataclass(frozen=True, slots=True)
class StartRequest:
    """One instance to start; the arguments of `Client.start`."""

    orchestrator: Orchestrator
    input: Any = None
    instance_id: str | None = None
    start_at: datetime | timedelta | None = None
    on_conflict: OnConflict = "fail"
    tags: dict[str, str] | None = None
    version: str | None = None


class StartOptions(TypedDict, total=False):
    """The keyword arguments of `Client.start`; see there."""

    instance_id: str | None
    start_at: datetime | timedelta | None
    on_conflict: OnConflict
    tags: dict[str, str] | None
    version: str | None


class ExecuteOptions(StartOptions, total=False):
    """The keyword arguments of `Client.execute`; see there."""

    timeout: float | None
    type: Any


def definition_of(orchestrator: Orchestrator) -> OrchestratorDefinition | None:
    """Return what a function was registered as, if it was."""
    found = getattr(orchestrator, DEFINITION, None)
    return found if isinstance(found, OrchestratorDefinition) else None


def name_of(orchestrator: Orchestrator) -> str:
    """Return the name by which hosts know an orchestrator."""
    if isinstance(orchestrator, str):
        return orchestrator
    definition = definition_of(orchestrator)
    if definition is not None:
        return definition.name
    name = getattr(orchestrator, "__name__", None)
    if not isinstance(name, str):
        raise ConfigInvalid(f"not an orchestrator: {orchestrator!r}; give its function or name")
    return name


def result_codec_of(orchestrator: Orchestrator) -> Codec[Any]:
    """Return how to decode what an orchestrator returns."""
    definition = None if isinstance(orchestrator, str) else definition_of(orchestrator)
    return ANY if definition is None else definition.binding.result_codec()


def check_instance_id(instance_id: str) -> str:
    """Return the id if it can be one. How long it may be is for the host to say.

    Raises:
        InputInvalid: it is empty, or has characters that no store takes.
    """
    if not isinstance(instance_id, str) or not instance_id:
        raise InputInvalid(f"not an instance id: {instance_id!r}")
    if not instance_id.isprintable():
        raise InputInvalid(f"instance id {instance_id!r} has unprintable characters")
    return instance_id


def encode_payload(value: object, what: str, bytes_max: int, sealer: Sealer | None = None) -> Raw:
    """Return a value as JSON.

    Raises:
        InputInvalid: it has no JSON form.
        PayloadTooLarge: it is longer than the host takes.
    """
    payload = encode(value, what)
    if sealer is not None:
        payload = sealer.seal(payload)
    size = memoryview(payload).nbytes
    if size > bytes_max:
        raise PayloadTooLarge(f"{what} of {size} bytes exceeds {bytes_max}")
    return payload


def start_of(
    wanted: StartRequest, payload_bytes_max: int, sealer: Sealer | None = None
) -> tuple[str, Start]:
    """Return the instance id and the request."""
    if wanted.on_conflict not in _CONFLICTS:
        raise InputInvalid(f"on_conflict={wanted.on_conflict!r}: give one of {_CONFLICTS}")
    instance_id = wanted.instance_id
    orchestrator = wanted.orchestrator
    name = orchestrator if type(orchestrator) is str else name_of(orchestrator)
    version = wanted.version
    if version is None and type(orchestrator) is not str:
        definition = definition_of(orchestrator)
        version = None if definition is None else definition.version
    start_at = wanted.start_at
    request = Start(
        name,
        encode_payload(wanted.input, "input", payload_bytes_max, sealer),
        version,
        wanted.tags,
        None if start_at is None else to_micros(start_at),
        wanted.on_conflict,
        instance_id is None,
        current_trace(),
    )
    return (new_instance_id() if instance_id is None else check_instance_id(instance_id)), request
