"""The supervisor: one turn after the other, and nothing else.

Each turn handles signals, reaps the dead, checks heartbeats, starts what is missing, and
tells everybody the routes. Signal handlers only append to a list and wake the loop. It never
imports user code and never touches a payload, so that nothing can delay its lease.

Shutdown, in this order: readiness goes red → shards drain → partitions are released in the
store → the host's row goes → children end → sockets go. Gateways end last if other hosts take
over, as they lead to these meanwhile; else they stop taking requests first.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any, assert_never, cast

import msgspec

from shardrt.cluster.holdings import Terms
from shardrt.cluster.looks import LOOK_S_MIN
from shardrt.cluster.membership import Membership
from shardrt.errors import ConfigInvalid, ShardrtError
from shardrt.host.black_box import Orchestrator
from shardrt.host.clock import HubClock
from shardrt.host.health import report_of
from shardrt.links import control
from shardrt.supervisor import prepare
from shardrt.supervisor.blame import Blames
from shardrt.supervisor.policy import RestartPolicy
from shardrt.supervisor.shards import Shards
from shardrt.supervisor.slot import Slot
from shardrt.supervisor.view import cluster_view, samples_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from shardrt.cluster.renewal import Identities
    from shardrt.config import Settings
    from shardrt.store.base import Host, Hub, Store
    from shardrt.supervisor.process import ChildProcess

logger = logging.getLogger(__name__)

TURN_S = 0.25
"""Longest time between two turns."""
FROZEN_S = 2.0
"""A turn this late means that this process was stopped: silence of children proves nothing."""
ANSWER_S_MAX = 5.0
"""How long gateways may take to answer what is under way, once other hosts have taken over."""
END_S_MAX = 3.0
"""How long children may take to end once everything is drained."""


class StartFailed(ShardrtError):
    """A child does not come up."""

    code = "StartFailed"


class Supervisor:
    """One host. `run` serves until SIGINT or SIGTERM.

    Args:
        settings: of the host.
        import_paths: where children look for the app before anywhere else.
        announce: called with one line when everything serves.
        commands: what to run instead of the real children, by role; for tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        import_paths: Sequence[str] = (),
        announce: Callable[[str], object] = print,
        policy: RestartPolicy | None = None,
        commands: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._settings = settings
        self._import_paths = list(import_paths)
        self._announce = announce
        self._policy = policy or RestartPolicy()
        self._commands = commands or {}
        self._clock = HubClock()
        self._membership: Membership | None = None
        self._store: Store
        self._hub: Hub
        self._host: Host
        self._slots: list[Slot] = []
        self._shards = Shards([])
        self._blames = Blames(0)
        self._routes = control.Routes(0, [])
        self._signals: list[int] = []
        self._wake = asyncio.Event()
        self._stopping = False
        self._hurried = False
        self._announced = False
        self._childless = asyncio.Event()
        """Set when we are stopping and the last child has ended."""
        self._ended = False
        self._problem: ShardrtError | None = None
        self._turned_s = self._clock.monotonic_s()
        self._look_wanted = False
        self._looked_s = float("-inf")
        """When children had us look at the hub last."""

    async def run(self) -> bool:
        """Serve until told to stop; return whether everything was drained.

        Raises:
            ConfigInvalid: something that only the user can set right.
            StoreError: the store is not reachable, or not ours.
            PortInUse, StartFailed: see there.
        """
        self._store, self._hub = await prepare.open_hub(self._settings)
        try:
            with prepare.bind(self._settings.host.bind, self._settings.host.port) as listener:
                with prepare.socket_directory() as sockets:
                    self._host = prepare.host_row(self._settings, listener)
                    self._make_slots(sockets, listener.fileno())
                    await self._serve()
        finally:
            await self._store.close()
        if self._problem is not None:
            raise self._problem
        return not self._hurried

    def _make_slots(self, sockets: Path, listen_fd: int) -> None:
        configurations = prepare.configurations(
            self._settings,
            host_id=self._host.host_id,
            hub=self._hub,
            sockets=sockets,
            listen_fd=listen_fd,
            import_paths=self._import_paths,
        )
        self._slots = [
            Slot(
                configure,
                clock=self._clock,
                policy=self._policy,
                watchdog_s=self._settings.shard.watchdog_s,
                command=self._commands.get(configure.role, ()),
            )
            for configure in configurations
        ]
        self._blames = Blames(self._hub.partitions)
        self._shards = Shards(
            [slot for slot in self._slots if slot.role == "shard"],
            lambda partition: self._blames.of(partition, self._clock.monotonic_s()),
            lambda: self._blames.watches(self._clock.monotonic_s()),
        )

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            async with asyncio.TaskGroup() as tasks:
                while not self._ended:
                    await self._turn(tasks)
                    await self._pause()
        except* ShardrtError as group:
            raise group.exceptions[0] from None
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            self._kill_all()

    # -- turns ------------------------------------------------------------------------------

    async def _turn(self, tasks: asyncio.TaskGroup) -> None:
        self._notice_freeze()
        self._handle_signals(tasks)
        for slot in self._slots:
            if slot.reap():
                self._on_death(slot)
            slot.watch()
        if not self._stopping:
            await self._start_missing(tasks)
            self._advance(tasks)
        elif all(slot.child is None for slot in self._slots):
            self._childless.set()
        self._look()
        self._tell_routes()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(TURN_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _notice_freeze(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._turned_s > FROZEN_S:
            logger.warning("the supervisor stood still for %.1f s", now_s - self._turned_s)
            for slot in self._slots:
                slot.forgive()
        self._turned_s = now_s

    def _on_signal(self, number: int) -> None:
        self._signals.append(number)
        self._wake.set()

    def _handle_signals(self, tasks: asyncio.TaskGroup) -> None:
        while self._signals:
            name = signal.Signals(self._signals.pop(0)).name
            if not self._stopping:
                logger.info("%s: draining, again to hurry", name)
                self._stop(tasks, self._settings.host.drain_s)
            else:
                logger.warning("%s again: not waiting for what is not drained", name)
                self._hurried = True
                self._kill_all()
                if self._membership is not None:
                    self._membership.leave_now()

    async def _start_missing(self, tasks: asyncio.TaskGroup) -> None:
        for slot in self._slots:
            if slot.failure:
                self._give_up(tasks, StartFailed(slot.failure))
                return
            if slot.due:
                await slot.start(self._on_message, self._wake.set)

    def _advance(self, tasks: asyncio.TaskGroup) -> None:
        """Take the next step towards serving, or towards an even load."""
        if self._problem is not None:
            self._give_up(tasks, self._problem)
        elif self._membership is None:
            # Only now: a host whose app cannot be imported must not claim anything.
            if all(slot.serves for slot in self._slots):
                self._join(tasks)
        else:
            self._weigh(self._membership)
            if self._membership.settled:
                self._settle(self._membership)

    def _weigh(self, membership: Membership) -> None:
        """Leave partitions to other hosts while no shard is there, or will be before long."""
        could = membership.host.shards > 0
        can = self._shards.can_serve(self._settings.host.lease_ttl_s, could=could)
        membership.weigh(self._host.shards if can else 0)
        if could and not can:
            logger.error(
                "host=%s has no shard, as they end again and again: hosts that have some take over",
                membership.host.host_id,
            )

    def _settle(self, membership: Membership) -> None:
        if not self._announced and all(slot.serves for slot in self._slots):
            self._announced = True
            self._announce(self._announcement())
        if not any(slot.comes_soon(0.0) and not slot.serves for slot in self._shards.slots):
            membership.move(self._shards.uneven())

    def _join(self, tasks: asyncio.TaskGroup) -> None:
        self._membership = self._make_membership()
        self._membership.nudge = self._nudge
        self._shards.owner = self._membership
        self._shards.on_look = self._wake.set
        tasks.create_task(self._membership.run())

    def _make_membership(self, identities: Identities | None = None) -> Membership:
        return Membership(
            self._host,
            store=self._store,
            sink=self._shards,
            clock=self._clock,
            terms=Terms.of(self._settings.host),
            identities=identities,
        )

    def _announcement(self) -> str:
        host = self._settings.host
        return (
            f"shardrt serving {self._host.address} (app {host.app}, {host.shards} shards, "
            f"{self._hub.partitions} partitions, store {self._store.url_masked})"
        )

    def _tell_routes(self) -> None:
        if self._membership is None:
            return
        me = self._membership.owner
        era = 0 if self._shards.view is None else self._shards.view.era
        targets = self._shards.targets(self._membership.serving(), me)
        routes = control.Routes(self._routes.version, targets, me, era)
        if routes != self._routes:
            self._routes = msgspec.structs.replace(routes, version=routes.version + 1)
            for slot in self._slots:
                if slot.listens:
                    slot.send(self._routes)

    # -- children ---------------------------------------------------------------------------

    def _on_death(self, slot: Slot) -> None:
        if slot.role != "shard":
            return
        known = set(self._blames.condemned)
        now_s = self._clock.monotonic_s()
        for suspect, deaths in self._blames.died(slot.left_behind, now_s, is_proof=slot.is_proof):
            what = "code" if suspect.task_id is None else f"activity task={suspect.task_id}"
            logger.error(
                "%s died while it ran %s of instance=%s, %d of %d times until it is quarantined",
                slot.name,
                what,
                suspect.instance_id,
                deaths,
                control.DEATHS_MAX,
            )
        for code in self._blames.condemned.keys() - known:
            logger.error(
                "orchestrator=%s version=%s is quarantined: shard processes died while they ran "
                "code of %d of its instances; resume one of them to have it run again",
                code.name,
                code.version,
                control.DEATHS_MAX,
            )
            self._tell_shards()
        partitions = self._shards.went_down(slot)
        if self._membership is not None:
            self._membership.shard_died(partitions)

    def _tell_shards(self) -> None:
        """Tell all shards which code they must not run."""
        for slot in self._slots:
            if slot.role == "shard" and slot.listens:
                slot.send(control.Forbid(list(self._blames.condemned.values())))

    def _pardon(self, code: Orchestrator) -> None:
        logger.warning("orchestrator=%s version=%s is run again", code.name, code.version)
        self._blames.pardon(code)
        self._tell_shards()

    def _on_message(self, slot: Slot, message: control.FromChild) -> None:
        child = slot.child
        if child is None:
            return
        child.heard_s = self._clock.monotonic_s()
        match message:
            case control.Ready():
                self._on_ready(slot, child)
            case control.Beat():
                child.beat = message
                return  # nothing to do: no need for a turn
            case control.Opened() | control.Released() | control.Lost():
                self._on_partition(slot, message)
            case control.Fatal():
                self._problem = ConfigInvalid(message.message)
            case control.Pardoned():
                self._pardon(Orchestrator(message.name, message.version))
            case control.Stale():
                # Otherwise what it should know is on its way.
                self._look_wanted |= message.version >= self._routes.version
            case control.Nudged():
                self._look_wanted = True
            case control.Query():
                slot.send(control.ClusterView(message.seq, self._facts(message.what)))
            case _:
                assert_never(message)
        self._wake.set()

    def _facts(self, what: control.Subject) -> dict[str, Any]:
        now_s = self._clock.monotonic_s()
        if what == "metrics":
            return samples_of(self._membership, self._slots, self._blames, now_s)
        view = cluster_view(self._membership, self._shards, self._slots, self._blames, now_s)
        if what == "health":
            return cast("dict[str, Any]", msgspec.to_builtins(report_of(view, self._settings)))
        return view

    def _look(self) -> None:
        """Look at the hub, if somebody wants it; they do all at once, so not too often."""
        now_s = self._clock.monotonic_s()
        if self._look_wanted and self._membership and now_s - self._looked_s >= LOOK_S_MIN:
            self._look_wanted = False
            self._looked_s = now_s
            self._membership.look()

    def _on_ready(self, slot: Slot, child: ChildProcess) -> None:
        child.ready = True
        slot.send(self._routes)
        if slot.role == "shard":
            if self._blames.condemned:  # before there is anything to run
                slot.send(control.Forbid(list(self._blames.condemned.values())))
            self._shards.came_up(slot)

    def _on_partition(
        self, slot: Slot, message: control.Opened | control.Released | control.Lost
    ) -> None:
        membership = self._membership
        assert membership is not None, "a shard spoke of a partition before there was any"
        partition, epoch = message.partition, message.epoch
        if not isinstance(message, control.Opened):
            self._shards.left(slot, partition, epoch)
        match message:
            case control.Opened():
                membership.opened(partition, epoch)
                self._blames.opened(partition)
            case control.Released():
                membership.released(partition, epoch)
            case control.Lost():
                membership.lost(partition, epoch, message.broken)

    # -- the end ----------------------------------------------------------------------------

    def _give_up(self, tasks: asyncio.TaskGroup, problem: ShardrtError) -> None:
        self._problem = problem
        self._kill_all()
        self._stop(tasks, 0.0)

    def _stop(self, tasks: asyncio.TaskGroup, grace_s: float) -> None:
        self._stopping = True
        tasks.create_task(self._shut_down(grace_s))

    async def _shut_down(self, grace_s: float) -> None:
        """Drain in order, while turns go on."""
        has_heirs = self._membership is not None and self._membership.has_heirs
        answer_s = min(grace_s, ANSWER_S_MAX) if has_heirs else 0.0
        if has_heirs:
            self._tell_gateways(control.Leave())
        else:
            self._stop_gateways(grace_s)
        if self._membership is not None:
            await self._membership.leave(grace_s)
        else:
            self._shards.drain(0.0)
        self._stop_gateways(answer_s)
        try:
            async with asyncio.timeout(END_S_MAX + answer_s):
                await self._childless.wait()
        except TimeoutError:
            names = [slot.name for slot in self._slots if slot.child is not None]
            logger.warning("killed, as they did not end: %s", ", ".join(names))
        self._ended = True
        self._wake.set()

    def _stop_gateways(self, grace_s: float) -> None:
        for slot in self._slots:
            if slot.role == "gateway" and slot.child is not None:
                slot.child.stop(grace_s)

    def _tell_gateways(self, message: control.ToChild) -> None:
        for slot in self._slots:
            if slot.role == "gateway" and slot.listens:
                slot.send(message)

    def _nudge(self, target: str) -> None:
        self._tell_gateways(control.Nudge([target]))

    def _kill_all(self) -> None:
        for slot in self._slots:
            if slot.child is not None:
                slot.child.kill()
