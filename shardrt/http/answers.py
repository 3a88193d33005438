"""The types of what the HTTP API answers, from which its OpenAPI document is made.

Answers themselves are written by `shapes` and the like; tests hold them against these.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from shardrt.core.history import Status
from shardrt.host.health import Report

Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class _Answer(msgspec.Struct, rename="camel", kw_only=True):
    pass


class Problem(_Answer):
    """Why a request was refused."""

    message: str


class Health(_Answer):
    """Whether the host lives, or wants requests."""

    status: str
    message: str | UnsetType = UNSET
    partitions: int | UnsetType = UNSET
    partitions_served: int | UnsetType = UNSET


class HealthDetails(Report, frozen=True, kw_only=True, rename="camel"):
    """How the host stands, and why; durations in seconds."""

    message: str = ""


class Failure(msgspec.Struct, kw_only=True):
    """An exception as data."""

    type: str
    message: str = ""
    details: str = ""
    non_retryable: bool = False
    cause: Failure | None = None
    heartbeat: Any = None


class ManagementUrls(_Answer):
    """Where an instance is looked at and steered."""

    status_query_get_uri: str
    send_event_post_uri: str
    terminate_post_uri: str
    purge_history_delete_uri: str


class StartedInstance(_Answer):
    """An instance that is durable by now."""

    instance_id: str
    management_urls: ManagementUrls


class InstanceDone(_Answer):
    """What was asked for is durable."""

    instance_id: str


class InstancesDeleted(_Answer):
    """How many instances are gone."""

    instances_deleted: int


class Instance(_Answer):
    """The committed state of an instance."""

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    runtime_status: Status
    input: Any
    output: Any
    custom_status: Any
    created_time: Moment
    last_updated_time: Moment
    completed_time: Moment | None
    tags: dict[str, str]
    parent_instance_id: str | None
    partition: int
    failure: Failure | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    history_events: list[dict[str, Any]] | UnsetType = UNSET


class InstancePage(_Answer):
    """Instances, and how to get those after them."""

    instances: list[Instance]
    continuation_token: str | None


class Awaited(_Answer):
    """One thing that an instance waits for."""

    kind: str
    text: str
    name: str | UnsetType = UNSET
    instance_id: str | UnsetType = UNSET
    runtime_status: str | UnsetType = UNSET
    task_id: int | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    since: Moment | UnsetType = UNSET
    due: Moment | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class Explanation(_Answer):
    """Why an instance does not move."""

    instance_id: str
    name: str | None
    runtime_status: Status | None
    summary: str
    awaited: list[Awaited]
    more: int


class Entity(_Answer):
    """The committed state of an entity."""

    entity_id: str
    name: str
    key: str
    state: Any
    created_time: Moment
    last_updated_time: Moment
    locked_by: str | None
    backlog: int
    partition: int
    reason: str | UnsetType = UNSET


class EntityPage(_Answer):
    """Entities, and how to get those after them."""

    entities: list[Entity]
    continuation_token: str | None


class Limit(_Answer):
    """A limit, or one key of it, and its queue; durations in seconds."""

    limiter_id: str
    name: str
    key: str | None
    concurrency: int | None
    rate: int | None
    per: float | None
    holders: int
    waiting: int
    waiting_since: Moment | None
    next_time: Moment | None
    partition: int
    reason: str | UnsetType = UNSET


class LimitPage(_Answer):
    """Limits, and how to get those after them."""

    limits: list[Limit]
    continuation_token: str | None


class EntityDone(_Answer):
    """A signal is durable."""

    entity_id: str


class EntityResult(_Answer):
    """What an operation returned."""

    entity_id: str
    result: Any


class EntityFailure(_Answer):
    """How an operation failed."""

    entity_id: str
    failure: Failure


class EntitiesDeleted(_Answer):
    """How many entities are gone."""

    entities_deleted: int


class Schedule(_Answer):
    """A schedule and what has become of it; durations in seconds."""

    schedule_id: str
    orchestrator: str
    cron: str | None
    timezone: str
    every: float | None
    overlap: str
    catch_up: str
    paused: bool
    ended: bool
    next_due: Moment | None
    last_due: Moment | None
    last_instance_id: str | None
    running: Any
    started: int
    skipped: int
    last_failure: str | None
    reason: str | None


class Schedules(_Answer):
    """All schedules."""

    schedules: list[Schedule]


class ScheduleDone(_Answer):
    """What was asked for is durable."""

    schedule_id: str


class AzureUrls(_Answer):
    """Where an instance is looked at and steered, in Azure's words."""

    id: str
    status_query_get_uri: str
    send_event_post_uri: str
    terminate_post_uri: str
    purge_history_delete_uri: str
    restart_post_uri: str
    suspend_post_uri: str
    resume_post_uri: str


class AzureInstance(_Answer):
    """The committed state of an instance, in Azure's words."""

    name: str
    instance_id: str
    runtime_status: Status
    input: Any
    custom_status: Any
    output: Any
    created_time: Moment
    last_updated_time: Moment
    history_events: list[dict[str, Any]] | UnsetType = UNSET


class AzureEntityId(_Answer):
    """What an entity is called."""

    name: str
    key: str


class AzureEntity(_Answer):
    """An entity, in Azure's words."""

    entity_id: AzureEntityId
    last_operation_time: Moment
    state: Any = UNSET


class AzureProblem(msgspec.Struct, rename="pascal"):
    """Why a start was refused, in Azure's words."""

    message: str
    exception_message: str
    exception_type: str
    stack_trace: str
