"""The effects of activities, kept outside of the runtime.

One line per effect, appended with a single write to a file opened for appending. So a line is
there as soon as the write returns, whoever is killed next, and lines of several processes do
not mix. (Only a crash of the machine could lose some, and that is not what we play here.)
"""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

PATH_VARIABLE = "CHAOS_LEDGER"


@dataclass(frozen=True)
class Effect:
    """One run of an activity."""

    instance_id: str
    execution_id: str
    task_id: int
    attempt: int
    token: str
    """Made for this run; the activity returns it, so that its outcome names its effect."""


def record(instance_id: str, execution_id: str, task_id: int, attempt: int) -> str:
    """Append an effect to the ledger named in the environment; return its token."""
    token = uuid.uuid4().hex
    line = msgspec.json.encode(Effect(instance_id, execution_id, task_id, attempt, token)) + b"\n"
    descriptor = os.open(os.environ[PATH_VARIABLE], os.O_WRONLY | os.O_APPEND)
    try:
        assert os.write(descriptor, line) == len(line)
    finally:
        os.close(descriptor)
    return token


class Ledger:
    """All effects, by the call that had them."""

    def __init__(self, path: Path) -> None:
        self._effects: dict[tuple[str, int], list[Effect]] = defaultdict(list)
        decode = msgspec.json.Decoder(Effect).decode
        with path.open("rb") as lines:
            for line in lines:
                effect = decode(line)
                self._effects[effect.instance_id, effect.task_id].append(effect)

    def __len__(self) -> int:
        return sum(map(len, self._effects.values()))

    def tokens(self, instance_id: str, task_id: int) -> set[str]:
        """Return the tokens of all runs of a call, in whichever execution."""
        return {effect.token for effect in self._effects.get((instance_id, task_id), ())}

    def repeated(self) -> int:
        """Return how many effects happened more than once for one attempt."""
        runs = [
            (effect.execution_id, effect.attempt, key)
            for key, effects in self._effects.items()
            for effect in effects
        ]
        return len(runs) - len(set(runs))
