"""Stories about the engine, told in files that need no Python to read.

A file is a sequence of blocks: commands, a line ``----``, and what happens then. All that a
block does is committed at its end. Ids end in ``!0`` or ``!1``: the partition they live on.

    start ID NAME [JSON] [at=SECONDS]      raise ID NAME [JSON]
    terminate|cancel|suspend ID [WHY]
    resume|restart|purge|get|wait ID       (all of these: [request=N] repeats request N)
    turn ID                                the code runs; what it asks for is in the lines below:
      run N NAME [JSON] [attempts=N] [delay=SECONDS]
      timer N SECONDS     cancel-timer N     cancel N
      child N ID NAME [JSON] [attempts=N] [delay=SECONDS]     send N ID EVENT [JSON]
      status JSON     return JSON     fail TYPE     again JSON [carrying=COUNT]
      park WHY        canceled WHY
    returns ID N JSON [run=K]              activity N ends; K counts its starts from 1
    raises ID N TYPE [run=K]
    pass SECONDS                           time goes on
    deliver                                messages and acknowledgements travel until none is left
    lose [N]                               what is on the network is lost, or only up to #N
    repeat                                 every message not acknowledged is sent once more
    crash PARTITION                        its memory is lost, and a new owner takes over
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from shardrt.core import history as h, messages as m, requests as r
from shardrt.core.requests import Origin
from shardrt.core.work import Canceled, Completed, Continued, Failed, Parked, Step
from tests.core import laws
from tests.core.world import START, Frame, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shardrt.core.effects import RunActivity
    from shardrt.core.work import Outcome, WorkItem

SECOND = 1_000_000


class Words:
    """One command: its words, and its ``key=value`` options."""

    def __init__(self, line: str) -> None:
        words = shlex.split(line, posix=False)
        is_option = [word.split("=")[0].isalpha() and "=" in word for word in words]
        self.options = dict(
            word.split("=", 1) for word, option in zip(words, is_option, strict=True) if option
        )
        plain = [word for word, option in zip(words, is_option, strict=True) if not option]
        self.verb, *self.rest = plain

    def text(self, index: int, default: str = "") -> str:
        return self.rest[index] if index < len(self.rest) else default

    def json(self, index: int) -> Raw:
        return Raw(self.text(index, "null").encode())

    def retry(self) -> h.Retry | None:
        if "attempts" not in self.options:
            return None
        delay = int(self.options.get("delay", "1")) * SECOND
        return h.Retry(max_attempts=int(self.options["attempts"]), first_interval=delay)


class Story:
    """A world of two partitions, and what has been told of it."""

    def __init__(self) -> None:
        self.world = World(2)
        self.origins: dict[int, Origin] = {}
        self.runs: list[RunActivity] = []
        self.told: list[str] = []
        self._known: list[Frame] = []
        """What is on the network and has been told."""

    def block(self, commands: list[str]) -> list[str]:
        """Carry out a block; return what happened."""
        self.told = []
        status, inboxes, stale = self._statuses(), self._inboxes(), self._stale()
        while commands:
            words = Words(commands.pop(0))
            turn: list[Words] = []
            while commands and commands[0].startswith(" "):
                turn.append(Words(commands.pop(0)))
            if words.verb == "turn":
                self._turn(words, turn)
            else:
                self._command(words)
        self.world.commit_all()
        self._effects()
        for instance_id, line in self._inboxes().items():
            if line and line != inboxes.get(instance_id):
                self.told.append(f"{instance_id} has news: {line}")
        for instance_id, line in self._statuses().items():
            if line != status.get(instance_id):
                self.told.append(f"{instance_id} is {line}")
        if self._stale() > stale:
            self.told.append("dropped: nobody waits for it any more")
        laws.check(self.world)
        return self.told or ["nothing happens"]

    # -- commands ------------------------------------------------------------------------------

    def _command(self, words: Words) -> None:
        match words.verb:
            case "pass":
                self.world.now += int(words.text(0)) * SECOND
                for node in self.world.nodes:
                    self.world.fire(node)
            case "returns" | "raises":
                self._end_activity(words)
            case "deliver":
                self._deliver()
            case "lose":
                self._lose(int(words.text(0, str(2**60))))
            case "repeat":
                for node in self.world.nodes:
                    for destination, lane in node.core.state.lanes.items():
                        self.world.send(node, destination, lane.last)
            case "crash":
                self.world.crash(self.world.nodes[int(words.text(0))])
            case _:
                self._request(words)

    def _request(self, words: Words) -> None:
        number = int(words.options.get("request", len(self.origins) + 1))
        origin = self.origins.setdefault(number, Origin("client", number, 1))
        request = _request_of(words)
        self.world.request(words.text(0), request, origin, to=number)
        self._tell_answers()

    def _end_activity(self, words: Words) -> None:
        key = (words.text(0), int(words.text(1)))
        starts = [run for run in self.runs if (run.instance_id, run.task_id) == key]
        run = starts[int(words.options.get("run", len(starts))) - 1]
        result = words.json(2)
        outcome = h.Failure(type=words.text(2)) if words.verb == "raises" else result
        self.world.activity_ended(run, outcome)

    def _lose(self, last: int) -> None:
        self.world.acks.clear()
        self.world.frames = [
            Frame(frame.source, frame.destination, last + 1, rest)
            for frame in self.world.frames
            if (rest := frame.messages[max(0, last + 1 - frame.first) :])
        ]
        self._known = list(self.world.frames)

    def _deliver(self) -> None:
        while self.world.frames or self.world.acks:
            frames, self.world.frames = self.world.frames, []
            for frame in frames:
                missing = self.world.deliver(frame)
                if missing is not None:
                    self.told.append(f"partition {frame.destination} misses #{missing}")
            self.world.commit_all()
            acks, self.world.acks = self.world.acks, []
            for source, destination, last in acks:
                self.told.append(f"{destination} has everything of {source} up to #{last}")
                self.world.acknowledge((source, destination, last))
            self._effects()

    def _turn(self, words: Words, asked: list[Words]) -> None:
        item = self.world.next_work(self.world.node_of(words.text(0)))
        if item is None or item.instance_id != words.text(0):
            self.told.append(f"{words.text(0)} has no turn to take")
            return
        self.world.work.remove(item)
        seen = ", ".join(map(_arrival, item.arrivals)) or "nothing"
        self.told.append(f"{item.instance_id} takes turn {item.turn} and sees {seen}")
        actions = tuple(_ACTIONS[each.verb](each) for each in asked if each.verb in _ACTIONS)
        status: Raw | None = None
        outcome: Outcome | None = None
        for each in asked:
            if each.verb == "status":
                status = each.json(0)
            elif each.verb not in _ACTIONS:
                outcome = _outcome(each, item)
        ids = (item.instance_id, item.execution_id, item.turn)
        self.world.step(Step(*ids, actions, outcome, status))

    # -- telling -------------------------------------------------------------------------------

    def _effects(self) -> None:
        running, self.world.running = self.world.running, []
        for run in running:
            self.runs.append(run)
            again = f", attempt {run.attempt}" if run.attempt > 1 else ""
            self.told.append(f"run {run.instance_id}/{run.task_id}: {run.name}{again}")
        canceled, self.world.canceled = self.world.canceled, []
        self.told += [f"cancel {each.instance_id}/{each.task_id}" for each in canceled]
        for frame in self.world.frames:
            if any(frame is known for known in self._known):
                continue
            for number, message in enumerate(frame.messages, frame.first):
                where = f"{frame.source} -> {frame.destination} #{number}"
                line = f"message {where}: {_message(message)}"
                if line not in self.told:
                    self.told.append(line)
        self._known = list(self.world.frames)
        self._tell_answers()

    def _tell_answers(self) -> None:
        for number, answers in self.world.answers.items():
            self.told += [f"answer to request {number}: {_answer(each)}" for each in answers]
        self.world.answers.clear()

    def _instances(self) -> Iterator[Any]:
        for node in self.world.nodes:
            yield from node.instances().values()

    def _statuses(self) -> dict[str, str]:
        return {each.instance_id: _status(each) for each in self._instances()}

    def _inboxes(self) -> dict[str, str]:
        return {
            each.instance_id: ", ".join(map(_arrival, each.inbox)) for each in self._instances()
        }

    def _stale(self) -> int:
        return sum(node.core.stale for node in self.world.nodes)


def _text(raw: Raw) -> str:
    return bytes(raw).decode()


def _status(instance: Any) -> str:
    parts: list[str] = [instance.status]
    if instance.status is h.Status.COMPLETED:
        parts.append(_text(instance.output))
    if instance.failure is not None:
        parts.append(instance.failure.type)
    if instance.reason or instance.parked:
        parts.append(f"({instance.reason or instance.parked})")
    if bytes(instance.custom_status) != b"null":
        parts.append(f"[{_text(instance.custom_status)}]")
    return " ".join(parts)


def _answer(answer: object) -> str:
    match answer:
        case r.Started(_, _, created):
            return "started" if created else "it is there already"
        case r.Done():
            return "done"
        case r.Purged(count):
            return f"{count} purged"
        case r.Refusal(code, message):
            return f"{code}, {message}"
        case r.Snapshot():
            return f"{answer.instance_id} is {_status_of(answer)}"
        case _:
            return "there is no such instance"


def _status_of(snapshot: r.Snapshot) -> str:
    failed = "" if snapshot.failure is None else f" {snapshot.failure.type}"
    output = f" {_text(snapshot.output)}" if snapshot.status is h.Status.COMPLETED else ""
    return f"{snapshot.status}{output}{failed}"


def _arrival(event: h.Arrival) -> str:  # noqa: PLR0911 - one per kind
    match event:
        case h.TaskCompleted(task_id, _, result) | h.SubOrchestrationInstanceCompleted(
            task_id, _, result
        ):
            return f"{type(event).__name__} {task_id} {_text(result)}"
        case h.TaskFailed(task_id, _, failure) | h.SubOrchestrationInstanceFailed(
            task_id, _, failure
        ):
            return f"{type(event).__name__} {task_id} {failure.type}"
        case h.TimerFired(task_id, at):
            return f"TimerFired {task_id} at {(at - START) // SECOND} s"
        case h.EventRaised(_, name, data):
            return f"EventRaised {name} {_text(data)}"
        case h.EntityOperationCompleted(task_id, _, result):
            return f"EntityOperationCompleted {task_id} {_text(result)}"
        case h.EntityOperationFailed(task_id, _, failure):
            return f"EntityOperationFailed {task_id} {failure.type}"
        case h.EntityLockGranted(task_id):
            return f"EntityLockGranted {task_id}"
        case h.CancelRequested(_, reason):
            return f"CancelRequested ({reason})"


def _message(message: m.Message) -> str:
    match message:
        case m.StartChild(instance_id, name, _, _, _, attempt):
            return f"start {instance_id} {name}" + (f", attempt {attempt}" if attempt > 1 else "")
        case m.ChildEnded(instance_id, _, task_id, _, status):
            return f"child {task_id} of {instance_id} is {status}"
        case m.DeliverEvent(instance_id, name, data):
            return f"event {name} {_text(data)} for {instance_id}"
        case m.TerminateChild(id_, _, _, reason) | m.CancelChild(id_, _, _, reason):
            return f"{message.__struct_config__.tag} {id_} ({reason})"
        case m.RewindChild(instance_id, name):
            return f"rewind {instance_id} {name}"
        case _:
            return f"{type(message).__name__} for {message.instance_id}"


def _request_of(words: Words) -> r.Request:
    reason = " ".join(words.rest[1:])
    match words.verb:
        case "start":
            seconds = words.options.get("at")
            start_at = None if seconds is None else START + int(seconds) * SECOND
            return r.Start(words.text(1), words.json(2), start_at=start_at)
        case "raise":
            return r.Raise(words.text(1), words.json(2))
        case "terminate":
            return r.Terminate(reason)
        case "cancel":
            return r.Cancel(reason)
        case "suspend":
            return r.Suspend(reason)
        case _:
            return _SIMPLE[words.verb]()


def _outcome(words: Words, item: WorkItem) -> Outcome:
    match words.verb:
        case "return":
            return Completed(words.json(0))
        case "fail":
            return Failed(h.Failure(type=words.text(0)))
        case "canceled":
            return Canceled(" ".join(words.rest))
        case "park":
            return Parked(" ".join(words.rest))
        case "again":
            events = [each for each in item.arrivals if isinstance(each, h.EventRaised)]
            count = int(words.options.get("carrying", "0"))
            return Continued(words.json(0), tuple(events[len(events) - count :]))
        case verb:
            raise ValueError(f"the code cannot {verb!r}")


_SIMPLE: dict[str, Callable[[], r.Request]] = {
    "resume": r.Resume,
    "restart": r.Restart,
    "purge": r.Purge,
    "get": r.Get,
    "wait": r.Wait,
}

_ACTIONS: dict[str, Callable[[Words], h.Action]] = {
    "run": lambda w: h.TaskScheduled(int(w.text(0)), w.text(1), w.json(2), w.retry()),
    "timer": lambda w: h.TimerCreated(int(w.text(0)), START + int(w.text(1)) * SECOND),
    "cancel": lambda w: h.TaskCanceled(int(w.text(0))),
    "pass-on-cancel": lambda w: h.TaskCanceled(int(w.text(0)), cooperative=True),
    "cancel-timer": lambda w: h.TimerCanceled(int(w.text(0))),
    "child": lambda w: h.SubOrchestrationInstanceCreated(
        int(w.text(0)), w.text(1), w.text(2), w.json(3), None, w.retry()
    ),
    "send": lambda w: h.EventSent(int(w.text(0)), w.text(1), w.text(2), w.json(3)),
}


def play(text: str) -> str:
    """Return a scenario with what happens in it, whatever it said before."""
    story = Story()
    told: list[str] = []
    for part in text.strip("\n").split("\n\n"):
        lines = part.split("\n")
        comments = [line for line in lines if line.startswith("#")]
        before = lines[: lines.index("----")] if "----" in lines else lines
        commands = [line for line in before if not line.startswith("#")]
        block = [*comments, *commands]
        if commands:
            block += ["----", *story.block(commands)]
        told.append("\n".join(block))
    return "\n\n".join(told) + "\n"
