"""The HTTP API of Azure Durable Functions, for clients, scripts and dashboards that speak it.

Everything under `ROOT` is one application that reads the path by itself: Azure's route words do
not distinguish case, a wrong method is a 404, and ids may hold an encoded slash. Every answer is
empty or JSON, because Azure's own clients parse whatever comes. What is answered with 202 is
durable. ``taskHub`` and ``connection`` are accepted and mean nothing: there is one hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.routing import Route

from shardrt.core.history import Status
from shardrt.http import answers as a
from shardrt.http.azure_entities import AzureEntities
from shardrt.http.azure_instances import AzureInstances
from shardrt.http.azure_queries import CONTINUATION, Limits, empty
from shardrt.http.azure_shapes import ROOT
from shardrt.http.openapi import CODE, KEY
from shardrt.http.operations import REFUSED_STATES, Endpoint, Operation, Parameter, Time
from shardrt.http.problems import problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from shardrt.http.caller import Caller

SHOW_INPUT = Parameter("showInput", "With inputs; true if left out", bool)
SHOW_HISTORY = (
    Parameter("showHistory", "With the history", bool),
    Parameter("showHistoryOutput", "With what is in its events", bool),
)
PAGING = (
    Parameter("top", "How many at most", int),
    Parameter(CONTINUATION, "Of the page before", place="header"),
)
WAITING = (
    Parameter("timeout", "How long to wait for the end, in seconds", float),
    Parameter("pollingInterval", "How often to look meanwhile, in seconds", float),
)
CONDITIONS = (
    Parameter("runtimeStatus", "Any of these, with commas between them", Status, is_list=True),
    Parameter("instanceIdPrefix", "What ids begin with"),
    Parameter("createdTimeFrom", "Not before", Time),
    Parameter("createdTimeTo", "Not after", Time),
)


class AzureApi:
    """Answers every request under `ROOT`; an ASGI application."""

    def __init__(
        self, caller: Caller, *, payload_bytes_max: int, json_depth_max: int, page_size_max: int
    ) -> None:
        limits = Limits(payload_bytes_max, json_depth_max, page_size_max)
        self._instances = AzureInstances(caller, limits)
        self._entities = AzureEntities(caller, limits)
        self._answers: dict[tuple[str, int], list[tuple[list[str], Endpoint]]] = {}
        """By method and number of parts: the words of the path, in lower case where they count."""
        for each in self.operations():
            words = each.path.removeprefix(ROOT + "/").split("/")
            words = [word if _is_name(word) else word.lower() for word in words]
            self._answers.setdefault((each.method, len(words)), []).append((words, each.answer))

    def routes(self) -> list[Route]:
        return [Route(ROOT + "/{path:path}", self)]

    def operations(self) -> list[Operation]:
        return [*self._starting(), *self._of_instances(), *self._of_entities()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answered = self._answer(request, _parts(scope))
        response = problem(404, "no such route") if answered is None else await answered
        await response(scope, receive, send)

    def _answer(self, request: Request, parts: list[str]) -> Awaitable[Response] | None:
        for words, answer in self._answers.get((request.method, len(parts)), ()):
            pairs = list(zip(words, parts, strict=True))
            if all(_is_name(word) or word == part.lower() for word, part in pairs):
                return answer(request, *(part for word, part in pairs if _is_name(word)))
        return None

    def _starting(self) -> Iterator[Operation]:
        for path, name in (("", "azureStart"), ("/{instanceId}", "azureStartAs")):
            yield _operation(
                "POST",
                "orchestrators/{functionName}" + path,
                name,
                "Start an instance of an orchestrator; with a timeout, wait for its end",
                self._instances.start,
                parameters=WAITING,
                body=Any,
                answers={
                    200: Any,
                    202: a.AzureUrls,
                    400: a.AzureProblem,
                    500: a.AzureInstance,
                },
                refusals=REFUSED_STATES,
            )
        yield _operation(
            "POST",
            "makeprimary",
            "azureMakePrimary",
            "Do nothing: there is no other site",
            _nothing_to_do,
            answers={200: None},
        )

    def _of_instances(self) -> Iterator[Operation]:
        api = self._instances
        one = "instances/{instanceId}"
        yield _operation(
            "GET",
            "instances",
            "azureListInstances",
            "List instances, by pages",
            api.list_instances,
            parameters=(*CONDITIONS, *PAGING, SHOW_INPUT),
            answers={200: list[a.AzureInstance]},
        )
        yield _operation(
            "DELETE",
            "instances",
            "azurePurgeInstances",
            "Purge instances that have ended",
            api.purge_instances,
            parameters=CONDITIONS,
            answers={200: a.InstancesDeleted, 400: Any, 404: Any},
        )
        yield _operation(
            "GET",
            one,
            "azureGetInstance",
            "Look at an instance",
            api.status,
            parameters=(
                SHOW_INPUT,
                *SHOW_HISTORY,
                Parameter("returnInternalServerErrorOnFailure", "500 if it has failed", bool),
            ),
            answers={200: a.AzureInstance, 202: a.AzureInstance, 500: a.AzureInstance},
            refusals=(409,),
        )
        yield _operation(
            "DELETE",
            one,
            "azurePurgeInstance",
            "Delete an instance that has ended",
            lambda _, instance_id: api.purge(instance_id),
            answers={200: a.InstancesDeleted, 404: Any},
            refusals=REFUSED_STATES,
        )
        yield from self._steering()

    def _steering(self) -> Iterator[Operation]:
        api = self._instances
        one = "instances/{instanceId}"
        yield _operation(
            "POST",
            one + "/raiseEvent/{eventName}",
            "azureRaiseEvent",
            "Send an event to an instance",
            api.raise_event,
            body=Any,
            answers={202: None},
            refusals=REFUSED_STATES,
        )
        for word, answer in (
            ("terminate", api.terminate),
            ("suspend", api.suspend),
            ("resume", api.resume),
            ("rewind", api.rewind),
        ):
            yield _operation(
                "POST",
                f"{one}/{word}",
                f"azure{word.title()}",
                f"Have an instance {word}" if word == "resume" else f"{word.title()} an instance",
                answer,
                parameters=(Parameter("reason"),),
                answers={202: None},
                refusals=REFUSED_STATES,
            )
        yield _operation(
            "POST",
            one + "/restart",
            "azureRestart",
            "Run an instance's orchestrator again",
            api.restart,
            parameters=(
                Parameter("restartWithNewInstanceId", "True if left out", bool),
                *WAITING,
            ),
            answers={200: Any, 202: a.AzureUrls, 400: a.AzureProblem, 500: a.AzureInstance},
            refusals=REFUSED_STATES,
        )

    def _of_entities(self) -> Iterator[Operation]:
        api = self._entities
        one = "entities/{entityName}/{entityKey}"
        listing = (
            ("entities", "azureListEntities", lambda request: api.list_entities(request, None)),
            ("entities/{entityName}", "azureListEntitiesOf", api.list_entities),
        )
        for path, name, answer in listing:
            yield _operation(
                "GET",
                path,
                name,
                "List entities, by pages",
                answer,
                parameters=(
                    Parameter("lastOperationTimeFrom", "Not before", Time),
                    Parameter("lastOperationTimeTo", "Not after", Time),
                    Parameter("fetchState", "With states", bool),
                    *PAGING,
                ),
                answers={200: list[a.AzureEntity]},
            )
        yield _operation(
            "GET",
            one,
            "azureGetEntity",
            "Return the state of an entity",
            lambda _, name, key: api.state(name, key),
            answers={200: Any},
            refusals=(409,),
        )
        yield _operation(
            "POST",
            one,
            "azureSignalEntity",
            "Signal an entity",
            api.signal,
            parameters=(Parameter("op", "The operation"),),
            body=Any,
            answers={202: None},
            refusals=(409,),
        )
        yield _operation(
            "DELETE",
            one,
            "azureDeleteEntity",
            "Delete an entity's state",
            lambda _, name, key: api.delete(name, key),
            answers={202: None},
            refusals=(409,),
        )


def _operation(
    method: str, path: str, name: str, summary: str, answer: Endpoint, **more: Any
) -> Operation:
    return Operation(
        method=method,
        path=f"{ROOT}/{path}",
        name=name,
        summary=summary,
        answer=answer,
        key_schemes=(CODE, KEY),
        **more,
    )


def _is_name(word: str) -> bool:
    return word.startswith("{")


async def _nothing_to_do(_: Request) -> Response:
    return empty(200)


def _parts(scope: Scope) -> list[str]:
    """Return the path below `ROOT`, cut at its slashes before these are decoded."""
    raw = scope.get("raw_path") or scope["path"].encode()
    below = raw.decode("latin-1").partition("?")[0].partition(ROOT + "/")[2]
    parts = [unquote(part) for part in below.split("/")]
    if parts[-1] == "":
        parts.pop()  # ``instances/`` is what the clients ask for
    return parts
