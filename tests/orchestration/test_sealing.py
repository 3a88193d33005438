"""An executor with a payload codec opens what it is given and seals what it hands out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw

from shardrt.core.history import EventRaised, EventSent, TaskCompleted, TaskScheduled
from shardrt.errors import InputInvalid
from shardrt.orchestration.app import App
from shardrt.orchestration.sealing import PREFIX, Sealer
from tests.orchestration.harness import NULL, Instance, continued, raw, reason_of

if TYPE_CHECKING:
    from shardrt.orchestration.context import OrchestrationContext


class Backwards:
    def encode(self, data: bytes, /) -> bytes:
        return b"<" + data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        if not data.startswith(b"<"):
            raise ValueError("not mine")
        return data[:0:-1]


app = App(payload_codec=Backwards())
sealer = Sealer(Backwards())


def is_sealed(payload: Raw) -> bool:
    return bytes(payload).startswith(PREFIX)


@app.orchestrator
async def flow(ctx: OrchestrationContext, text: str) -> Any:
    ctx.set_custom_status(text)
    ctx.send_event("other", "hello", text)
    found = await ctx.call_activity("echo", text)
    event = await ctx.wait_for_event("go", str)
    if text == "again":
        ctx.continue_as_new(event)
    return [found, event]


def test_what_comes_is_opened_and_what_goes_is_sealed():
    instance = Instance(app, "flow", "hello")
    step = instance.run()
    sent, call = step.actions
    assert isinstance(sent, EventSent)
    assert isinstance(call, TaskScheduled)
    assert step.custom_status is not None
    for payload in (sent.data, call.input, step.custom_status):
        assert is_sealed(payload)
        assert sealer.open(payload) == raw("hello")
    sealed = sealer.seal(raw("found"))
    instance.run(TaskCompleted(2, instance.now, sealed))
    step = instance.run(instance.raised("go", "now"), replay=True)
    outcome: Any = step.outcome
    assert is_sealed(outcome.result)
    assert sealer.open(outcome.result) == raw(["found", "now"])


def test_the_next_execution_and_what_it_inherits_are_sealed():
    instance = Instance(app, "flow", "again")
    instance.run()
    instance.run(instance.raised("left", "over"))
    instance.run(instance.raised("go", "new"))
    outcome = continued(instance.complete(2, "x"))
    assert sealer.open(outcome.input) == raw("new")
    (left,) = outcome.carried
    assert isinstance(left, EventRaised)
    assert is_sealed(left.data)


def test_what_cannot_be_opened_parks_the_instance():
    instance = Instance(app, "flow", "hello")
    instance.run()
    wrong = Raw(PREFIX + b'eA=="')
    reason = reason_of(instance.run(EventRaised(instance.now, "go", wrong)))
    assert reason == "a sealed payload cannot be opened: ValueError: not mine"
    with pytest.raises(InputInvalid):
        sealer.open(wrong)


def test_null_stays_as_it_is():
    assert sealer.seal(NULL) == NULL
