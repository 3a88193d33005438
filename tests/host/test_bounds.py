"""What is refused because it is too large or cannot be stored."""

from __future__ import annotations

import pytest
from msgspec import Raw

from shardrt.config import Settings
from shardrt.core.history import (
    Action,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    EventSent,
    Quota,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
)
from shardrt.core.limiter import Numbers, limiter_id
from shardrt.core.work import Completed, Continued, Failed, Step
from shardrt.host.bounds import Bounds

BOUNDS = Bounds(Settings().limits)
LARGE = Raw(b'"' + b"x" * Settings().limits.payload_bytes_max + b'"')
SMALL = Raw(b"1")


def test_an_ordinary_step_passes_as_it_is() -> None:
    step = Step("i", "e", 0, (TaskScheduled(1, "a", SMALL),), Completed(SMALL), SMALL)
    assert BOUNDS.step(step) is step


@pytest.mark.parametrize(
    "step",
    [
        Step("i", "e", 3, (TaskScheduled(1, "a", LARGE),)),
        Step("i", "e", 3, (EventSent(1, "other", "name", LARGE),)),
        Step("i", "e", 3, (SubOrchestrationInstanceCreated(1, "child", "name", LARGE),)),
        Step("i", "e", 3, outcome=Completed(LARGE)),
        Step("i", "e", 3, outcome=Continued(LARGE)),
        Step("i", "e", 3, custom_status=LARGE),
    ],
)
def test_a_step_with_too_large_a_payload_fails_instead(step: Step) -> None:
    checked = BOUNDS.step(step)
    assert (checked.actions, checked.turn) == ((), 3)
    assert isinstance(checked.outcome, Failed)
    assert checked.outcome.failure.type == "PayloadTooLarge"
    assert "4194306 bytes, more than 4194304" in checked.outcome.failure.message


def test_a_payload_must_not_be_nested_so_deeply_that_its_record_could_not_be_read() -> None:
    limit = Settings().limits.json_depth_max
    assert BOUNDS.payload(Raw(b"[" * limit + b"]" * limit), "it") is None
    deep = Raw(b"[" * (limit + 1) + b"]" * (limit + 1))
    assert BOUNDS.payload(deep, "it") == f"it is nested more than {limit} deep"


def test_brackets_in_texts_are_not_nesting() -> None:
    assert BOUNDS.payload(Raw(b'"' + b'[{\\"' * 500 + b'"'), "it") is None


@pytest.mark.parametrize("text", [b'"\xff\xfe"', b"{", b'"\\x"', b"nul"])
def test_what_a_client_sends_must_be_json(text: bytes) -> None:
    assert "it is not JSON" in (BOUNDS.foreign(Raw(text), "it") or "")


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "", "x" * 256])
def test_a_step_cannot_bring_an_id_that_no_database_takes(text: str) -> None:
    child = SubOrchestrationInstanceCreated(1, text, "name", SMALL)
    checked = BOUNDS.step(Step("i", "e", 0, (child,)))
    assert isinstance(checked.outcome, Failed)
    assert checked.outcome.failure.type == "InputInvalid"


@pytest.mark.parametrize(
    "action",
    [
        EventSent(1, 5, "name", SMALL),  # type: ignore[arg-type]
        EventSent(1, "other", 5, SMALL),  # type: ignore[arg-type]
        SubOrchestrationInstanceCreated(1, "child", "name", SMALL, 5),  # type: ignore[arg-type]
        SubOrchestrationInstanceCreated(1, "child", "name", SMALL, "\ud800"),
        SubOrchestrationInstanceCreated(1, "child", "name", SMALL, "a\x00b"),
    ],
)
def test_a_step_cannot_bring_what_its_record_could_not_be_read_with(action: Action) -> None:
    checked = BOUNDS.step(Step("i", "e", 0, (action,)))
    assert isinstance(checked.outcome, Failed)
    assert checked.outcome.failure.type == "InputInvalid"


@pytest.mark.parametrize(
    "action",
    [
        SubOrchestrationInstanceCreated(1, "@$limit@api", "name", SMALL),
        EventSent(1, "@$limit@api", "name", SMALL),
        EntityOperationCalled(1, "@$limit@api", "name", SMALL),
        EntityOperationSignaled(1, "@$limit@api/acme", "name", SMALL),
        EntityLockRequested(1, "section", ("@a@b", "@$limit@api")),
    ],
)
def test_a_step_cannot_ask_anything_of_a_limiter(action: Action) -> None:
    checked = BOUNDS.step(Step("i", "e", 0, (action,)))
    assert isinstance(checked.outcome, Failed)
    assert "is reserved" in checked.outcome.failure.message


@pytest.mark.parametrize("key", ["a\x00b", "\ud800", "x" * 256])
def test_the_key_of_a_limit_is_part_of_an_id(key: str) -> None:
    quota = Quota(limiter=limiter_id("api", key), numbers=Numbers(1))
    checked = BOUNDS.step(Step("i", "e", 0, (TaskScheduled(1, "a", SMALL, limit=quota),)))
    assert isinstance(checked.outcome, Failed)
    assert checked.outcome.failure.message.startswith("limit of activity 'a': an instance id")


@pytest.mark.parametrize("text", ["order-1", "Bestellung Nr. 7 ü", "日本", "x" * 255])
def test_ids_may_be_any_other_text(text: str) -> None:
    assert BOUNDS.instance_id(text) is None
