"""What clients do in a simulation: each character plays one scene, and knows how it must end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Raw

from shardrt.core import requests as r
from shardrt.core.history import Status
from shardrt.errors import InstanceExists, InstanceFinished
from shardrt.testing.sim.programs import draw_program, expected, present, register
from shardrt.testing.virtual import true_now_us

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from random import Random

    from shardrt.testing.sim.clients import SimClient

Play: TypeAlias = "Callable[[Scene], Awaitable[None]]"


class Scene:
    """One character's part of a run."""

    def __init__(self, name: str, random: Random, clients: list[SimClient]) -> None:
        self.name = name
        self.random = random
        self.clients = clients
        self.client = clients[0]
        self.written: list[str] = []
        """Tokens that some register must have once each."""
        self.sections: dict[str, int] = {}
        """Register → how often it was counted up."""

    def id(self, what: str = "") -> str:
        """Return an instance id of this scene."""
        suffix = f"!{self.random.randrange(8)}" if self.random.random() < 0.3 else ""
        return f"{self.name}{what}{suffix}"

    def check(self, is_so: object, text: str) -> None:
        """Note a violation unless something is so."""
        if not is_so:
            self.client.cluster.ledger.violated("result", f"{self.name}: {text}")

    async def rest(self, seconds: float = 1.0) -> None:
        """Let some time pass."""
        await asyncio.sleep(self.random.random() * seconds)

    async def completes(self, instance_id: str) -> Any:
        """Return the output of an instance, which must complete."""
        return self._output(await self.client.wait(instance_id))

    async def gives(self, name: str, value: object, instance_id: str, **options: Any) -> Any:
        """Start an instance, which must complete, and return its output."""
        return self._output(await self.end_of(name, value, instance_id, **options))

    async def end_of(
        self, name: str, value: object, instance_id: str, **options: Any
    ) -> r.Snapshot:
        """Start an instance, and return it once it has ended: by one request, or by two."""
        if self.random.random() < 0.5:
            return await self.client.execute(name, value, instance_id, **options)
        await self.client.start(name, value, instance_id, **options)
        return await self.client.wait(instance_id)

    def _output(self, snapshot: r.Snapshot) -> Any:
        self.check(snapshot.status is Status.COMPLETED, f"{snapshot}")
        return msgspec.json.decode(snapshot.output)

    def note_tokens(self, steps: list[Any]) -> None:
        """Remember what a program writes."""
        for name, *args in steps:
            if name in {"signal", "ask"}:
                self.written.append(args[1])
            elif name in {"all", "child"}:
                self.note_tokens(args)


async def run_program(scene: Scene) -> None:
    """Start a program, look at it now and then, and compare its result."""
    steps = draw_program(scene.random, scene.name)
    scene.note_tokens(steps)
    instance_id = scene.id()
    watching = asyncio.ensure_future(_watch(scene, instance_id))
    got = await scene.gives("program", {"steps": steps}, instance_id)
    scene.check(got == expected(steps), f"gave {got}, not {expected(steps)}: {steps}")
    await watching


async def _watch(scene: Scene, instance_id: str) -> None:
    other = scene.clients[-1]
    for _ in range(scene.random.randint(0, 6)):
        await scene.rest(2.0)
        if scene.random.random() < 0.7:
            await other.get(instance_id)
        else:
            await other.history(instance_id)


async def look_around(scene: Scene) -> None:
    """Look at what others have started, again and again, and through any host."""
    started = scene.client.cluster.started

    async def look(client: SimClient) -> None:
        for _ in range(40):
            await scene.rest(0.5)
            if started:
                await client.get(scene.random.choice(started))

    async with asyncio.TaskGroup() as tasks:
        for client in scene.clients:
            tasks.create_task(look(client))


async def write_letters(scene: Scene) -> None:
    """Raise numbered events from several sessions at once."""
    random, instance_id = scene.random, scene.id()
    counts = [random.randint(1, 6) for _ in scene.clients]
    given = {
        "want": sum(counts),
        "per": random.randint(1, 4),
        "acts": random.random() < 0.5,
        "got": [],
    }
    await scene.client.start("mailbox", given, instance_id)
    gathers = random.random() < 0.5
    if gathers:
        await scene.client.ask(instance_id, r.Suspend("gather"))

    async def write(sender: int) -> None:
        for number in range(counts[sender]):
            await scene.clients[sender].raise_event(instance_id, "letter", [sender, number])
            if random.random() < 0.3:
                await scene.rest()

    async with asyncio.TaskGroup() as tasks:
        for sender in range(len(counts)):
            tasks.create_task(write(sender))
    if gathers:
        await scene.client.ask(instance_id, r.Resume())
    got = await scene.completes(instance_id)
    for sender, count in enumerate(counts):
        numbers = [number for each, number in got if each == sender]
        scene.check(numbers == list(range(count)), f"letters of {sender}: {got}")


async def duel(scene: Scene) -> None:
    """Start one id from several sessions: one wins."""
    instance_id = scene.id()
    policy = scene.random.choice(("fail", "return"))
    starts: list[r.Started] = []

    async def start(client: SimClient) -> None:
        steps = [["status", client.name], ["act", 1]]
        try:
            started = await client.start(
                "program", {"steps": steps}, instance_id, on_conflict=policy
            )
        except InstanceExists:
            scene.check(policy == "fail", "refused although it should be returned")
        else:
            starts.append(started)

    async with asyncio.TaskGroup() as tasks:
        for client in scene.clients:
            tasks.create_task(start(client))
    winners = [each for each in starts if each.created]
    scene.check(len(winners) == 1, f"winners of {instance_id}: {starts}")
    scene.check(len({each.execution_id for each in starts}) == 1, f"{instance_id}: {starts}")
    await scene.completes(instance_id)


async def terminate(scene: Scene) -> None:
    """End a family from outside."""
    root = scene.id()
    await scene.client.start("family", 2, root)
    names = [root, f"{root}.2", f"{root}.2.1"]
    while await scene.client.get(names[-1]) is None:
        await scene.rest(0.5)
    await scene.client.ask(root, r.Terminate("enough"))
    for name in names:
        snapshot = await scene.client.wait(name)
        is_right = (snapshot.status, snapshot.reason) == (Status.TERMINATED, "enough")
        scene.check(is_right, f"not terminated: {snapshot}")


async def terminate_program(scene: Scene) -> None:
    """End whatever a program is about, or come too late."""
    instance_id = scene.id()
    steps = draw_program(scene.random, scene.name)
    await scene.client.start("program", {"steps": steps}, instance_id)
    await scene.rest(3.0)
    try:
        await scene.client.ask(instance_id, r.Terminate("enough"))
    except InstanceFinished:
        await scene.completes(instance_id)
    else:
        snapshot = await scene.client.wait(instance_id)
        scene.check(snapshot.status is Status.TERMINATED, f"not terminated: {snapshot}")


async def cancel(scene: Scene) -> None:
    """Cancel a saga at any moment, more than once: it undoes what it has done, and so its child."""
    random, root = scene.random, scene.id()
    child = f"{scene.name}.child" if random.random() < 0.6 else ""
    numbers = [random.randrange(100) for _ in range(random.randint(1, 4))]
    given = {"numbers": numbers, "ms": random.choice((50, 300)), "child": child}
    await scene.client.start("saga", given, root)
    await scene.rest(3.0)
    pauses = random.random() < 0.4
    if pauses:
        await scene.client.ask(root, r.Suspend())
    await scene.client.ask(root, r.Cancel("enough"))
    with suppress(InstanceFinished):  # one that has not begun has ended by now
        await scene.clients[-1].ask(root, r.Cancel("more"))
        if pauses:
            await scene.rest(5.0)
            await scene.client.ask(root, r.Resume())
    snapshot = await scene.client.wait(root)
    _check_undone(scene, snapshot, numbers)
    if child and await scene.client.get(child) is not None:
        _check_undone(scene, await scene.client.wait(child), numbers)


def _check_undone(scene: Scene, snapshot: r.Snapshot, numbers: list[int]) -> None:
    is_right = (snapshot.status, snapshot.reason) == (Status.CANCELED, "enough")
    scene.check(is_right, f"not canceled: {snapshot}")
    told = msgspec.json.decode(snapshot.custom_status)
    if told is None:  # it had not begun
        return
    done = [number + 7 for number in numbers][: len(told["done"])]
    undone = [3 * number + 1 for number in reversed(done)]
    scene.check(told == {"done": done, "undone": undone}, f"not undone: {snapshot}")


async def pause(scene: Scene) -> None:
    """Pause a program for a while."""
    instance_id = scene.id()
    steps: list[list[Any]] = [["timer", 500], ["act", 1], ["slow", 500, 2], ["act", 3]]
    await scene.client.start("program", {"steps": steps}, instance_id)
    await scene.rest()
    try:
        await scene.client.ask(instance_id, r.Suspend("wait"))
        seen = await scene.client.get(instance_id)
        # A turn that was under way still counts, and may have been the last one.
        is_right = seen and seen.status in {Status.SUSPENDED, Status.COMPLETED}
        scene.check(is_right, f"not suspended: {seen}")
        await scene.rest(3.0)
        await scene.client.ask(instance_id, r.Resume())
    except InstanceFinished:
        pass
    got = await scene.completes(instance_id)
    scene.check(got == expected(steps), f"gave {got}")


async def rewind(scene: Scene) -> None:
    """Let a program fail, set the world right, and have it go on."""
    instance_id = scene.id()
    steps: list[list[Any]] = [["act", 1], ["fix", scene.name], ["act", 2]]
    if scene.random.random() < 0.5:
        steps = [["act", 5], ["child", *steps], ["slow", 200, 1]]
    snapshot = await scene.end_of("program", {"steps": steps}, instance_id)
    scene.check(snapshot.status is Status.FAILED, f"did not fail: {snapshot}")
    present.world.fixed.add(scene.name)
    await scene.client.ask(instance_id, r.Rewind("fixed"))
    got = await scene.completes(instance_id)
    scene.check(got == expected(steps), f"gave {got}")


async def purge(scene: Scene) -> None:
    """Delete an instance that has ended, and use its id again."""
    instance_id = scene.id()
    for number in range(2):
        got = await scene.gives("program", {"steps": [["act", number]]}, instance_id)
        scene.check(got == [3 * number + 1], f"gave {got} in life {number}")
        purged = await scene.client.ask(instance_id, r.Purge())
        scene.check(purged.count == 1, f"purged {purged}")
        seen = await scene.client.get(instance_id)
        scene.check(seen is None, f"is there after its purge: {seen}")


async def restart(scene: Scene) -> None:
    """Run one id several times."""
    instance_id = scene.id()
    steps: list[list[Any]] = [
        ["abandon", 2000, 1],
        ["act", 5],
        ["anew"],
        ["abandon", 1000, 2],
        ["act", 6],
    ]
    executions = []
    for number in range(3):
        if number:
            started = await scene.client.ask(instance_id, r.Restart())
            executions.append(started.execution_id)
            got = await scene.completes(instance_id)
        else:
            got = await scene.gives("program", {"steps": steps}, instance_id)
        scene.check(got == expected(steps), f"gave {got}")
    scene.check(len(set(executions)) == 2, f"executions {executions}")


async def write_registers(scene: Scene) -> None:
    """Signal and call entities."""
    entity = register(f"k{scene.random.randrange(3)}")
    for number in range(scene.random.randint(1, 8)):
        token = f"{scene.name}.{number}"
        scene.written.append(token)
        payload = Raw(msgspec.json.encode(token))
        if scene.random.random() < 0.5:
            await scene.client.ask(entity, r.SignalEntity("write", payload))
        else:
            reply = await scene.client.ask(entity, r.CallEntity("write", payload))
            scene.check(bytes(reply.result) == bytes(payload), f"{reply}")


async def count_in_sections(scene: Scene) -> None:
    """Have several orchestrations count up the same registers, each alone."""
    keys = [f"{scene.name}.{each}" for each in range(scene.random.randint(1, 3))]
    ids = []
    for number in range(scene.random.randint(2, 4)):
        mine = scene.random.sample(keys, scene.random.randint(1, len(keys)))
        for key in mine:
            scene.sections[key] = scene.sections.get(key, 0) + 1
        instance_id = scene.id(f".{number}")
        await scene.client.start("program", {"steps": [["section", *mine]]}, instance_id)
        ids.append(instance_id)
    for instance_id in ids:
        await scene.completes(instance_id)


async def play_ball(scene: Scene) -> None:
    """Two instances send each other events."""
    one, other = f"{scene.name}.a!0", f"{scene.name}.b!1"
    rounds = scene.random.randint(1, 5)
    await scene.client.start("pong", {"partner": one, "rounds": rounds}, other)
    await scene.client.start("ping", {"partner": other, "rounds": rounds}, one)
    got = await scene.completes(one)
    scene.check(got == [10 + each for each in range(rounds)], f"gave {got}")
    await scene.client.wait(other)


async def write_circulars(scene: Scene) -> None:
    """Have instances write to several others at once, which may have left memory since."""
    random, name, number = scene.random, scene.name, scene.random.randrange(8)
    boxes = [f"{name}.box{each}!{number}" for each in range(random.randint(3, 6))]
    rounds, senders = random.randint(3, 8), range(random.randint(1, 3))
    given = {"want": rounds * len(senders), "per": 100, "acts": False, "got": []}
    async with asyncio.TaskGroup() as tasks:
        for box in boxes:
            tasks.create_task(scene.client.start("mailbox", given, box))
    for sender in senders:
        to = random.sample(boxes, len(boxes))
        given = {"sender": sender, "to": to, "rounds": rounds, "ms": random.choice((700, 1500))}
        await scene.client.start("postman", given, f"{name}.postman{sender}!{sender}")
    for box in boxes:
        got = await scene.completes(box)
        for sender in senders:
            numbers = [each for writer, each in got if writer == sender]
            scene.check(numbers == list(range(rounds)), f"letters of {sender} in {box}: {got}")


async def start_later(scene: Scene) -> None:
    """Start an instance that is to begin at a time."""
    instance_id = scene.id()
    start_at = true_now_us(scene.client.cluster.loop) + scene.random.randint(100_000, 5_000_000)
    await scene.gives("program", {"steps": [["act", 1]]}, instance_id, start_at=start_at)


async def start_unnamed(scene: Scene) -> None:
    """Run many instances at once under ids made for them."""
    names = [f"{scene.name}.{number}" for number in range(scene.random.randint(2, 8))]
    programs = {name: draw_program(scene.random, name, depth=1) for name in names}

    async def run(name: str, steps: list[Any]) -> None:
        scene.note_tokens(steps)
        got = await scene.gives("program", {"steps": steps}, name, fresh=True)
        scene.check(got == expected(steps), f"gave {got}, not {expected(steps)}")

    async with asyncio.TaskGroup() as tasks:
        for name, steps in programs.items():
            tasks.create_task(run(name, steps))


CHARACTERS: Mapping[str, Play] = {
    "program": run_program,
    "look": look_around,
    "letters": write_letters,
    "duel": duel,
    "terminate": terminate,
    "terminate program": terminate_program,
    "cancel": cancel,
    "suspend": pause,
    "rewind": rewind,
    "purge": purge,
    "restart": restart,
    "registers": write_registers,
    "sections": count_in_sections,
    "ball": play_ball,
    "circulars": write_circulars,
    "later": start_later,
    "unnamed": start_unnamed,
}
