"""Programs written for Azure Durable Functions in Python, run as they are.

``shardrt serve --app function_app:app`` takes a `df.DFApp` or `func.FunctionApp` as it takes an
`App`; `from_azure` is what it calls. The real packages ``azure-functions`` and
``azure-functions-durable`` (the extra ``azure``) stay in place: they hold the decorators, the
data classes and the client, and a module of our own under their name would have to follow each
of their releases. What is replaced is what runs: generators are driven on the deterministic loop
of any orchestration, so that replay, its checks, versions and rewinding are the same.

HTTP-triggered functions are served by `functions_app`, in a program of yours or by
``python -m shardrt.compat.azure``: they are clients of a hub, and user code has no place in its
gateway.
"""

from __future__ import annotations

from shardrt.compat.azure.client import durable_client
from shardrt.compat.azure.http_functions import functions_app
from shardrt.compat.azure.registering import from_azure

__all__ = ["durable_client", "from_azure", "functions_app"]
