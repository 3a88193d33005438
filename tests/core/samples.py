"""One of everything that the journal can hold, and how to draw any number of others."""

from __future__ import annotations

import enum
import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Raw

from shardrt.core import entity as en, entries as e, history as h, messages as m
from shardrt.core.limiter import Limiter, Numbers, slot_of
from shardrt.core.requests import Origin
from shardrt.core.state import Child, Head, Instance, Lane, Leaving, Pending, Section, Session
from shardrt.core.work import Canceled, Completed, Continued, Failed, Parked

CAUSE = h.Failure(type="KeyError", message="'x'")
FAILURE = h.Failure(
    type="OSError", message="broken", details="line 1\nline 2", non_retryable=True, cause=CAUSE
)
RETRY = h.Retry(
    max_attempts=3,
    first_interval=1_000_000,
    backoff=1.5,
    max_interval=9_000_000,
    timeout=60_000_000,
    jitter=0.1,
    non_retryable=("ValueError",),
)
ORIGIN = Origin("client-1", 7, 5)
PARENT = h.Parent("p", "p-exec", 4, "parent")
EVENT = h.EventRaised(21, "go", Raw(b'"now"'))

ACTIONS: tuple[h.Action, ...] = (
    h.TaskScheduled(0, "act", Raw(b"[1]"), RETRY, 30_000_000, speculative=True),
    h.TaskCanceled(1),
    h.TimerCreated(2, 99),
    h.TimerCanceled(3),
    h.SubOrchestrationInstanceCreated(4, "kid", "code", Raw(b"{}"), "2", RETRY),
    h.EventSent(5, "other", "go", Raw(b"null")),
    h.PatchMarked("tax", deprecated=True),
)
ENTITY_ACTIONS: tuple[h.Action, ...] = (
    h.EntityOperationCalled(6, "@acc@a", "add", Raw(b"1"), "a-exec:5"),
    h.EntityOperationSignaled(7, "@acc@a", "add", Raw(b"2"), 99),
    h.EntityLockRequested(8, "a-exec:8", ("@acc@a", "@acc@b")),
    h.EntityUnlockSent(9, "a-exec:8", "@acc@a"),
)
QUOTA = h.Quota(limiter="@$limit@api/acme", numbers=Numbers(2, 100, 60_000_000))
LIMITED = h.TaskScheduled(10, "act", Raw(b"[1]"), limit=QUOTA)
HISTORY: tuple[h.HistoryEvent, ...] = (
    h.ExecutionStarted(12, "code", Raw(b'{"n":1}'), "2", PARENT, {"k": "v"}),
    h.ExecutionSuspended(22, "lunch"),
    h.ExecutionResumed(23, "back"),
    h.OrchestratorStarted(24),
    EVENT,
    h.TaskScheduled(0, "act", Raw(b"[1]")),
    h.ExecutionRewound(25, "again"),
)
OUTCOMES = (
    Completed(Raw(b"1")),
    Failed(FAILURE),
    Continued(Raw(b"2"), (EVENT,), "3"),
    Parked("no such code"),
)
CANCEL = h.CancelRequested(29, "enough")
CANCELED = (Canceled("enough"), Continued(Raw(b"2"), (EVENT, CANCEL)))
MESSAGES: tuple[m.Message, ...] = (
    m.StartChild("kid", "code", Raw(b"{}"), PARENT, "2", 3),
    m.ChildEnded("p", "p-exec", 4, 3, h.Status.FAILED, h.NULL, FAILURE),
    m.DeliverEvent("other", "go", Raw(b"null")),
    m.TerminateChild("kid", "p-exec", 4, "enough"),
    m.RewindChild("kid", "code", Raw(b"{}"), PARENT, "p-before", "2", 3),
    m.CancelChild("kid", "p-exec", 4, "enough"),
)
ENTITY_MESSAGES: tuple[m.Message, ...] = (
    m.StartInstance("other", "code", Raw(b"{}"), "2"),
    m.CallEntity("@acc@a", "add", Raw(b"1"), PARENT, "p-exec:3"),
    m.SignalEntity("@acc@a", "add", Raw(b"1"), 99),
    m.EntityAnswered("p", "p-exec", 4, Raw(b"1"), FAILURE),
    m.LockEntity("@acc@b", "p-exec:3", PARENT, ("@acc@a", "@acc@b"), 1),
    m.LockGranted("p", "p-exec", "p-exec:3"),
    m.UnlockEntity("@acc@a", "p-exec:3", chain=True),
)
SLOT = slot_of("p", "p-exec", 4, 2)
SLOT_MESSAGES: tuple[m.Message, ...] = (
    m.SlotWanted("@$limit@api/acme", SLOT, QUOTA.numbers, 17),
    m.SlotGranted("p", "p-exec", 4, 2),
    m.SlotReturned("@$limit@api/acme", SLOT),
)
FIRST_MESSAGES = MESSAGES[:4]
ENTRIES: tuple[e.Entry, ...] = (
    e.Taken(11, 3),
    e.Created(12, "a", "a-exec", "code", Raw(b'{"n":1}'), "2", {"k": "v"}, 50, ORIGIN),
    e.Created(12, "a", "a-exec", "code"),
    e.Arrived("a", h.TaskCompleted(0, 13, Raw(b'"ok"'))),
    e.Arrived("a", h.TaskFailed(0, 13, FAILURE)),
    e.Retried(14, "a", 0, FAILURE, 15),
    e.Fired(16, "a", (-1, 2)),
    e.Raised("a", EVENT, ORIGIN),
    e.Stepped(17, "a", 2, ACTIONS, None, (Raw(b'{"at":"half"}'),)),
    *[e.Stepped(17, "a", 0, (), outcome) for outcome in OUTCOMES],
    *[e.Received(18, 6, 40 + n, message, 19) for n, message in enumerate(FIRST_MESSAGES)],
    e.Acknowledged(6, 12),
    e.Terminated(20, "a", "enough", recursive=False, origin=ORIGIN),
    e.Suspended(22, "a", "lunch", ORIGIN),
    e.Resumed(23, "a", "back", ORIGIN),
    e.Deleted(24, "a", ORIGIN),
    e.Forgot(("client-1", "client-2")),
    e.PutAside(18, 6, 57, m.DeliverEvent("a", "go", Raw(b'"now"'))),
    e.TakenUp(19, "a", 99),
    e.Removed(24, "a", ORIGIN),
    e.Stepped(17, "a", 2, ENTITY_ACTIONS),
    *[e.Received(18, 6, 50 + n, message) for n, message in enumerate(ENTITY_MESSAGES)],
    e.EntityAsked(25, "@acc@a", "add", Raw(b"1"), 99, ORIGIN, waits=True),
    e.EntityStepped(
        26,
        "@acc@a",
        (en.OperationResult(Raw(b"0")), en.OperationResult(failure=FAILURE)),
        (Raw(b"0"),),
        (
            en.SignalSent("@acc@b", "add", Raw(b"1"), 99),
            en.OrchestrationStarted("other", "code", Raw(b"{}"), "2"),
        ),
    ),
    e.EntityStepped(27, "@acc@a", (en.OperationResult(),), ()),
    e.EntityStepped(27, "@acc@a", (en.OperationResult(),), None),
    e.EntityStepped(28, "@acc@a", parked="no such code"),
    e.Received(18, 6, 44, MESSAGES[4]),
    e.Rewound(25, "a", "a-next", HISTORY, (EVENT,), ((4, "kid"),), PARENT, 2, "again", ORIGIN),
    e.Stepped(17, "a", 2, (LIMITED,)),
    *[e.Received(18, 6, 60 + n, message) for n, message in enumerate(SLOT_MESSAGES)],
    e.CancelRequested(29, "a", "enough", ORIGIN),
    e.Received(18, 6, 70, MESSAGES[5]),
    *[e.Stepped(17, "a", 1, (), outcome) for outcome in CANCELED],
)
INSTANCE = Instance(
    instance_id="a",
    execution_id="a-exec",
    name="code",
    created_at=1,
    updated_at=2,
    version="2",
    status=h.Status.RUNNING,
    input=Raw(b'{"n":1}'),
    custom_status=Raw(b"[0]"),
    parked="no such code",
    parent=PARENT,
    attempt=2,
    tags={"k": "v"},
    created_by=ORIGIN,
    turn=3,
    timers={2: 99},
    pending={0: Pending("act", Raw(b"[1]"), 5, 2, RETRY, 30_000_000, 77, speculative=True)},
    children={4: Child("kid", 5, 2, RETRY, 78, "code", "2", Raw(b"{}"))},
    inbox=[EVENT, h.TimerFired(1, 8)],
    history_length=12,
)
CANCELING = Instance(
    instance_id="a",
    execution_id="a-exec",
    name="code",
    created_at=1,
    updated_at=2,
    inbox=[CANCEL],
    has_run=True,
    cancel_requested=True,
    leaving={4: Leaving("kid", "a-exec")},
)
ENTITY = en.Entity(
    instance_id="@acc@a",
    name="acc",
    created_at=1,
    updated_at=2,
    state=(Raw(b"0"),),
    inbox=[
        en.Operation("add", Raw(b"1"), PARENT),
        en.Operation("add", Raw(b"2"), None, ORIGIN),
        en.LockRequest("q-exec:1", PARENT, ("@acc@a",), 0),
    ],
    lock=en.Lock(
        en.LockRequest("p-exec:3", PARENT, ("@acc@a", "@acc@b"), 0),
        [en.Operation("add", Raw(b"3"), PARENT)],
        released=True,
        chain=True,
    ),
    delayed={3: en.Delayed(99, en.Operation("add"))},
    numbers=3,
    turn=7,
    parked="no such code",
    answers=[en.Answered("client-1", 6, Raw(b"0"), FAILURE)],
)
HOLDER = Instance(
    instance_id="a",
    execution_id="a-exec",
    name="code",
    created_at=1,
    updated_at=2,
    calls={6: "@acc@a"},
    locks={"a-exec:8": Section(8, ["@acc@b"], granted=True)},
)
LIMITED_INSTANCE = Instance(
    instance_id="a",
    execution_id="a-exec",
    name="code",
    created_at=1,
    updated_at=2,
    pending={10: Pending("act", Raw(b"[1]"), 5, limit=QUOTA, granted=True)},
)
LIMITER = en.Entity(
    instance_id="@$limit@api/acme",
    name="$limit",
    created_at=1,
    updated_at=9,
    limiter=Limiter(QUOTA.numbers, 17, {SLOT: 9}, {slot_of("q", "q-exec", 1, 1): 8}, [9], 70),
)
HEAD = Head(
    partition=3,
    partitions=8,
    epoch=2,
    lanes={1: Lane(4, list(FIRST_MESSAGES))},
    received={6: 12},
    sessions={"client-1": Session(24, 5, {7})},
)


def anything(kind: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one per kind of type
    """Return a strategy for values of a type, made of its annotations."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return st.one_of([anything(part) for part in parts])
    if origin is tuple and parts[-1] is not ...:
        return st.tuples(*[anything(part) for part in parts])
    if origin in {tuple, list, set}:
        return st.lists(anything(parts[0]), max_size=3).map(origin)
    if origin is dict:
        return st.dictionaries(anything(parts[0]), anything(parts[1]), max_size=3)
    if issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    return st.deferred(lambda: _struct(kind))


def _struct(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    fields = {name: anything(hints[name]) for name in kind.__struct_fields__}
    return st.builds(kind, **fields)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    str: st.text(max_size=8),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    Raw: _JSON.map(msgspec.json.encode).map(Raw),
    # A chain of causes would only make everything slow.
    h.Failure: st.builds(h.Failure, type=st.text(max_size=8), message=st.text(max_size=8)),
}
