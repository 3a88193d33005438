"""What operators are told of instances in the log: that one is parked, or has failed.

A line each, without inputs, but a few only for the instances of one name within a minute: a bad
release parks all of them. How many more there were is said when the minute is over.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.core.state import Instance

logger = logging.getLogger(__name__)

LINES_MAX = 3
"""Lines about one name that say the same of several instances, within a minute."""
WINDOW_S = 60.0
TEXT_CHARS_MAX = 1000
"""Of a reason or message."""


class _Window:
    """The minute since the first of these lines."""

    __slots__ = ("count", "ends_s")

    def __init__(self, ends_s: float) -> None:
        self.ends_s = ends_s
        self.count = 0


class Notices:
    """Those of one shard."""

    def __init__(self, monotonic_s: Callable[[], float], *, sealed: bool = False) -> None:
        self._monotonic_s = monotonic_s
        self._sealed = sealed
        """Whether payloads are not to be read: texts of errors may tell what is in them."""
        self._windows: dict[tuple[str, str], _Window] = {}
        """What has happened, and the name of what it has happened to → its minute."""

    def parked(self, instance_id: str, name: str, reason: str) -> None:
        """Tell that the code of an instance or entity cannot go on."""
        self._tell("is parked", instance_id, name, reason)

    def failed(self, instance: Instance) -> None:
        """Tell that an instance has failed."""
        failure = instance.failure
        text = "" if failure is None else failure.type
        if failure is not None and not self._sealed:
            text += f": {failure.message}"
        self._tell("has failed", instance.instance_id, instance.name, text)

    def _tell(self, what: str, instance_id: str, name: str, text: str) -> None:
        window = self._windows.get((what, name))
        if window is None:
            window = self._windows[what, name] = _Window(self._monotonic_s() + WINDOW_S)
        window.count += 1
        if window.count <= LINES_MAX:
            said = " ".join(text.split())[:TEXT_CHARS_MAX]
            logger.warning("instance=%s name=%s %s: %s", instance_id, name, what, said)

    def tick(self) -> None:
        """Say how many were left out, of minutes that are over. To be called now and then."""
        now_s = self._monotonic_s()
        for (what, name), window in list(self._windows.items()):
            if window.ends_s <= now_s:
                del self._windows[what, name]
                if (more := window.count - LINES_MAX) > 0:
                    logger.warning("name=%s %d more: each %s", name, more, what)
