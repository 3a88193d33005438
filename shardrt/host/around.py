"""Users' middleware around attempts of activities.

It runs in the shard's loop, also where the activity runs in a thread or a process of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shardrt.core.history import Failure
from shardrt.errors import ActivityFailed
from shardrt.orchestration.failure import failure_of
from shardrt.orchestration.middleware import ExecutionInfo, ExecutionKind, layered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from msgspec import Raw

    from shardrt.host.attempts import Running
    from shardrt.host.payloads import Payloads
    from shardrt.orchestration.activity import ActivityContext
    from shardrt.orchestration.middleware import CallNext, ExecutionMiddleware


class FailedElsewhere(ActivityFailed):
    """What a worker process tells of an activity that failed there."""


def wrapped(
    around: tuple[ExecutionMiddleware, ...], call: Callable[[Any, Raw], Awaitable[Any]]
) -> Callable[[ActivityContext, Raw], Awaitable[Any]]:
    """Return what calls an `async def` activity through middleware."""

    def through(context: ActivityContext, payload: Raw) -> Awaitable[Any]:
        async def innermost() -> Any:
            return await call(context, payload)

        return layered(around, _info(context, payload), innermost)()

    return through


async def outcome_of(
    running: Running, context: ActivityContext, payloads: Payloads, call: CallNext
) -> Raw | Failure:
    """Return how an attempt outside of the loop ends, with the middleware around it."""
    run = running.attempt.run

    async def innermost() -> Any:
        if running.control.cancelled:
            raise asyncio.CancelledError  # while the middleware waited
        return await call()

    try:
        info = _info(context, payloads.open(run.input))
        value = await layered(running.kind.around, info, innermost)()
        return payloads.result(value, run.name)
    except asyncio.CancelledError:
        if running.control.cancelled:
            raise
        return Failure(type="CancelledError", message="the activity cancelled itself")
    except FailedElsewhere as failed:
        return failed.failure
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - what users raise is data, also SystemExit
        return failure_of(error)


def _info(context: ActivityContext, payload: Raw) -> ExecutionInfo:
    return ExecutionInfo(
        kind=ExecutionKind.ACTIVITY,
        name=context.name,
        instance_id=context.instance_id,
        context=context,
        attempt=context.attempt,
        payload=payload,
    )
