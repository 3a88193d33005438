"""One partition at work: its inputs, its records, and its effects.

The host owns the pure `Partition` of one epoch and is thrown away with it. Inputs that concern
an instance not in memory wait for it to be loaded (`loading`); everything else is applied at
once and leaves with the next group commit (`committer`); effects wait for their record
(`release`). No method here awaits, so an input is never interleaved with another.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from shardrt.core import requests as r
from shardrt.core.codec import encode_record
from shardrt.core.effects import CancelActivity, Confirm, Effect, Observed, Reply, RunActivity, Send
from shardrt.core.history import Failure
from shardrt.host.condemning import condemn, pardon
from shardrt.host.history_reader import HistoryReader
from shardrt.host.lanes import Lanes
from shardrt.host.loading import Loader
from shardrt.host.reading import Reading
from shardrt.host.receiving import Receiving
from shardrt.host.release import Release
from shardrt.host.rewinding import Rewinding
from shardrt.host.surroundings import Answering, Surroundings, To, payload_bytes
from shardrt.links.messages import Acknowledge, Answer, Deliver, Forward, Resend
from shardrt.store.base import Append, era_of
from shardrt.store.transactions import OutcomeKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardrt.core.partition import Partition
    from shardrt.core.state import Resident
    from shardrt.links.control import Blamed
    from shardrt.store.base import Whole

logger = logging.getLogger(__name__)

FIRE_MAX = 1000
"""Timers fired per turn: a storm of overdue ones must not hold up the rest."""

_encode = msgspec.json.Encoder().encode
_WAITS = frozenset({r.Wait, r.CallEntity})
"""Requests whose answer may take for ever: they do not count as being in flight."""


_GROWS = (r.Start, r.Restart, r.Raise, r.SignalEntity, r.CallEntity)
"""Requests that bring more work; others may help to get rid of some."""


class PartitionHost:
    """A partition that this shard owns under one epoch."""

    __slots__ = (
        "_opened",
        "_progress",
        "checkpoint_lsn",
        "checkpointing",
        "closed",
        "closing",
        "core",
        "cut_s",
        "draining",
        "epoch",
        "forbidden",
        "frozen",
        "history",
        "journal_bytes",
        "lanes",
        "loader",
        "on_seal",
        "partition",
        "queued",
        "reading",
        "receiving",
        "release",
        "rewinding",
        "settled",
        "shard",
        "starts_waiting",
        "unsaved_bytes",
    )

    def __init__(
        self, shard: Surroundings, partition: Partition, *, commit_lsn: int, checkpoint_lsn: int
    ) -> None:
        self.shard = shard
        self.core = partition
        self.partition = partition.state.partition
        self.epoch = partition.state.epoch
        self.checkpoint_lsn = checkpoint_lsn
        self.cut_s = -math.inf
        """When the journal was cut, in time of the loop."""
        self.journal_bytes = 0
        """Written since the last checkpoint was captured."""
        self.unsaved_bytes = 0
        """Written since the state of the last checkpoint that is in the store."""
        self.starts_waiting = 0
        """Instances whose first turn was to come when the shard last counted them."""
        self.release = Release(commit_lsn)
        self.loader = Loader(
            shard.gathering, partition, admitted=self._admitted, failed=self.discard
        )
        self.loader.on_loaded = shard.meter.loaded
        self.lanes = Lanes(partition.state, shard.network, shard.clock)
        self.history = HistoryReader(shard.gathering, partition)
        self.rewinding = Rewinding(self.history, partition, failed=self.discard)
        self.reading = Reading(self)
        self.receiving = Receiving(self)
        self.on_seal: Callable[[int], None] | None = None
        """Called once after the next seal, when state and sealed LSN agree."""
        self.settled: list[OutcomeKey] = []
        """Outcomes of transactional activities to be dropped after the next checkpoint."""
        self.closed = False
        self.closing = False
        """It goes as whoever assigned it wants: no news to them."""
        self.draining = False
        """No activity is started any more; those pending are for the next owner."""
        self.frozen = False
        """No input of any kind is taken any more, and requests are refused."""
        self.checkpointing = asyncio.Lock()
        self.queued: dict[To, None] = {}
        """Requests that wait for something to be read, in order."""
        self._opened: Callable[[], None] | None = None
        self._progress: list[asyncio.Future[None]] = []
        self.forbidden: dict[str, str] = {}
        """Instances and entities whose code must not run, and why; see `condemning`."""

    def open(self, now: int, opened: Callable[[], None], blamed: Sequence[Blamed] = ()) -> None:
        """Begin to own the partition; `opened` is called once that is durable."""
        self._opened = opened
        if blamed:
            self.forbidden = condemn(self.core, blamed, now, self.shard.draw())
        self.core.take(self.epoch, now)
        for instance_id in list(self.core.state.aside):
            self._take_up(instance_id)
        self.shard.wake(self)

    def _admitted(self, resident: Resident, loaded: Whole) -> None:
        self.shard.admitted(self, resident, len(loaded.row.state))
        if loaded.chunks:
            self.history.keep(resident.instance_id, loaded.chunks)
        self._take_up(resident.instance_id)

    def _take_up(self, instance_id: str) -> None:
        """Bring what was put aside to an instance that can be read by now, or is gone."""
        core = self.core
        if instance_id in core.state.aside and instance_id not in core.quarantined:
            core.take_up(instance_id, self.shard.clock.now(), self.shard.draw())
            self.shard.wake(self)

    # -- inputs --------------------------------------------------------------------------------

    def submit(self, call: Forward, answer: Answering) -> None:
        """Take a client's request. The answer may come before this returns, or much later."""
        request = call.request
        counted = type(request) not in _WAITS
        to = To(call.seq, answer, counted, payload_bytes(request) if counted else 0)
        if to.counted:
            self.shard.requests_in_flight += 1
            self.shard.bytes_in_flight += to.bytes
        if self.frozen:
            self._refuse_moving(to)
        elif self.is_full() and isinstance(request, _GROWS):
            message = f"partition {self.partition} waits for its checkpoint to be written"
            self._refuse(to, r.Refusal("Overloaded", message, 1.0))
        else:
            self.look_again(call, to)

    def look_again(self, call: Forward, to: To) -> None:
        """Take a request as the instance is now, which may have to be looked up first."""
        if self._is_ready(call.instance_id, call.request):
            self._request(call, to)
        else:
            self._load_for(call, to)

    def _load_for(self, call: Forward, to: To) -> None:
        self.queued[to] = None

        def loaded() -> None:
            del self.queued[to]
            self._request(call, to)

        self.loader.load(call.instance_id, loaded, to_run=type(call.request) is r.Raise)

    def _is_ready(self, instance_id: str, request: r.Request) -> bool:
        if self.loader.is_loading(instance_id):
            return False
        if instance_id in self.core.quarantined:
            # Whoever has repaired it says so by resuming it.
            return not isinstance(request, r.Resume)
        return self.core.holds(instance_id) or (isinstance(request, r.Start) and request.fresh)

    def _request(self, call: Forward, to: To) -> None:
        if self.reading.take(call, to):
            return
        if isinstance(call.request, r.Resume):
            pardon(self, call.instance_id)
        now = self.shard.clock.now()
        core = self.core
        core.request(call.instance_id, call.request, call.origin, now, to)
        if core.entries or core.effects:  # not for a wait that goes on
            self.shard.wake(self)

    def forget(self, wait: Forward, answer: Answering) -> None:
        """Drop a wait, if it has not been answered."""
        waiters: list[Any] = self.core.waiters.get(wait.instance_id, [])
        left = [to for to in waiters if (to.seq, to.answer) != (wait.seq, answer)]
        if left:
            self.core.waiters[wait.instance_id] = left
        else:
            self.core.waiters.pop(wait.instance_id, None)

    def activity_ended(self, run: RunActivity, outcome: Raw | Failure) -> None:
        """Take the outcome of an attempt. Called by tasks of activities, so a bug stops here."""
        if self.frozen:
            return
        shard = self.shard
        draw = shard.draw() if type(outcome) is Failure else 0.0
        try:
            self.core.activity_ended(run, outcome, shard.clock.now(), draw)
        except Exception as error:
            logger.exception("partition=%d stops", self.partition)
            self.discard(f"{type(error).__name__}: {error}")
            return
        if run.name in shard.transactional and isinstance(outcome, Raw):
            key = (run.instance_id, run.execution_id, run.task_id)
            self.settled.append(OutcomeKey(self.partition, *key))
        shard.wake(self)

    def receive(self, message: Deliver | Acknowledge | Resend) -> None:
        """Take a message of another partition's host; what is not taken is sent again."""
        if self.frozen:
            return
        match message:
            case Acknowledge(_, destination, last):
                if self._is_of_our_era(message.epoch):
                    self.core.acknowledged(destination, last)
            case Resend(_, destination, first):
                self.lanes.resend(destination, first, self.release_of_lane(destination))
            case Deliver():
                if not self.is_full() and self._is_of_our_era(message.epoch):
                    self.receiving.take(message)

    def _is_of_our_era(self, epoch: int) -> bool:
        """Whether who speaks lives in the same history of the store as we do.

        After a fail-over that lost something, memory of before speaks of what never happened.
        """
        return epoch == 0 or era_of(epoch) == era_of(self.epoch)

    def ask_again(self) -> None:
        """Tell others which of their messages come next: some may have come in vain."""
        for source, last in self.core.state.received.items():
            self.shard.network.send(source, Resend(source, self.partition, last + 1))

    def release_of_lane(self, destination: int) -> int:
        """Return the last sequence number of a lane that may leave."""
        return self.lanes.durable.get(destination, 0)

    def fire(self, now: int) -> None:
        """Fire what is due."""
        if self.frozen:
            return
        for instance_id in self.core.fire(now, FIRE_MAX):
            self.loader.load(instance_id, lambda: self.shard.wake(self), to_run=True)
        self.shard.wake(self)

    # -- commits -------------------------------------------------------------------------------

    def run_turns(self, deadline_s: float) -> bool:
        """Run code that has news until then; return whether there is more to do."""
        return not (self.frozen or self.is_full()) and self.shard.turns.run(self, deadline_s)

    def is_full(self) -> bool:
        """Whether so much is in no checkpoint that nothing more is taken on until one is."""
        return self.unsaved_bytes >= self.shard.unsaved_bytes_max

    def saved(self, journal_bytes: int) -> None:
        """Note that so much of the journal is in a checkpoint now."""
        was_full = self.is_full()
        self.unsaved_bytes -= journal_bytes
        if was_full and not self.is_full() and not self.closed:
            logger.warning("partition=%d goes on, its checkpoint is written", self.partition)
            self.shard.wake(self)

    def seal(self) -> Append | None:
        """Return the next record; effects without one go out with what is in flight."""
        if self.closed:
            return None
        sealed = self.core.seal()
        lsn = self.release.seal(has_record=bool(sealed.entries), effects=sealed.effects)
        record = None
        if sealed.entries:
            if not self.checkpointing.locked():
                for instance in self.core.tally.ended:
                    self.history.pack(instance)
            self.shard.meter.count(self.core.tally)
            encoded = encode_record(sealed.entries)
            was_full = self.is_full()
            self.journal_bytes += len(encoded)
            self.unsaved_bytes += len(encoded)
            if self.is_full() and not was_full:
                logger.error(
                    "partition=%d stands still: %d bytes of its journal are in no checkpoint",
                    self.partition,
                    self.unsaved_bytes,
                )
            record = Append(self.partition, self.epoch, lsn, encoded)
        if self.on_seal is not None:
            captured, self.on_seal = self.on_seal, None
            captured(lsn)
        if record is None:
            self._perform(self.release.until(self.release.durable))
        return record

    def committed(self, lsn: int) -> None:
        """Release what waited for the record."""
        if self.closed:
            return
        self._perform(self.release.until(lsn))
        if self._progress:
            self._tell_progress()
        if self._opened is not None:
            opened, self._opened = self._opened, None
            opened()

    async def durable_soon(self) -> None:
        """Wait until more is durable, or the partition is discarded."""
        progress = asyncio.get_running_loop().create_future()
        self._progress.append(progress)
        await progress

    def _tell_progress(self) -> None:
        for progress in self._progress:
            if not progress.done():
                progress.set_result(None)
        self._progress.clear()

    def speculate(self) -> None:
        """Start activities that need not wait for their record."""
        runs, self.core.speculative = self.core.speculative, []
        if not self.draining:
            for run in runs:
                self.shard.pool.start(self, run)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if type(effect) is RunActivity:
                if not self.draining:
                    self.shard.pool.start(self, effect)
                continue
            if type(effect) is Reply:
                self._reply(effect)
                continue
            match effect:
                case CancelActivity():
                    self.shard.pool.cancel(effect)
                case Send(destination, last):
                    self.lanes.transmit(destination, last)
                case Confirm(source, last):
                    acknowledge = Acknowledge(source, self.partition, last, self.epoch)
                    self.shard.network.send(source, acknowledge)
                case Observed(tell):
                    tell()

    # -- answers -------------------------------------------------------------------------------

    def _reply(self, reply: Reply) -> None:
        to: Any = reply.to
        if not self.shard.may_answer():
            self._refuse_moving(to)  # also instead of a "no" that may be stale
        elif type(reply.result) is r.Refusal:
            self._refuse(to, reply.result)
        else:
            self._answer(to, reply.result)

    def _answer(self, to: To, result: r.Result | None) -> None:
        self._settled(to)
        encoded = result if type(result) is Raw else Raw(_encode(result))
        to.answer(Answer(to.seq, encoded))

    def _refuse(self, to: To, refusal: r.Refusal) -> None:
        self._settled(to)
        to.answer(Answer(to.seq, refusal=refusal))

    def _settled(self, to: To) -> None:
        if to.counted:
            self.shard.requests_in_flight -= 1
            self.shard.bytes_in_flight -= to.bytes

    def _refuse_moving(self, to: To) -> None:
        message = f"partition {self.partition} is moving to another owner"
        self._refuse(to, r.Refusal("PartitionUnavailable", message, 0.1))

    # -- the end -------------------------------------------------------------------------------

    def wind_down(self) -> None:
        """Start no more activities; everything else goes on."""
        self.draining = True

    def freeze(self) -> None:
        """Take nothing more in, so that a checkpoint can be the last one.

        Nothing is lost by that: messages are kept by their senders, timers and news by the
        state, an activity whose outcome comes now runs again, and who is refused, or waited
        here, asks the next owner.
        """
        self.draining = self.frozen = True
        self.loader.close()
        self.history.forget()
        for to in self._take_waiters():
            self._refuse_moving(to)
        self._refuse_queued()

    def _refuse_queued(self) -> None:
        queued, self.queued = self.queued, {}
        for to in queued:
            self._refuse_moving(to)

    def _take_waiters(self) -> list[To]:
        waiters: list[Any] = [to for each in self.core.waiters.values() for to in each]
        self.core.waiters.clear()
        return waiters

    def discard(self, broken: str = "") -> None:
        """Throw the memory away: somebody else owns the partition, or it cannot go on.

        Nothing that is not durable has been seen by anybody, so nothing is undone.
        """
        if self.closed:
            return
        self.closed = self.frozen = self.draining = True
        self.loader.close()
        self.history.forget()
        self.shard.pool.cancel_all(self)
        for instance_id in [*self.core.instances, *self.core.abandoned]:
            self.shard.turns.drop(instance_id)
        unanswered: list[Any] = [
            effect.to
            for effect in [*self.release.drain(), *self.core.effects]
            if isinstance(effect, Reply)
        ]
        for to in [*unanswered, *self._take_waiters()]:
            self._refuse_moving(to)
        self._refuse_queued()
        self._tell_progress()
        self.shard.gone(self, broken)
