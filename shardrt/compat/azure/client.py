"""Azure's own client over one of ours: its requests are answered in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import azure.durable_functions as df
from starlette.applications import Starlette

from shardrt.config import LimitSettings
from shardrt.errors import ShardrtError
from shardrt.http import problems
from shardrt.http.azure import AzureApi
from shardrt.http.azure_shapes import ROOT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

    from shardrt.http.caller import Caller


def azure_api(caller: Caller, limits: LimitSettings) -> ASGIApp:
    """Return Azure's HTTP API alone, as an application."""
    api = AzureApi(
        caller,
        payload_bytes_max=limits.payload_bytes_max,
        json_depth_max=limits.json_depth_max,
        page_size_max=limits.page_size_max,
    )
    return Starlette(routes=api.routes(), exception_handlers={ShardrtError: problems.on_refused})


def durable_client(caller: Caller, url: str = "http://127.0.0.1:8520") -> Any:
    """Return a `df.DurableOrchestrationClient`, for code that expects one.

    Args:
        caller: a `Client` of the hub, with which it shares its connection.
        url: of a host, for the management URLs that the client hands out.
    """
    return client_over(azure_api(caller, LimitSettings()), url)


def client_over(api: ASGIApp, url: str) -> Any:
    """Return Azure's client in front of what `azure_api` returned."""
    client = df.DurableOrchestrationClient(binding(url))

    async def get(url: str, *_: Any) -> list[Any]:
        status, found = await _ask(api, "GET", url)
        return [status, "" if found is None else found]

    async def delete(url: str, *_: Any) -> list[Any]:
        return list(await _ask(api, "DELETE", url))

    async def post(url: str, data: Any = None, *_: Any, **__: Any) -> list[Any]:
        return list(await _ask(api, "POST", url, data))

    # Where the client keeps what it asks with.
    client._get_async_request = get  # noqa: SLF001
    client._delete_async_request = delete  # noqa: SLF001
    client._post_async_request = post  # noqa: SLF001
    return client


def binding(url: str) -> str:
    """Return what Azure's host hands to a function that has a durable client, as JSON."""
    hook = url.rstrip("/") + ROOT
    one, start = f"{hook}/instances/INSTANCEID", f"{hook}/orchestrators/{{functionName}}"
    start += "[/{instanceId}]"
    return json.dumps(
        {
            "taskHubName": "shardrt",
            "creationUrls": {
                "createNewInstancePostUri": start,
                "createAndWaitOnNewInstancePostUri": f"{start}?timeout={{timeoutInSeconds}}"
                "&pollingInterval={intervalInSeconds}",
            },
            "managementUrls": {
                "id": "INSTANCEID",
                "statusQueryGetUri": one,
                "sendEventPostUri": f"{one}/raiseEvent/{{eventName}}",
                "terminatePostUri": f"{one}/terminate?reason={{text}}",
                "rewindPostUri": f"{one}/rewind?reason={{text}}",
                "purgeHistoryDeleteUri": one,
                "restartPostUri": f"{one}/restart",
                "suspendPostUri": f"{one}/suspend?reason={{text}}",
                "resumePostUri": f"{one}/resume?reason={{text}}",
            },
            "baseUrl": hook,
            "requiredQueryStringParameters": "",
            "rpcBaseUrl": f"{hook}/",
        }
    )


async def _ask(api: ASGIApp, method: str, url: str, data: Any = None) -> tuple[int, Any]:
    """Make a request without a network; return the status and the parsed body."""
    parts = urlsplit(url)
    body = b"" if data is None else json.dumps(data).encode()
    headers = [(b"host", parts.netloc.encode())]
    if data is not None:
        headers.append((b"content-type", b"application/json"))
    scope = {
        "type": "http",
        "method": method,
        "scheme": parts.scheme,
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "root_path": "",
        "query_string": parts.query.encode(),
        "headers": headers,
    }
    answered: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        answered.append(message)

    await api(scope, receive, send)
    found = b"".join(message.get("body", b"") for message in answered)
    return answered[0]["status"], json.loads(found) if found else None
