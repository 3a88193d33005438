"""Random life in a `World`: every kind of input, in any order, with everything that goes wrong.

The driver plays clients, orchestrator code, activities and the network, and keeps the little
that an outsider knows: which requests were answered, and which events each instance was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from msgspec import Raw

from shardrt.core import history as h, messages as m, requests as r
from shardrt.core.ids import derived_id
from shardrt.core.limiter import Numbers, limiter_id
from shardrt.core.work import Completed, Continued, Failed, Outcome, Parked, Step, WorkItem
from tests.core import laws, samples
from tests.core.entity_driver import ENTITY_WEIGHTS, EntityActs
from tests.core.outsider import Asked, Given
from tests.core.world import Frame, Node, World

if TYPE_CHECKING:
    from random import Random

    from shardrt.core.effects import RunActivity
    from shardrt.core.state import Instance

SECOND = 1_000_000
ROUNDS_MAX = 8
"""So often at most may one thing wait for another: a child for its retry, say."""
RETRY = h.Retry(max_attempts=3, first_interval=SECOND, jitter=0.5)
QUOTAS = (
    h.Quota(limiter=limiter_id("one", "a!0"), numbers=Numbers(1)),
    h.Quota(limiter=limiter_id("some"), numbers=Numbers(2, 3, 2 * SECOND)),
)
CLIENTS = ("ann", "bob")
Result: TypeAlias = h.TaskCompleted | h.SubOrchestrationInstanceCompleted
WEIGHTS = {
    "start": 5,
    "raise": 4,
    "terminate": 2,
    "cancel": 2,
    "suspend": 1,
    "resume": 1,
    "resume_all": 1,
    "purge": 2,
    "restart": 1,
    "rewind": 4,
    "repeat": 3,
    "settle": 2,
    "forget": 1,
    "turn": 12,
    "take_work": 3,
    "finish_work": 3,
    "repeat_step": 1,
    "end_activity": 6,
    "repeat_outcome": 1,
    "pass_time": 5,
    "compact": 1,
    "deliver": 10,
    "acknowledge": 4,
    "send_again": 1,
    "commit": 8,
    "crash": 2,
    "checkpoint": 1,
    "evict": 2,
    **ENTITY_WEIGHTS,
}
"""What may happen, and how often next to the others."""


class Driver(EntityActs):
    """See the module."""

    weights = WEIGHTS

    def __init__(self, random: Random, partitions: int, *, families: bool = False) -> None:
        super().__init__(partitions)
        self.random = random
        self.families = families
        """Whether code mostly calls children and fails, so that families are rewound."""
        self.world = World(partitions)
        self.names = [f"i{n}!{n}" for n in range(2 * partitions)]
        self.seq = 0
        self.asked: list[Asked] = []
        self.given: list[Given] = []
        self.roots: dict[str, str] = {}
        """Execution → the first one of the instance, where it is not itself."""
        self.rewound: dict[str, tuple[str, set[int]]] = {}
        """Execution → the one that it was rewound from, and the tasks whose results it kept."""
        self.data = 0
        self.old_steps: list[Step] = []
        self.old_runs: list[tuple[RunActivity, Raw]] = []

    def act(self) -> None:
        """Do something, and check everything."""
        (name,) = self.random.choices(list(self.weights), list(self.weights.values()))
        self.act_as(name)

    def act_as(self, name: str) -> None:
        """Do one thing, and check everything."""
        getattr(self, f"do_{name}")()
        self._note_rewound()
        laws.check(self.world)
        self.check_given()

    def some_node(self) -> Node:
        return self.random.choice(self.world.nodes)

    # -- clients -------------------------------------------------------------------------------

    def _ask(self, request: r.Request, instance_id: str | None = None) -> None:
        self.seq += 1
        client = self.random.choice(CLIENTS)
        open_seqs = [each.origin.seq for each in self.asked if each.origin.client == client]
        origin = r.Origin(client, self.seq, min(open_seqs, default=self.seq))
        instance_id = instance_id or self.random.choice(self.names)
        self._submit(origin, instance_id, request)

    def _submit(self, origin: r.Origin, instance_id: str, request: r.Request) -> None:
        node = self.world.node_of(instance_id)
        answer = self.world.request(instance_id, request, origin)
        newest = node.entries()[-1]
        written = getattr(newest, "origin", None) or getattr(newest, "created_by", None)
        applied = written is not None and written.seq == origin.seq
        if applied and isinstance(request, r.Raise):
            instance = node.core.instances[instance_id]
            self._give(node, instance, request.data, len(node.journal))
        self.asked.append(Asked(origin, instance_id, request, answer if applied else None))

    def do_start(self) -> None:
        conflict = self.random.choice(["fail", "return", "restart", "restart"])
        delay = self.random.choice([None, None, 3 * SECOND])
        start_at = None if delay is None else self.world.now + delay
        self._ask(r.Start("code", Raw(b"1"), start_at=start_at, on_conflict=conflict))

    def do_raise(self) -> None:
        self._ask(r.Raise("go", self._new_data()))

    def do_terminate(self) -> None:
        self._ask(r.Terminate("enough", self.random.random() < 0.7))

    def do_cancel(self) -> None:
        self._ask(r.Cancel("enough"))

    def do_suspend(self) -> None:
        self._ask(r.Suspend("wait"))

    def do_resume(self) -> None:
        self._ask(r.Resume())

    def do_resume_all(self) -> None:
        for instance_id in self.names:
            node = self.world.node_of(instance_id)
            if instance_id in node.core.instances:
                self.seq += 1
                origin = r.Origin("cat", self.seq, self.seq)
                self.world.request(instance_id, r.Resume(), origin)

    def do_purge(self) -> None:
        self._ask(r.Purge())

    def do_restart(self) -> None:
        self._ask(r.Restart())

    def do_rewind(self) -> None:
        """Rewind one that has failed, or ask it of one that has not."""
        failed = [
            instance.instance_id
            for node in self.world.nodes
            for instance in node.instances().values()
            if instance.status is h.Status.FAILED
        ]
        names = failed if failed and self.random.random() < 0.9 else self.names
        self._ask(r.Rewind(), self.random.choice(names))

    def _note_rewound(self) -> None:
        for node in self.world.nodes:
            for old, entry in node.core.rewinds:
                ended = [each for each in [*entry.history, *entry.inbox] if _has_result(each)]
                kept = {each.task_id for each in ended}
                self.rewound[entry.execution_id] = (old, kept)
                self.roots[entry.execution_id] = self.roots.get(old, old)
            node.core.rewinds.clear()

    def do_repeat(self) -> None:
        """Repeat a request whose answer is said to be lost."""
        if not self.asked:
            return
        asked = self.random.choice(self.asked)
        if asked.answer is None:
            self.asked.remove(asked)
            self._submit(asked.origin, asked.instance_id, asked.request)
            return
        answer = self.world.request(asked.instance_id, asked.request, asked.origin)
        assert answer == asked.answer

    def do_settle(self) -> None:
        """Let a client promise never to repeat its oldest requests."""
        del self.asked[: self.random.randrange(3)]

    # -- code ----------------------------------------------------------------------------------

    def do_turn(self) -> None:
        """Run a turn at once, as resident code does."""
        item = self.world.next_work(self.some_node())
        if item is not None:
            self._finish(item)

    def do_take_work(self) -> None:
        """Take a turn in hand, as a distant worker does."""
        self.world.next_work(self.some_node())

    def do_finish_work(self) -> None:
        if self.world.work:
            self._finish(self.random.choice(self.world.work))

    def do_repeat_step(self) -> None:
        if self.old_steps:
            step = self.random.choice(self.old_steps)
            assert not self.world.step(step), "a step counts once"

    def _finish(self, item: WorkItem) -> None:
        self.world.work.remove(item)
        node = self.world.node_of(item.instance_id)
        instance = node.core.instances.get(item.instance_id)
        step = self._step(item, node, instance)
        if isinstance(step.outcome, Continued):
            root = self.roots.get(item.execution_id, item.execution_id)
            self.roots[derived_id(item.execution_id, "next")] = root
        fits = (
            instance is not None
            and (instance.execution_id, instance.turn) == (item.execution_id, item.turn)
            and not instance.is_final
        )
        assert self.world.step(step) == fits
        if not isinstance(step.outcome, Parked):
            self.old_steps = [*self.old_steps[-5:], step]

    def _step(self, item: WorkItem, node: Node, instance: Instance | None) -> Step:
        ids = (item.instance_id, item.execution_id, item.turn)
        chance = self.random.random()
        if self.families and any(map(_is_failure_of_child, item.arrivals)):
            chance = 0.3
        if chance < 0.05:
            return Step(*ids, outcome=Parked(self.random.choice(["no code", "other code"])))
        actions = tuple(
            self._action(10 * item.turn + n, item, instance)
            for n in range(self.random.choice([0, 1, 2, 4]))
        )
        actions += self.entity_actions(item, instance)
        outcome: Outcome | None = None
        if any(map(laws.is_cancel, item.arrivals)) and chance > 0.6:
            outcome = samples.CANCELED[0]
        elif chance < 0.1:
            parent = item.started.parent
            mine = Raw(b"2") if parent is None else _token(parent.execution_id, parent.task_id)
            outcome = Completed(mine)
        elif chance < (0.35 if self.families else 0.15):
            outcome = Failed(h.Failure(type="ValueError"))
        elif chance < (0.4 if self.families else 0.25):
            past = [] if instance is None else node.whole_history(instance)
            events = [each for each in [*past, *item.arrivals] if isinstance(each, h.EventRaised)]
            outcome = Continued(Raw(b"3"), tuple(events))
        status = self.random.choice([None, Raw(b"4")])
        return Step(*ids, actions, outcome, status)

    def _action(  # noqa: PLR0911 - one per kind
        self, task_id: int, item: WorkItem, instance: Instance | None
    ) -> h.Action:
        kind = self.random.choice([2, 2, 2, 0, 1, 3, 5, 9] if self.families else range(10))
        retry = self.random.choice([None, RETRY])
        other = self.random.choice(self.names)
        if kind in {0, 7, 8}:
            speculative = self.random.random() < 0.3
            return h.TaskScheduled(task_id, "act", Raw(b"5"), retry, speculative=speculative)
        if kind == 9:
            limit = self.random.choice(QUOTAS)
            return h.TaskScheduled(task_id, "act", Raw(b"5"), retry, limit=limit)
        if kind == 1:
            return h.TimerCreated(task_id, item.at + self.random.randrange(5) * SECOND)
        if kind == 2:
            child = self.random.choice([other, f"{item.instance_id}:{task_id}"])
            return h.SubOrchestrationInstanceCreated(task_id, child, "code", Raw(b"6"), None, retry)
        if kind == 3 and instance is not None and instance.timers:
            return h.TimerCanceled(self.random.choice(list(instance.timers)))
        if kind in {3, 4} and instance is not None and (instance.pending or instance.children):
            task_id = self.random.choice([*instance.pending, *instance.children])
            return h.TaskCanceled(task_id, instance.cancel_requested)
        return h.EventSent(task_id, other, "go", self._new_data())

    # -- activities and time -------------------------------------------------------------------

    def do_end_activity(self) -> None:
        if not self.world.running:
            return
        run = self.world.running.pop(self.random.randrange(len(self.world.running)))
        result = _token(run.execution_id, run.task_id)
        if self.random.random() < 0.5:
            self.world.activity_ended(run, h.Failure(type="OSError"), self.random.random())
        else:
            self.old_runs = [*self.old_runs[-5:], (run, result)]
            self.world.activity_ended(run, result)

    def do_repeat_outcome(self) -> None:
        if self.old_runs:
            self.world.activity_ended(*self.random.choice(self.old_runs))

    def do_pass_time(self) -> None:
        self.world.now += self.random.randrange(3 * SECOND)
        self.world.fire(self.some_node(), self.random.choice([1, 2, 1000]))

    # -- the network ---------------------------------------------------------------------------

    def do_deliver(self) -> None:
        """Deliver a frame out of turn; it may come again, or may have been lost."""
        frames = self.world.frames
        if not frames:
            return
        frame = self.random.choice(frames)
        if self.random.random() < 0.7:
            frames.remove(frame)
        if self.random.random() >= 0.1:
            self._deliver(frame)

    def _deliver(self, frame: Frame) -> None:
        node = self.world.nodes[frame.destination]
        last = node.core.state.received.get(frame.source, 0)
        fresh = frame.messages[last + 1 - frame.first :] if frame.first <= last + 1 else ()
        for message in fresh:
            # One by one, to note who is given what.
            node.load(message.instance_id)
            instance = node.core.instances.get(message.instance_id)
            is_open = instance is not None and not instance.is_final
            if isinstance(message, m.DeliverEvent) and instance is not None and is_open:
                self._give(node, instance, message.data, len(node.journal) + 1)
            last += 1
            single = type(frame)(frame.source, frame.destination, last, (message,))
            assert self.world.deliver(single, self.random.random()) is None
        missing = self.world.deliver(frame, 0.5)
        assert missing == (last + 1 if frame.first > last + 1 else None)

    def do_acknowledge(self) -> None:
        acks = self.world.acks
        if acks:
            ack = self.random.choice(acks)
            if self.random.random() < 0.7:
                acks.remove(ack)
            self.world.acknowledge(ack)

    def do_send_again(self) -> None:
        node = self.some_node()
        self.world.commit(node)
        for destination, lane in node.core.state.lanes.items():
            self.world.send(node, destination, lane.last)

    # -- the host ------------------------------------------------------------------------------

    def do_commit(self) -> None:
        self.world.commit(self.some_node())

    def do_crash(self) -> None:
        node = self.some_node()
        # A turn that was lost is handed out anew; its old answer went to the old owner.
        self.old_steps.clear()
        # The new owner's clock may be behind.
        self.world.now -= self.random.randrange(2) * SECOND
        self.given = [
            each
            for each in self.given
            if each.node != node.number or each.record <= len(node.journal)
        ]
        laws.check_taken(node, self.world.crash(node))
        laws.check_replay(node)

    def do_checkpoint(self) -> None:
        node = self.some_node()
        self.world.commit(node)
        node.write_rows()
        laws.check_replay(node)

    def do_evict(self) -> None:
        """Checkpoint and drop from memory whatever may leave it."""
        self.do_checkpoint()
        node = self.some_node()
        for instance_id in [*node.core.instances, *node.core.entities]:
            node.evict(instance_id)

    def do_compact(self) -> None:
        timers = self.some_node().core.timers
        timers._compact_at = 0
        self.some_node().core.compact_timers()

    def do_forget(self) -> None:
        """Drop sessions, long after the clients' last repetition."""
        self.asked.clear()
        for node in self.world.nodes:
            node.core.forget_sessions(self.world.now + 1)
        self.world.commit_all()

    # -- what was given arrives once, in order ---------------------------------------------------

    def _new_data(self) -> Raw:
        self.data += 1
        return Raw(b"%d" % self.data)

    def _root(self, instance: Instance) -> str:
        return self.roots.get(instance.execution_id, instance.execution_id)

    def _give(self, node: Node, instance: Instance, data: Raw, record: int) -> None:
        given = Given(instance.instance_id, self._root(instance), bytes(data), node.number, record)
        self.given.append(given)

    def check_given(self) -> None:
        """Check that each open instance has the events it was given, once each, in order."""
        for node in self.world.nodes:
            for instance in node.instances().values():
                self._check_addressed(node, instance)
                if not instance.is_final:
                    key = (instance.instance_id, self._root(instance))
                    mine = [each.data for each in self.given if each[:2] == key]
                    assert laws.events_of(node, instance) == mine

    def _check_addressed(self, node: Node, instance: Instance) -> None:
        """Check (I8) that results were for this very execution and task, or kept in a rewind."""
        for event in [*node.whole_history(instance), *instance.inbox]:
            if _has_result(event):
                allowed, execution_id = [instance.execution_id], instance.execution_id
                while execution_id in self.rewound:
                    execution_id, kept = self.rewound[execution_id]
                    # A child goes on for the new execution of its parent.
                    if isinstance(event, h.TaskCompleted) and event.task_id not in kept:
                        break
                    allowed.append(execution_id)
                assert event.result in [_token(each, event.task_id) for each in allowed]

    # -- phase two: nothing goes wrong any more --------------------------------------------------

    def finish(self) -> None:
        """Let everything end; fail if something does not."""
        for node in self.world.nodes:
            self.world.crash(node)  # a new owner tries parked instances again
        for _ in range(ROUNDS_MAX):
            self._round()
        for node in self.world.nodes:
            assert all(instance.is_final for instance in node.instances().values())
            assert not any(lane.messages for lane in node.core.state.lanes.values())
            laws.check_replay(node)
        self.check_finished()

    def _raise_all(self) -> None:
        for node in self.world.nodes:
            for instance_id, instance in node.instances().items():
                if not instance.is_final:
                    self.seq += 1
                    origin = r.Origin("cat", self.seq, self.seq)
                    self.world.request(instance_id, r.Raise("go"), origin)

    def _round(self) -> None:
        """Time passes, nothing is suspended, what is waited for comes, and code ends."""
        world = self.world
        self.do_resume_all()
        self._raise_all()
        world.now += 3600 * SECOND
        running, world.running = world.running, []
        for run in running:
            world.activity_ended(run, Raw(b"8"))
        for node in world.nodes:
            world.fire(node)
            while world.next_work(node) is not None:
                pass
        for item in list(world.work):
            world.work.remove(item)
            ids = (item.instance_id, item.execution_id, item.turn)
            world.step(Step(*ids, outcome=Completed()))
        self.finish_entities()
        world.commit_all()
        for node in world.nodes:
            for destination, lane in node.core.state.lanes.items():
                world.send(node, destination, lane.last)
        world.exchange()


def _token(execution_id: str, task_id: int) -> Raw:
    """Return a result that says whom it is for."""
    return Raw(f'"{execution_id}:{task_id}"'.encode())


def _is_failure_of_child(event: object) -> bool:
    return isinstance(event, h.SubOrchestrationInstanceFailed)


def _has_result(event: object) -> TypeGuard[Result]:
    return isinstance(event, (h.TaskCompleted, h.SubOrchestrationInstanceCompleted))
