"""The part of the blocking client that concerns schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardrt.client.client import Client
    from shardrt.client.schedules import ScheduleStatus
    from shardrt.client.starting import Orchestrator


class SyncSchedules:
    """See `SyncClient`."""

    _client: Client

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine of the async client."""
        raise NotImplementedError

    def schedule(
        self,
        schedule_id: str,
        orchestrator: Orchestrator,
        input: Any = None,  # noqa: A002 - as the public interface calls it
        **options: Any,
    ) -> None:
        """Start an orchestration again and again; see `Client.schedule`."""
        self.run(self._client.schedule(schedule_id, orchestrator, input, **options))

    def schedules(self, *, ended: bool = False) -> list[ScheduleStatus]:
        """Return all schedules; see `Client.schedules`."""

        async def collect() -> list[ScheduleStatus]:
            return [each async for each in self._client.schedules(ended=ended)]

        found: list[ScheduleStatus] = self.run(collect())
        return found

    def get_schedule(self, schedule_id: str) -> ScheduleStatus | None:
        """Return how a schedule stands; None: there is none."""
        found: ScheduleStatus | None = self.run(self._client.get_schedule(schedule_id))
        return found

    def pause_schedule(self, schedule_id: str) -> None:
        """Start nothing more until it is resumed."""
        self.run(self._client.pause_schedule(schedule_id))

    def resume_schedule(self, schedule_id: str) -> None:
        """Go on after a pause."""
        self.run(self._client.resume_schedule(schedule_id))

    def trigger_schedule(self, schedule_id: str) -> None:
        """Start an instance now."""
        self.run(self._client.trigger_schedule(schedule_id))

    def delete_schedule(self, schedule_id: str) -> None:
        """End a schedule and forget it; see `Client.delete_schedule`."""
        self.run(self._client.delete_schedule(schedule_id))
