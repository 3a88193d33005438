"""A stand-in for a shard: answers requests from a dict, at a real Unix socket.

It remembers what each client asked, as owners do, so that repetitions can be seen. Tests
script it: `hold` keeps requests unanswered, `refuse_next` refuses what comes next, `tell_accepted`
says which starts are durable, and `is_old` makes it one that answers all starts alike.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.core import requests as r
from shardrt.core.history import Failure, Status
from shardrt.links import admin
from shardrt.links.messages import Accepted, Answer, Ask, Forget, Forward, ForwardRaw
from shardrt.links.shard_codec import ShardCodec
from shardrt.links.unix import UnixServer, listen_unix

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.links.base import Link

HISTORY = (
    b'[["ExecutionStarted",1000000,"hello",{"a":1},null,null,null],'
    b'["OrchestratorStarted",1000000],["TaskScheduled",0,"say","x"],'
    b'["TaskCompleted",0,2000000,"y"],["ExecutionCompleted",2000000,"Completed","y"]]'
)

_decode_question = msgspec.json.Decoder(admin.Question).decode


class FakeShard:
    """Instances in a dict; one event at most says how each of them ends."""

    def __init__(self) -> None:
        self.instances: dict[str, r.Snapshot] = {}
        self.received: list[Forward] = []
        self.questions: list[Any] = []
        self.applied: dict[tuple[str, int], Answer] = {}
        self.hold = False
        self.held: list[tuple[Forward, Link]] = []
        self.refuse_next: list[r.Refusal] = []
        self.links: list[Link] = []
        self.is_old = False
        self.forgotten: list[int] = []
        self.waits: dict[str, list[tuple[int, Link]]] = {}
        self.news = asyncio.Event()
        self._server: UnixServer | None = None

    @property
    def requests(self) -> list[Any]:
        """What was received, without the envelopes."""
        return [message.request for message in self.received]

    async def listen(self, path: str) -> None:
        self._server = await listen_unix(path, ShardCodec(), self.accept)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()

    def accept(self, link: Link) -> _Visit:
        self.links.append(link)
        self.news.set()
        return _Visit(self, link)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was received makes it true."""
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def take(self, message: Any, link: Link) -> None:
        self.news.set()
        if isinstance(message, Ask):
            self.questions.append(_decode_question(message.question))
            link.send(Answer(message.seq, self._answer_question(self.questions[-1])))
            return
        if isinstance(message, Forget):
            self.forgotten += message.seqs
            return
        if isinstance(message, ForwardRaw):
            refusal = r.Refusal("ProtocolViolation", "not a request")
            link.send(Answer(message.seq, refusal=refusal))
            return
        self.received.append(message)
        if not isinstance(message, Forward):
            return  # between partitions
        if self.refuse_next:
            link.send(Answer(message.seq, refusal=self.refuse_next.pop(0)))
        elif self.hold:
            self.held.append((message, link))
        else:
            self.apply(message, link)

    def release(self) -> None:
        self.hold = False
        held, self.held = self.held, []
        for message, link in held:
            self.apply(message, link)

    def apply(self, message: Forward, link: Link) -> None:
        key = (message.origin.client, message.origin.seq)
        known = None if isinstance(message.request, r.Wait) else self.applied.get(key)
        if known is not None:
            self._answer(message, Answer(message.seq, known.result, known.refusal), link)
            return
        if isinstance(message.request, r.Wait) and not self._has_ended(message.instance_id):
            self.waits.setdefault(message.instance_id, []).append((message.seq, link))
            return
        try:
            answer = Answer(message.seq, Raw(msgspec.json.encode(self._result(message))))
        except _Refused as refused:
            answer = Answer(message.seq, refusal=refused.refusal)
        if not isinstance(message.request, r.Wait):
            self.applied[key] = answer
        self._answer(message, answer, link)

    def _answer(self, message: Forward, answer: Answer, link: Link) -> None:
        if message.wants_end and answer.refusal is None and not self.is_old:
            wait = Forward(
                message.seq, message.partition, message.origin, message.instance_id, r.Wait()
            )
            self.apply(wait, link)
        else:
            link.send(answer)

    def tell_accepted(self, instance_id: str) -> None:
        """Say to who waits for an instance that it is durable, in one message per link."""
        told: dict[Link, list[int]] = {}
        for seq, link in self.waits[instance_id]:
            told.setdefault(link, []).append(seq)
        for link, seqs in told.items():
            link.send(Accepted(tuple(seqs)))

    def end(
        self,
        instance_id: str,
        status: Status = Status.COMPLETED,
        output: bytes = b"null",
        failure: Failure | None = None,
        reason: str = "",
    ) -> None:
        """End an instance, and answer who waits for it."""
        self.instances[instance_id] = snapshot = msgspec.structs.replace(
            self.instances[instance_id],
            status=status,
            output=Raw(output),
            failure=failure,
            reason=reason,
            completed_at=2_000_000,
        )
        for seq, link in self.waits.pop(instance_id, ()):
            link.send(Answer(seq, Raw(msgspec.json.encode(snapshot))))

    def _has_ended(self, instance_id: str) -> bool:
        found = self.instances.get(instance_id)
        return found is None or found.status.is_final

    def _result(self, message: Forward) -> Any:  # noqa: C901, PLR0911 - one per request
        request, instance_id = message.request, message.instance_id
        if isinstance(request, r.Start):
            return self._start(message, request)
        found = self.instances.get(instance_id)
        if isinstance(request, r.Get):
            return found
        if isinstance(request, r.Explain):
            event = r.Awaited(kind="event", name="approval")
            return None if found is None else r.Explanation(found, (event,))
        if isinstance(request, r.GetHistory):
            return None if found is None else Raw(HISTORY)
        if isinstance(request, r.Export):
            return None if found is None else Raw(b'{"instance_id":"%b"}' % instance_id.encode())
        if found is None:
            raise _Refused("InstanceNotFound", f"no instance {instance_id!r}")
        if isinstance(request, r.Wait):
            return found
        if isinstance(request, r.Restart):
            return r.Started(instance_id, "e2")
        if isinstance(request, r.Purge):
            if not found.status.is_final:
                raise _Refused("InstanceNotFinished", f"{instance_id!r} is open")
            del self.instances[instance_id]
            return r.Purged(1)
        if found.status.is_final:
            raise _Refused("InstanceFinished", f"{instance_id!r} has ended")
        return r.Done()

    def _start(self, message: Forward, request: r.Start) -> r.Started:
        instance_id = message.instance_id
        if request.name == "unknown":
            raise _Refused("OrchestratorNotRegistered", "no orchestrator 'unknown'")
        if instance_id in self.instances:
            if request.on_conflict == "return":
                return r.Started(instance_id, "e1", created=False)
            raise _Refused("InstanceExists", f"instance {instance_id!r} exists")
        self.instances[instance_id] = r.Snapshot(
            instance_id=instance_id,
            execution_id="e1",
            name=request.name,
            status=Status.RUNNING,
            created_at=1_000_000,
            updated_at=1_000_000,
            partition=message.partition,
            input=request.input.copy(),
            tags=request.tags,
        )
        return r.Started(instance_id, "e1")

    def _answer_question(self, question: Any) -> Raw:
        if isinstance(question, admin.CountInstances):
            return Raw(msgspec.json.encode({"Running": len(self.instances)}))
        found = sorted(
            (
                each
                for each in self.instances.values()
                if not question.where.status or each.status in question.where.status
            ),
            key=lambda each: each.instance_id,
        )
        found = [each for each in found if each.instance_id > (question.token or "")]
        page = found[: question.limit]
        token = page[-1].instance_id if len(found) > len(page) else None
        return Raw(msgspec.json.encode(admin.SnapshotPage(tuple(page), token)))


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.refusal = r.Refusal(code, message)


class _Visit:
    def __init__(self, shard: FakeShard, link: Link) -> None:
        self._shard = shard
        self._link = link

    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            self._shard.take(message, self._link)

    def on_closed(self) -> None:
        self._shard.links.remove(self._link)
        self._shard.news.set()
