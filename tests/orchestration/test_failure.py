"""Exceptions as data."""

from __future__ import annotations

from shardrt.core.history import Failure
from shardrt.errors import ActivityFailed, InputInvalid
from shardrt.orchestration.failure import CAUSES_MAX, failure_of


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause  # noqa: TRY301
    except BaseException as caught:  # noqa: BLE001
        return caught


def test_type_message_and_traceback_are_kept():
    failure = failure_of(raised(LookupError("gone")))
    assert (failure.type, failure.message, failure.cause) == ("LookupError", "gone", None)
    assert "in raised" in failure.details
    assert failure.details.endswith("LookupError: gone\n")


def test_the_cause_or_else_the_context_follows():
    explicit = failure_of(raised(ValueError("a"), KeyError("b")))
    assert explicit.cause is not None
    assert explicit.cause.type == "KeyError"
    implicit = ValueError("a")
    implicit.__context__ = OSError("c")
    assert failure_of(implicit).cause == failure_of(OSError("c"))
    implicit.__suppress_context__ = True
    assert failure_of(implicit).cause is None


def test_the_failure_of_an_activity_is_the_cause():
    original = Failure(type="Declined", message="no money", cause=Failure(type="Deeper"))
    assert failure_of(ActivityFailed(original)).cause is original


def test_the_first_of_a_group_is_the_cause():
    group = ExceptionGroup("several", [ValueError("first"), ValueError("second")])
    failure = failure_of(group)
    assert failure.cause is not None
    assert (failure.type, failure.cause.message) == ("ExceptionGroup", "first")


def test_input_that_does_not_fit_will_never_fit():
    assert failure_of(InputInvalid("x")).non_retryable
    assert not failure_of(ValueError("x")).non_retryable


def test_endless_chains_end():
    error = ValueError("x")
    error.__context__ = KeyError("y")
    error.__context__.__context__ = error
    length, failure = 0, failure_of(error)
    while failure.cause is not None:
        length, failure = length + 1, failure.cause
    assert length == CAUSES_MAX


def test_broken_exceptions_are_recorded_all_the_same():
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    failure = failure_of(raised(BrokenError()))
    assert failure.message == "<BrokenError whose text cannot be made>"

    class Unreadable(Exception):
        @property
        def __notes__(self) -> list[str]:  # type: ignore[override]
            raise RuntimeError("no notes")

    assert failure_of(Unreadable("x")).message == "x"
    assert failure_of(ValueError("\ud800")).message == "\\ud800"
