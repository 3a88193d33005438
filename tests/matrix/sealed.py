"""What needs settings or an app of its own: payloads that are sealed, and retention."""

from __future__ import annotations

import base64
from typing import Any

from shardrt import App, OrchestrationContext
from shardrt.core import requests
from tests.matrix.stage import Stage, scenario

GROUP = "sealed"
SETTINGS: dict[str, object] = {"retention.completed_s": 1.0, "retention.sweep_interval_s": 0.2}
SECRET = "the treasure is below the oak"


class Backwards:
    """A codec that is not a secret, but not readable either."""

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


app = App(payload_codec=Backwards())


@app.activity
async def whisper(secret: str) -> str:
    return secret.upper()


@app.orchestrator
async def keeps_secret(ctx: OrchestrationContext, secret: str) -> list[str]:
    ctx.set_custom_status(secret)
    loud = await ctx.call_activity(whisper, secret)
    return [secret, loud, await ctx.wait_for_event("more", str)]


@scenario(group=GROUP)
async def payloads_are_sealed_wherever_they_are(stage: Stage) -> None:
    await stage.client.start(keeps_secret, SECRET, instance_id=stage.id())
    await stage.shows(SECRET)
    await stage.middle()
    snapshot: Any = await stage.client.call(stage.id(), requests.Get())
    backwards = base64.b64encode(f'"{SECRET}"'.encode()[::-1])
    for sealed in (snapshot.input, snapshot.custom_status):
        assert bytes(sealed) == b'"shardrt:sealed:' + backwards + b'"'
    assert (await stage.status()).input == SECRET
    await stage.client.raise_event(stage.id(), "more", "gold")
    assert await stage.result() == [SECRET, SECRET.upper(), "gold"]


@scenario(group=GROUP)
async def ended_instances_go_after_their_time(stage: Stage) -> None:
    await stage.client.start(keeps_secret, "x", instance_id=stage.id("open"))
    await stage.client.start(keeps_secret, "y", instance_id=stage.id("ended"))
    await stage.client.raise_event(stage.id("ended"), "more", "z")
    assert (await stage.result("ended"))[0] == "y"
    await stage.middle()

    async def is_gone() -> bool:
        return await stage.client.get(stage.id("ended")) is None

    await stage.until(is_gone)
    assert (await stage.status("open")).status == "Running"
