"""What neither clients nor code may bring in: too large, or not storable.

One value that a database refuses would stop the commits of a whole partition, so names and ids
are checked at the door, wherever they come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shardrt.core.history import (
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    EventSent,
    Failure,
    PatchMarked,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
)
from shardrt.core.json_text import is_deeper
from shardrt.core.limiter import is_limiter_id
from shardrt.core.work import Completed, Continued, Failed, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec import Raw

    from shardrt.config import LimitSettings
    from shardrt.core.history import Action


_ADDRESSED = (
    SubOrchestrationInstanceCreated,
    EventSent,
    EntityOperationCalled,
    EntityOperationSignaled,
)
_WITH_INPUT = (
    TaskScheduled,
    SubOrchestrationInstanceCreated,
    EntityOperationCalled,
    EntityOperationSignaled,
)


NAMES_SEEN_MAX = 10_000


class Bounds:
    """The limits of one host, as questions. Each answers with what is wrong, or None."""

    def __init__(self, limits: LimitSettings) -> None:
        self._id_chars_max = limits.instance_id_chars_max
        self._name_chars_max = limits.name_chars_max
        self._payload_bytes_max = limits.payload_bytes_max
        self._depth_max = limits.json_depth_max
        self.small = min(2 * self._depth_max, self._payload_bytes_max)
        """Payloads of so many bytes are neither too large nor too deep."""
        self._names_seen: set[str] = set()
        """Names of activities that were found to be good."""

    def instance_id(self, instance_id: str) -> str | None:
        """Return what is wrong with an instance id."""
        return _text_problem(instance_id, "an instance id", self._id_chars_max)

    def name(self, name: str, what: str) -> str | None:
        """Return what is wrong with the name of something."""
        return _text_problem(name, what, self._name_chars_max)

    def version(self, version: str | None) -> str | None:
        """Return what is wrong with the version of an orchestrator, if one is named."""
        return None if version is None else self.name(version, "a version")

    def payload(self, payload: Raw, what: str) -> str | None:
        """Return what is wrong with the size or depth of a payload."""
        size = len(memoryview(payload))
        if size > self._payload_bytes_max:
            return f"{what} has {size} bytes, more than {self._payload_bytes_max}"
        if size > 2 * self._depth_max and is_deeper(payload, self._depth_max):
            return f"{what} is nested more than {self._depth_max} deep"
        return None

    def foreign(self, payload: Raw, what: str) -> str | None:
        """Return what is wrong with a payload that was not encoded here.

        Links pass payloads on unread, so this is where text that is no JSON is found.
        """
        try:
            msgspec.json.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return f"{what} is not JSON: {error}"
        return None

    def step(self, step: Step) -> Step:
        """Return the step, or in its place a failed one if it asks for what cannot be."""
        failure = self._step_failure(step)
        if failure is None:
            return step
        return Step(step.instance_id, step.execution_id, step.turn, outcome=Failed(failure))

    def is_plain(self, step: Step) -> bool:
        """Whether it is one that `step` need not look at, as most are."""
        for action in step.actions:
            if (
                type(action) is not TaskScheduled
                or action.limit is not None
                or action.name not in self._names_seen
                or len(memoryview(action.input)) > self.small
            ):
                return False
        if step.custom_status is not None:
            return False
        outcome = step.outcome
        return outcome is None or (
            type(outcome) is Completed and len(memoryview(outcome.result)) <= self.small
        )

    def _step_failure(self, step: Step) -> Failure | None:
        for action in step.actions:
            problem = self._action_problem(action)
            if problem is not None:
                return Failure(type="InputInvalid", message=problem)
        if isinstance(step.outcome, Continued):
            problem = self.version(step.outcome.version)
            if problem is not None:
                return Failure(type="InputInvalid", message=problem)
        for what, name, payload in _payloads_of(step):
            problem = self.payload(payload, what)
            if problem is not None:
                message = f"{problem} ({name})" if name else problem
                return Failure(type="PayloadTooLarge", message=message)
        return None

    def _addressed(self, instance_id: str) -> str | None:
        """Return what is wrong with an id that code asks something of."""
        return self.instance_id(instance_id) or _reserved(instance_id)

    def _activity_problem(self, action: TaskScheduled) -> str | None:
        problem = None if action.limit is None else self.instance_id(action.limit.limiter)
        if problem is not None:
            return f"limit of activity {action.name!r}: {problem}"
        problem = self.name(action.name, "the name of an activity")
        if problem is None and len(self._names_seen) < NAMES_SEEN_MAX:
            self._names_seen.add(action.name)
        return problem

    def _action_problem(self, action: Action) -> str | None:
        if isinstance(action, TaskScheduled):
            return self._activity_problem(action)
        if isinstance(action, _ADDRESSED):
            problem = self._addressed(action.instance_id) or self.name(action.name, "a name")
            if type(action) is SubOrchestrationInstanceCreated:
                return problem or self.version(action.version)
            return problem
        if isinstance(action, EntityLockRequested):
            problems = (self._addressed(each) for each in action.entities)
            return next((each for each in problems if each is not None), None)
        if isinstance(action, PatchMarked):
            return self.name(action.name, "the name of a patch")
        return None


def _reserved(instance_id: str) -> str | None:
    return f"{instance_id!r} is reserved" if is_limiter_id(instance_id) else None


def _text_problem(text: object, what: str, chars_max: int) -> str | None:
    if not isinstance(text, str):
        return f"{what} is a text, not {text!r}"
    if not 0 < len(text) <= chars_max:
        return f"{what} has 1 to {chars_max} characters, not {len(text)}"
    if text.isascii() and text.isprintable():
        return None
    if "\x00" in text:
        return f"{what} has no NUL characters"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{what} is valid Unicode, without unpaired surrogates"
    return None


def _payloads_of(step: Step) -> Iterator[tuple[str, str, Raw]]:
    """Yield what a step brings, with a name for each."""
    for action in step.actions:
        if isinstance(action, _WITH_INPUT):
            yield "input", action.name, action.input
        elif isinstance(action, EventSent):
            yield "event", action.name, action.data
    if step.custom_status is not None:
        yield "custom status", "", step.custom_status
    if isinstance(step.outcome, Completed):
        yield "output", "", step.outcome.result
    elif isinstance(step.outcome, Continued):
        yield "input of the next execution", "", step.outcome.input
