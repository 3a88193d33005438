"""Messages of other partitions, in the order of their streams.

What concerns an instance that is not in memory waits for it to be loaded, and everything behind
it in its stream waits with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardrt.links.messages import Deliver, Resend

if TYPE_CHECKING:
    from shardrt.host.partition_host import PartitionHost


class Receiving:
    """Takes the streams that come to one partition."""

    __slots__ = ("_host", "_waiting")

    def __init__(self, host: PartitionHost) -> None:
        self._host = host
        self._waiting: dict[int, list[Deliver]] = {}
        """By source, the first of which waits for a load."""

    def take(self, message: Deliver) -> None:
        """Take what comes next in its stream; what was taken before is only confirmed again."""
        waiting = self._waiting.get(message.source)
        if waiting is not None:
            # Streams are in order: it must not overtake what waits for a load. That may take so
            # long that all of it is sent again, and again.
            if _last_of(message) > _last_of(waiting[-1]):
                waiting.append(message)
            return
        missing = self._missing(message)
        if not missing:
            self._accept(message)
            return
        self._waiting[message.source] = [message]

        def loaded() -> None:
            for each in self._waiting.pop(message.source):
                self._take_loaded(each, missing)

        # Together: if those in memory left it meanwhile, they would be read next, and so on.
        beside = [each.instance_id for each in message.messages]
        self._host.loader.load_all(missing, loaded, beside=beside)

    def _take_again(self, source: int) -> None:
        if not self._host.frozen:
            for each in self._waiting.pop(source):
                self.take(each)

    def _take_loaded(self, message: Deliver, loaded: list[str]) -> None:
        # What was looked up and is not in memory does not exist. Messages that queued up
        # behind may concern instances not looked up yet.
        if message.source in self._waiting or set(self._missing(message)) - set(loaded):
            self.take(message)
        else:
            self._accept(message)

    def _missing(self, message: Deliver) -> list[str]:
        core, is_loading = self._host.core, self._host.loader.is_loading
        last = core.state.received.get(message.source, 0)
        return [
            each.instance_id
            for seq, each in enumerate(message.messages, message.first)
            if seq > last
            and (not core.holds(each.instance_id) or is_loading(each.instance_id))
            and each.instance_id not in core.quarantined
        ]

    def _accept(self, message: Deliver) -> None:
        host, source = self._host, message.source
        if not host.rewinding.prepare(message, lambda: self._take_again(source)):
            self._waiting[source] = [message]
            return
        shard = host.shard
        histories = host.rewinding.take(message)
        now = shard.clock.now()
        messages = shard.turns.pinned(message.messages)
        draw = shard.draw()
        again = host.core.receive(source, message.first, messages, now, draw, histories)
        if again is not None:
            shard.network.send(source, Resend(source, host.partition, again))
        shard.wake(host)


def _last_of(message: Deliver) -> int:
    """Return the sequence number of its last message."""
    return message.first + len(message.messages) - 1
