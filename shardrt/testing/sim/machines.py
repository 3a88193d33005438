"""Machines: a real supervisor with simulated children, a clock, and a plug that can be pulled."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardrt import __version__
from shardrt.cluster.renewal import Identities
from shardrt.errors import StoreError
from shardrt.store.base import Host
from shardrt.supervisor import prepare
from shardrt.supervisor.shards import Shards
from shardrt.supervisor.slot import Slot
from shardrt.supervisor.supervisor import Supervisor
from shardrt.testing.sim.children import SimChild
from shardrt.testing.sim.clocks import Oscillator, SimClock
from shardrt.testing.sim.database import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.cluster.membership import Membership
    from shardrt.config import Settings
    from shardrt.testing.sim.cluster import Cluster
    from shardrt.testing.sim.processes import Process

BOOT_S = (0.1, 0.5)


class SimSlot(Slot):
    """A place for a simulated child."""

    machine: Machine

    async def start(
        self, on_message: Callable[[Slot, Any], None], on_closed: Callable[[], None]
    ) -> None:
        def current(child: SimChild, message: Any) -> None:
            mine: Any = self.child
            if child is mine or mine is None:
                on_message(self, message)

        child: Any = SimChild(
            self.machine, self._configure, self._clock.monotonic_s(), current, on_closed
        )
        self.child = child


class SimSupervisor(Supervisor):
    """The supervisor of a simulated machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.settings, announce=lambda _: None)
        self._machine = machine
        self._clock = SimClock(machine.oscillator)
        self._turned_s = self._clock.monotonic_s()

    @property
    def shard_due_s(self) -> float:
        """In how many seconds a shard is there, or is started."""
        return min((slot.due_in_s for slot in self._shards.slots), default=0.0)

    async def run(self) -> bool:
        """Serve until stopped by `stop`."""
        machine = self._machine
        assert machine.supervisor is not None, "runs as that process"
        store: Any = Connection(machine.cluster.server, machine.supervisor)
        self._store = store
        await store.open()
        while True:
            try:
                self._hub = await store.create(0)
                break
            except StoreError:
                await asyncio.sleep(1.0)
        self._host = Host(
            host_id=machine.name,
            incarnation="",
            address=f"http://{machine.name}",
            shards=machine.settings.host.shards,
            version=__version__,
        )
        self._make_slots(Path("/", machine.name), -1)
        async with asyncio.TaskGroup() as tasks:
            while not self._ended:
                await self._turn(tasks)
                await self._pause()
        if self._problem is not None:
            raise self._problem
        return not self._hurried

    def _make_slots(self, sockets: Path, listen_fd: int) -> None:
        settings = self._settings
        configurations = prepare.configurations(
            settings,
            host_id=self._host.host_id,
            hub=self._hub,
            sockets=sockets,
            listen_fd=listen_fd,
            import_paths=[],
        )
        slots: list[Slot] = []
        for configure in configurations:
            slot = SimSlot(
                configure,
                clock=self._clock,
                policy=self._policy,
                watchdog_s=settings.shard.watchdog_s,
            )
            slot.machine = self._machine
            slots.append(slot)
        self._slots = slots
        self._shards = Shards([slot for slot in slots if slot.role == "shard"])

    def _make_membership(self, identities: Identities | None = None) -> Membership:
        return super()._make_membership(identities or self._machine.identities)

    def stop(self) -> None:
        """Drain, as after SIGTERM."""
        self._on_signal(signal.SIGTERM)

    @property
    def children(self) -> list[SimChild]:
        """All children that are alive, or about to be."""
        found: list[Any] = [slot.child for slot in self._slots if slot.child is not None]
        return found


class Machine:
    """One host of the hub."""

    def __init__(
        self, cluster: Cluster, name: str, settings: Settings, oscillator: Oscillator
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.settings = settings
        self.oscillator = oscillator
        self.supervisor: Process | None = None
        """The supervisor's process, while there is one."""
        self.host: SimSupervisor
        self.is_stopping = False
        self._lives = 0
        self.identities = Identities(new=self._new_incarnation, is_dead=self._is_dead)

    def _new_incarnation(self) -> str:
        self._lives += 1
        return f"i{self._lives}.{self.cluster.next_pid()}"

    def _is_dead(self, incarnation: str) -> bool:
        del incarnation
        return False  # an honest wait for the lease finds more

    @property
    def has_booted(self) -> bool:
        """Whether it is up, and its supervisor runs."""
        return self.is_up and hasattr(self, "host")

    @property
    def is_up(self) -> bool:
        return self.supervisor is not None and not self.supervisor.is_dead

    def start(self) -> None:
        """Start the host, unless it runs."""
        if self.is_up:
            return
        self.cluster.note("start", self.name)
        self.is_stopping = False
        process = self.supervisor = self.cluster.loop.process(f"{self.name}.supervisor", self.name)
        process.after(self.cluster.random.uniform(*BOOT_S), self._boot, process)

    def _boot(self, process: Process) -> None:
        self.host = SimSupervisor(self)
        process.spawn(self._live(process))

    async def _live(self, process: Process) -> None:
        try:
            await self.host.run()
        except Exception as error:  # noqa: BLE001 - it is the end of this host
            self.cluster.ledger.violated("I12", f"{self.name} ended: {error!r}")
        self.cluster.note("ended", self.name)
        self._kill_children()
        process.kill()

    def crash(self) -> None:
        """Pull the plug."""
        if self.supervisor is not None and self.is_up:
            self.cluster.note("crash", self.name)
            self._kill_children()
            self.supervisor.kill()

    def _kill_children(self) -> None:
        for process in self.processes:
            if process is not self.supervisor:
                process.kill()

    @property
    def processes(self) -> list[Process]:
        """All that run on this machine."""
        return [
            each
            for each in self.cluster.loop.processes
            if each.place == self.name and not each.is_dead
        ]

    def stop(self) -> None:
        """Tell the host to drain and end."""
        if self.is_up and hasattr(self, "host"):
            assert self.supervisor is not None
            self.cluster.note("stop", self.name)
            self.is_stopping = True
            self.supervisor.after(0.0, self.host.stop)

    def child(self, role: str) -> list[SimChild]:
        """Return the living children of that kind that are ready."""
        if not self.is_up or not hasattr(self, "host"):
            return []
        return [
            each
            for each in self.host.children
            if each.configure.role == role and each.ready and not each.process.is_dead
        ]
