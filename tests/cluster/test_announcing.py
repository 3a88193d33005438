"""What clients that know several hosts are told of each."""

from __future__ import annotations

from typing import Any

from shardrt.cluster.announcing import Announcer
from shardrt.links.messages import Serving


class Sent:
    """A link of which only what was sent counts."""

    is_open = True
    is_congested = False

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def send(self, message: Any) -> None:
        self.messages.append(message)

    def close(self) -> None: ...


def test_who_has_asked_is_told_at_once_and_when_it_changes() -> None:
    announcer, early, late, gone = Announcer(), Sent(), Sent(), Sent()
    announcer.join(early)
    announcer.join(gone)
    announcer.set_routes(["/one", None, "http://there#b/1", "/two"])
    announcer.leave(gone)
    announcer.leave(Sent())  # has not asked
    announcer.join(late)
    announcer.set_routes(["/two", None, "http://elsewhere#c/1", "/two"])  # all the same to them
    announcer.set_routes(["/two", "/one", "http://there#b/1", None])
    announcer.set_routes(["/two", "/one", "http://there#b/1", None], 2)
    told = [Serving((), 0), Serving((0, 3), 0), Serving((0, 1), 0), Serving((0, 1), 2)]
    assert early.messages == told
    assert late.messages == told[1:]
    assert gone.messages == told[:2]
