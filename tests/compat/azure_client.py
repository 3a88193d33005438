"""Azure's own client, pointed at a host of ours."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import azure.durable_functions as df
from azure.durable_functions.models.utils import http_utils

from shardrt.http.azure_shapes import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def binding(url: str) -> str:
    """Return what Azure's host hands to a function that has a durable client."""
    hook = url + ROOT
    one, query = f"{hook}/instances/INSTANCEID", "taskHub=H&connection=Storage&code=K"
    start = f"{hook}/orchestrators/{{functionName}}[/{{instanceId}}]"
    return json.dumps(
        {
            "taskHubName": "H",
            "creationUrls": {
                "createNewInstancePostUri": f"{start}?{query}",
                "createAndWaitOnNewInstancePostUri": f"{start}?timeout={{timeoutInSeconds}}"
                f"&pollingInterval={{intervalInSeconds}}&{query}",
            },
            "managementUrls": {
                "id": "INSTANCEID",
                "statusQueryGetUri": f"{one}?{query}",
                "sendEventPostUri": f"{one}/raiseEvent/{{eventName}}?{query}",
                "terminatePostUri": f"{one}/terminate?reason={{text}}&{query}",
                "rewindPostUri": f"{one}/rewind?reason={{text}}&{query}",
                "purgeHistoryDeleteUri": f"{one}?{query}",
                "restartPostUri": f"{one}/restart?{query}",
                "suspendPostUri": f"{one}/suspend?reason={{text}}&{query}",
                "resumePostUri": f"{one}/resume?reason={{text}}&{query}",
            },
            "baseUrl": hook,
            "requiredQueryStringParameters": query,
            "rpcBaseUrl": f"{hook}/",
        }
    )


@asynccontextmanager
async def azure_client(url: str) -> AsyncIterator[Any]:
    """Yield a client; its connections, which it shares with all others, end with the block."""
    try:
        yield df.DurableOrchestrationClient(binding(url))
    finally:
        await http_utils._close_session()
