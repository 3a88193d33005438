"""Clients: start, query and signal orchestrations from anywhere."""

from shardrt.client.client import Client
from shardrt.client.entities import EntityStatus
from shardrt.client.explaining import Awaited, Explanation
from shardrt.client.handle import OrchestrationHandle
from shardrt.client.limits import LimitStatus
from shardrt.client.schedules import ScheduleStatus
from shardrt.client.starting import StartRequest
from shardrt.client.sync import SyncClient, SyncOrchestrationHandle
from shardrt.client.views import HistoryEvent, OrchestrationStatus
from shardrt.core.history import Failure, Status

__all__ = [
    "Awaited",
    "Client",
    "EntityStatus",
    "Explanation",
    "Failure",
    "HistoryEvent",
    "LimitStatus",
    "OrchestrationHandle",
    "OrchestrationStatus",
    "ScheduleStatus",
    "StartRequest",
    "Status",
    "SyncClient",
    "SyncOrchestrationHandle",
]
