"""A host with tokens, real processes: rotated while it serves, and told to nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from shardrt.bench import processes
from shardrt.client import Client
from shardrt.errors import Forbidden
from tests.loops import in_loop
from tests.serving import Served
from tests.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

AZURE = "/runtime/webhooks/durabletask"
PATHS = (
    "/metrics",
    "/openapi.json",
    "/health",
    "/health/ready",
    "/health/details",
    "/runtime/orchestrations",
    f"{AZURE}/instances",
)

pytestmark = [pytest.mark.proc, pytest.mark.slow]


async def refused(http: httpx.AsyncClient, token: str) -> bool:
    headers = {"Authorization": f"Bearer {token}"}
    return (await http.get("/runtime/orchestrations", headers=headers)).status_code == 401


async def told(http: httpx.AsyncClient, token: str) -> str:
    """Return everything that the host answers, to those with a token and without."""
    said = []
    for path in PATHS:
        for given in (token, token + "x"):
            headers = {"Authorization": f"Bearer {given}", "x-functions-key": given}
            answer = await http.get(path, headers=headers)
            said += [answer.text, str(answer.headers)]
    # Azure's callers find the key that they came with in the addresses they are answered.
    said.append((await http.get(f"{AZURE}/instances?code={token}x")).text)
    return "\n".join(said)


@in_loop
async def test_tokens_change_under_a_host_and_are_told_to_nobody(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("sesame-one\nread:sesame-look\n")
    options = ["--shards", "1", "--token-file", str(file)]
    with Served(f"sqlite:///{tmp_path}/hub.db", tmp_path, *options) as served:
        async with httpx.AsyncClient(base_url=served.url) as http:
            async with await Client.connect(served.url, token="sesame-one") as client:
                handle = await client.start("hello", "Ada")
                await handle.result(timeout=30)
            async with await Client.connect(served.url, token="sesame-look") as client:
                with pytest.raises(Forbidden):
                    await client.start("hello", "Ada")
            said = await told(http, "sesame-one")
            file.write_text("sesame-two\n")
            await eventually(lambda: refused(http, "sesame-one"), within_s=20)
            assert await refused(http, "sesame-look")
            assert not await refused(http, "sesame-two")
            file.write_text("")

            async def is_noticed() -> bool:
                assert not await refused(http, "sesame-two")
                return "tokens stay as they were" in served.stderr

            await eventually(is_noticed, within_s=20)
            said += await told(http, "sesame-two")
        said += "\n".join(process.command for process in processes.snapshot().values())
        assert served.interrupt() == 0
        said += served.stderr + (tmp_path / "serve.out").read_text()
    assert "tokens were read anew" in said
    assert "sesame" not in said
