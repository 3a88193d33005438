"""Durable orchestrations: ordinary async functions that survive crashes, restarts and moves.

Write against `App`; run with `Runtime` (embedded) or ``shardrt serve``; start, query and signal
with `Client` or `SyncClient`. Importing this package is cheap: the runtime and the clients
are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from shardrt.orchestration.activity import ActivityContext
from shardrt.orchestration.app import App
from shardrt.orchestration.context import OrchestrationContext
from shardrt.orchestration.entity_context import EntityContext
from shardrt.orchestration.entity_id import EntityId
from shardrt.orchestration.limit import Limit
from shardrt.orchestration.middleware import CallNext, ExecutionInfo, SchedulingInfo
from shardrt.orchestration.retry import RetryPolicy

if TYPE_CHECKING:
    from shardrt.client import (
        Client,
        EntityStatus,
        HistoryEvent,
        OrchestrationHandle,
        OrchestrationStatus,
        StartRequest,
        Status,
        SyncClient,
    )
    from shardrt.host.circuit_breaker import CircuitBreaker
    from shardrt.runtime import Runtime

__version__ = "0.1.0"

_LAZY = {
    "CircuitBreaker": "shardrt.host.circuit_breaker",
    "Client": "shardrt.client",
    "EntityStatus": "shardrt.client",
    "HistoryEvent": "shardrt.client",
    "OrchestrationHandle": "shardrt.client",
    "OrchestrationStatus": "shardrt.client",
    "Runtime": "shardrt.runtime",
    "StartRequest": "shardrt.client",
    "Status": "shardrt.client",
    "SyncClient": "shardrt.client",
}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'shardrt' has no attribute {name!r}")
    return getattr(import_module(module), name)


__all__ = [
    "ActivityContext",
    "App",
    "CallNext",
    "CircuitBreaker",
    "Client",
    "EntityContext",
    "EntityId",
    "EntityStatus",
    "ExecutionInfo",
    "HistoryEvent",
    "Limit",
    "OrchestrationContext",
    "OrchestrationHandle",
    "OrchestrationStatus",
    "RetryPolicy",
    "Runtime",
    "SchedulingInfo",
    "StartRequest",
    "Status",
    "SyncClient",
    "__version__",
]
