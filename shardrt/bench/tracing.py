"""Runs with tracing on: spans go where they would, and are thrown away there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from shardrt.bench.errors import RunFailed

SCHEDULE_DELAY_MS = 1000


@dataclass(frozen=True)
class Tracing:
    """What makes a host trace, in this process or in others."""

    provider: Any = None
    """The SDK's, for a runtime."""
    settings: dict[str, object] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    """For `shardrt serve`."""


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def tracing(ratio: float | None) -> Iterator[Tracing]:
    """Yield how a host is told to trace this share of instances; None: not at all.

    Raises:
        RunFailed: OpenTelemetry is not installed.
    """
    if ratio is None:
        yield Tracing()
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise RunFailed("--tracing needs shardrt[otel]") from None
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as sink:
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{sink.server_port}"
        provider = TracerProvider(shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces")
        provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=SCHEDULE_DELAY_MS)
        )
        variables = {
            "SHARDRT_TRACING_ENABLED": "true",
            "SHARDRT_TRACING_SAMPLE_RATIO": str(ratio),
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        }
        try:
            yield Tracing(provider, {"tracing.sample_ratio": ratio}, variables)
        finally:
            provider.shutdown()
            sink.shutdown()
