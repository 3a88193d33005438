"""The smoke tests of the library that people come from, under its names."""

from __future__ import annotations

import asyncio
from typing import Any

import azure.durable_functions as df

from shardrt import App, Runtime
from shardrt.compat.azure import from_azure
from shardrt.testing import Environment, run_virtual


def test_can_create_durable_function_runtime() -> None:
    async def create() -> bool:
        async with Runtime(App()) as runtime:
            return await runtime.client.get("nobody") is None

    assert asyncio.run(create())


def test_can_create_azure_compatible_orchestrator() -> None:
    app = df.DFApp()

    @app.orchestration_trigger(context_name="context")
    def echo(context: df.DurableOrchestrationContext) -> Any:
        return context.get_input()

    async def run() -> Any:
        async with Environment(from_azure(app)) as env:
            return await (await env.client.start("echo", {"a": 1})).result()

    assert run_virtual(run()) == {"a": 1}


def test_azure_adapter_attributes_can_be_applied() -> None:
    app = df.DFApp()

    @app.function_name("Greet")
    @app.activity_trigger(input_name="city")
    def greet(city: str) -> str:
        return f"Hello {city}!"

    @app.function_name("Cities")
    @app.orchestration_trigger(context_name="context")
    def cities(context: df.DurableOrchestrationContext) -> Any:
        return (yield context.call_activity("Greet", context.get_input()))

    found = from_azure(app)
    assert found.find_orchestrator("Cities").name == "Cities"
    assert found.find_activity("Greet").name == "Greet"
    assert greet("Rome") == "Hello Rome!", "it can be called as it is"
