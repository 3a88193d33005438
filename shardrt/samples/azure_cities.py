"""A program as written for Azure Durable Functions: two activities, three orchestrators.

    python -m shardrt.samples azure
    shardrt serve --app shardrt.samples.azure_cities:app

Nothing in here is of shardrt; it needs ``pip install 'shardrt[azure]'``.
"""

from collections.abc import Generator
from typing import Any

import azure.durable_functions as df

app = df.DFApp()


@app.orchestration_trigger(context_name="context")
def azure_cities(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    asia = context.call_sub_orchestrator(greet_cities, ["Tokyo", "Mumbai"])
    europe = context.call_sub_orchestrator(greet_cities, ["London", "Rome"])
    greetings = yield context.task_all([asia, europe])
    letters = yield context.call_sub_orchestrator(count_letters, greetings)
    return {"greetings": greetings, "letters": letters}


@app.orchestration_trigger(context_name="context")
def greet_cities(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    cities = context.get_input()
    return (yield context.task_all([context.call_activity(greet_city, city) for city in cities]))


@app.orchestration_trigger(context_name="context")
def count_letters(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    total = 0
    for greetings in context.get_input():
        for greeting in greetings:
            total += yield context.call_activity(letters_of, greeting)
    return total


@app.activity_trigger(input_name="city")
def greet_city(city: str) -> str:
    return f"Hello {city}!"


@app.activity_trigger(input_name="text")
def letters_of(text: str) -> int:
    return len(text)
