"""Code sees every name that Azure's own package has, with the same parameters."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from azure.durable_functions.models.DurableEntityContext import (
    DurableEntityContext as AzureEntityContext,
)
from azure.durable_functions.models.DurableOrchestrationContext import (
    DurableOrchestrationContext as AzureOrchestrationContext,
)

from shardrt.compat.azure.context import DurableOrchestrationContext
from shardrt.compat.azure.entities import DurableEntityContext
from shardrt.compat.azure.tasks import Task, TimerTask

FOR_AZURES_HOST = {"from_json"}
SET_ON_INSTANCES = {"will_continue_as_new", "is_newly_constructed"}


def names(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - FOR_AZURES_HOST


def parameters(kind: type, name: str) -> list[str] | None:
    found: Any = getattr(kind, name)
    return list(inspect.signature(found).parameters)[1:] if callable(found) else None


@pytest.mark.parametrize(
    ("azures", "ours"),
    [
        (AzureOrchestrationContext, DurableOrchestrationContext),
        (AzureEntityContext, DurableEntityContext),
    ],
    ids=["orchestration", "entity"],
)
def test_a_context_has_all_names_with_the_same_parameters(azures: type, ours: type) -> None:
    assert names(azures) - names(ours) <= SET_ON_INSTANCES
    both = sorted(names(azures) & names(ours))
    assert {name: parameters(ours, name) for name in both} == {
        name: parameters(azures, name) for name in both
    }


def test_tasks_have_what_code_looks_at() -> None:
    task = Task(lambda: None)  # type: ignore[arg-type, return-value]
    assert all(hasattr(task, name) for name in ("result", "is_completed", "state", "id"))
    assert all(hasattr(TimerTask, name) for name in ("cancel", "is_cancelled"))
