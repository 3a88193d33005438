"""Whether a death proves anything against the code that the event loop was in. Pure.

Somebody kills a busy shard, or the system does for lack of memory: whatever its loop was in then
happened to be there, and what happens to be there is mostly what runs most. An activity in a
thread that crashes, or keeps the interpreter's lock, looks the same from the loop. So a death
is proof only if the thread of the loop was computing while its beats failed to come, or if the
process crashed and there was no other code in it.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.host.black_box import Found

SILENT_S = 1.0
"""Beats come twice a second: from such a silence on it is looked at what the loop computes."""
WATCHED_S = 0.5
"""So long at least."""
SHARE = 0.1
"""Of the time that the thread of the loop must have been computing. One that waits for a lock, or
is stopped, takes next to nothing; on a busy machine one that spins takes less than all."""
CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
)
"""Signals that code brings on itself."""


@dataclass(slots=True)
class Silence:
    """What is known of a loop that has sent no beat."""

    heard_s: float
    from_s: float
    from_cpu_s: float
    until_s: float
    until_cpu_s: float


@dataclass(slots=True)
class Watch:
    """Watches what the loop of one child computes while it is silent."""

    silence: Silence | None = None

    def look(self, now_s: float, heard_s: float, cpu_s: Callable[[], float | None]) -> None:
        """Take note, some times a second.

        Args:
            now_s: monotonic time.
            heard_s: when the child was heard of last.
            cpu_s: tells what the thread of its loop has computed so far; None if that is unknown.
        """
        if self.silence is not None and self.silence.heard_s != heard_s:
            self.silence = None
        if now_s - heard_s < SILENT_S or (used_s := cpu_s()) is None:
            return
        if self.silence is None:
            self.silence = Silence(heard_s, now_s, used_s, now_s, used_s)
        else:
            self.silence.until_s, self.silence.until_cpu_s = now_s, used_s

    @property
    def has_spun(self) -> bool:
        """Whether the loop has been computing instead of turning."""
        silence = self.silence
        if silence is None:
            return False
        watched_s = silence.until_s - silence.from_s
        return (
            watched_s >= WATCHED_S and silence.until_cpu_s - silence.from_cpu_s >= SHARE * watched_s
        )


def is_proof(found: Found, code: int, *, has_spun: bool) -> bool:
    """Return whether the code that the loop was in has ended the process.

    Args:
        found: what the process has left.
        code: its exit code, negative for a signal.
        has_spun: see `Watch`.
    """
    if found.in_loop is None:
        return False
    crashed = code > 0 or -code in CRASHES
    return has_spun or (crashed and not found.alone and not found.in_threads)
