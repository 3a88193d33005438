"""Failures that pass, failures that stay, and a chain of others to ask.

    python -m shardrt.samples resilient '{"down": ["primary"]}'

A retry policy is for what may work the next time; its attempts and pauses are durable. What is
hopeless says so by its type and is not tried again. What is left after that is an exception.
"""

from dataclasses import dataclass, field

from shardrt import ActivityContext, App, OrchestrationContext, RetryPolicy
from shardrt.errors import ActivityFailed

app = App()

PATIENT = RetryPolicy(max_attempts=4, first_interval=1.0, non_retryable=("UnknownCity",))
SOURCES = ("primary", "mirror", "archive")


class UnknownCity(Exception):
    """Nobody will ever know the weather there."""


@dataclass(frozen=True)
class Question:
    """Of which city, and which sources do not answer today."""

    city: str = "Oslo"
    down: list[str] = field(default_factory=list)
    flaky: bool = True
    """Whether each source fails at the first attempt."""
    source: str = ""


@dataclass(frozen=True)
class Weather:
    """What was found, where, and what went wrong before."""

    report: str
    source: str
    failures: list[str]


@app.activity(retry=PATIENT)
async def ask_weather(ctx: ActivityContext, question: Question) -> str:
    if question.city == "Atlantis":
        raise UnknownCity(f"{question.city} is not on the map")
    if question.source in question.down or (question.flaky and ctx.attempt == 1):
        raise ConnectionError(f"{question.source} did not answer attempt {ctx.attempt}")
    return f"rain in {question.city}, at attempt {ctx.attempt}"


@app.orchestrator
async def resilient(ctx: OrchestrationContext, question: Question | None = None) -> Weather:
    """Ask one source after the other; what no source knows is a guess."""
    given = question or Question()
    failures: list[str] = []
    for source in SOURCES:
        asked = Question(given.city, given.down, given.flaky, source)
        try:
            return Weather(await ctx.call_activity(ask_weather, asked), source, failures)
        except ActivityFailed as failed:
            failures.append(f"{failed.error_type}: {failed.message}")
            if failed.error_type == "UnknownCity":
                break
    return Weather("probably rain", "guess", failures)
