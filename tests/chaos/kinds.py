"""What the load consists of: how each kind of instance is started, fed and judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.chaos import app

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Sent:
    """What the senders of one instance know about their events."""

    acknowledged: dict[int, list[int]] = field(default_factory=dict)
    """For each sender its numbers that were acknowledged, in the order they were sent."""
    unknown: dict[int, list[int]] = field(default_factory=dict)
    """And those that ended in an error, which may have arrived or not."""


@dataclass(frozen=True)
class Kind:
    """A kind of instance. `wrong` tells what is wrong with a result, or nothing."""

    name: str
    wrong: Callable[[Any, Sent], str]
    input: Any = None
    has_senders: bool = False


def returns(expected: Any) -> Callable[[Any, Sent], str]:
    def wrong(result: Any, _: Sent) -> str:
        return "" if result == expected else f"returned {result!r} instead of {expected!r}"

    return wrong


def wrong_transfer(result: dict[str, Any], _: Sent) -> str:
    """What it has done to the purses is looked at when all have ended."""
    return "" if result["amount"] > 0 else f"returned {result!r}"


def wrong_items(items: list[dict[str, Any]], sent: Sent) -> str:
    """Compare what an instance collected with what its senders know.

    What was acknowledged must be there once, in the order of its sender; what was not, at
    most once; and nothing else.
    """
    for sender in range(app.SENDERS):
        received = [each["number"] for each in items if each["sender"] == sender]
        numbers = [
            each["number"] for each in items if each["sender"] == sender and not each["last"]
        ]
        acknowledged = sent.acknowledged.get(sender, [])
        unknown = set(sent.unknown.get(sender, []))
        if len(set(numbers)) != len(numbers):
            return f"sender {sender}: delivered twice: {received}"
        certain = [number for number in numbers if number not in unknown]
        if certain != acknowledged:
            return f"sender {sender}: acknowledged {acknowledged}, delivered {received}"
    return ""


KINDS = (
    Kind("sequence", returns(list(app.CITIES))),
    Kind("timers", returns(["slept"] * 3 + ["timed out"])),
    Kind("collect", wrong_items, has_senders=True),
    Kind("collect_anew", wrong_items, has_senders=True),
    Kind("relay", returns(list(range(app.RELAYED)))),
    Kind("tree", returns(app.TREE_WIDTH**app.TREE_DEPTH), input=app.TREE_DEPTH),
    Kind("fan", returns([str(number) for number in range(app.FAN_WIDTH)])),
    Kind("retries", returns([f"{label} {app.FLAKY_ATTEMPTS}" for label in ("first", "second")])),
    Kind("transfer", wrong_transfer),
    Kind("generations", returns(app.GENERATIONS), input=1),
)
