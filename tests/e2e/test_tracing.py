"""One trace over two hosts and many processes, one of which is killed in the middle."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, Self

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.conftest import UNSAFE
from tests.serving import Served
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

pytestmark = [pytest.mark.proc, pytest.mark.slow]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OUTSIDE = "00f067aa0ba902b7"


class Seen(NamedTuple):
    """A span that was exported."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    process: str
    facts: dict[str, Any]
    events: list[str]


class Collector:
    """Takes spans over OTLP/HTTP."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            about = _facts(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_seen(span, about) for span in scope.spans]

    def named(self, name: str) -> list[Seen]:
        return [span for span in list(self.spans) if span.name == name]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _seen(span: Any, about: dict[str, Any]) -> Seen:
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        f"{about['service.name']} {about['service.instance.id']}",
        _facts(span.attributes),
        [event.name for event in span.events],
    )


def _facts(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def hosts(
    store_url: str, tmp_path: Path, collector: Collector
) -> Iterator[Callable[[str], Served]]:
    made: list[Served] = []

    def make(name: str) -> Served:
        directory = tmp_path / name
        directory.mkdir()
        variables = UNSAFE | {
            "SHARDRT_HOST_LEASE_TTL_S": "2",
            "SHARDRT_TRACING_ENABLED": "true",
            # The request brings a trace: that decides.
            "SHARDRT_TRACING_SAMPLE_RATIO": "0",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_SERVICE_NAME": "orders",
        }
        options = ("--host-id", name, "--shards", "1", "--partitions", "4")
        app = "tests.e2e.traced_app:app"
        made.append(Served(store_url, directory, *options, app=app, variables=variables))
        return made[-1].start()

    yield make
    for served in made:
        served.close()


def owners(host: Served) -> list[str | None]:
    return [row["owner"] for row in host.ask("cluster")["partitions"]]


def test_one_trace_goes_through_hosts_and_processes_and_survives_a_kill(
    hosts: Callable[[str], Served], collector: Collector, tmp_path: Path
) -> None:
    a, b = hosts("a"), hosts("b")
    wait_until(lambda: Counter(owners(a)) == {"a": 2, "b": 2}, within_s=20)
    where = owners(a)
    parent_id, child_id = f"parent!{where.index('a')}", f"child!{where.index('b')}"
    marks = tmp_path / "marks"
    response = httpx.post(
        f"{a.url}/runtime/orchestrations/start/parent",
        json={"instanceId": parent_id, "input": [child_id, str(marks)]},
        headers={"traceparent": f"00-{TRACE}-{OUTSIDE}-01"},
    )
    assert response.status_code == 202
    # b has exported what it has done so far, and is in the middle of the rest.
    wait_until(lambda: len(collector.named("in the loop")) == 2 and marks.exists(), within_s=30)
    wait_until(lambda: len(collector.named("orchestration.call")) == 3, within_s=10)
    b.kill()

    wait_until(lambda: len(collector.named("orchestration.complete")) == 2, within_s=40)
    wait_until(lambda: len(collector.named("orchestration.call")) == 5, within_s=10)

    spans = list(collector.spans)
    assert {span.trace_id for span in spans} == {TRACE}
    ids = {span.span_id for span in spans}
    assert len(ids) == len(spans)
    assert [span.name for span in spans if span.parent_id not in ids] == [
        "Management.StartOrchestration"
    ]
    assert Counter(span.name for span in spans) == {
        "Management.StartOrchestration": 1,
        "orchestration.start": 2,
        "orchestration.call": 5,
        "orchestration.complete": 2,
        "in the loop": 2,
        "in a worker": 1,
    }
    assert len({span.process for span in spans}) == 4  # a: gateway, shard, worker; b: shard
    assert {span.process.split("/")[0] for span in spans} == {"orders a", "orders b"}
    assert marks.read_text() == "xx"
    ended = {span.facts["instance.id"]: span for span in collector.named("orchestration.complete")}
    assert {key: span.facts["host.id"] for key, span in ended.items()} == {
        parent_id: "a",
        child_id: "a",
    }
