"""An instance that is rewound in the very moment in which it has failed."""

from msgspec import Raw

from shardrt import App, OrchestrationContext
from shardrt.core import requests as r
from shardrt.core.requests import Origin
from shardrt.host.partition_host import PartitionHost
from shardrt.links.messages import Answer, Forward
from shardrt.testing import Environment, run_virtual
from shardrt.testing.virtual import pass_time

broken = True
app = App()


@app.orchestrator
async def waiter(ctx: OrchestrationContext) -> int:
    await ctx.wait_for_event("go")
    if broken:
        raise OSError("down")
    await ctx.wait_for_event("end")
    return 1


def is_final(host: PartitionHost) -> bool:
    return host.core.instances["i"].is_final


def test_its_partition_goes_on_and_its_history_is_whole():
    async def main() -> None:
        global broken  # noqa: PLW0603 - as a repaired disk would be
        broken = True
        async with Environment(app) as env:
            handle = await env.client.start("waiter", instance_id="i")
            await env.settle()
            shard = env.hub.members[0].shard
            (host,) = (host for host in shard.hosts.values() if host.core.holds("i"))
            answers: list[Answer] = []

            def ask(seq: int, request: r.Request) -> None:
                call = Forward(seq, host.partition, Origin("me", seq, 1), "i", request)
                shard.submit(call, answers.append)

            ask(1, r.Raise("go", Raw(b"1")))
            while host.core.has_turns:
                host.run_turns(1e18)
            assert is_final(host)
            broken = False
            ask(2, r.Rewind("again"))
            assert not is_final(host)
            await env.settle()
            assert [answer.refusal for answer in answers] == [None, None]
            await env.client.raise_event("i", "end")
            assert await handle.result() == 1
            length = host.core.instances["i"].history_length
            await pass_time(10)
            kinds = [event.kind for event in await env.client.history("i")]
            assert (kinds[0], kinds[-1]) == ("ExecutionStarted", "ExecutionCompleted")
            assert len(kinds) == length

    run_virtual(main())
