"""Runs with tracing on: spans go where they would, and are thrown away there."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from shardrt.bench.errors import RunFailed
from shardrt.bench.figures import COLLECTOR
from shardrt.bench.metering import FindRoles

SCHEDULE_DELAY_MS = 1000


@dataclass(frozen=True)
class Tracing:
    """What makes a host trace, in this process or in others."""

    settings: dict[str, object] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    """For `shardrt serve`."""
    url: str = ""
    """Of who takes spans; empty: nobody does."""
    find_roles: FindRoles = lambda _: {}

    @contextmanager
    def provider(self) -> Iterator[Any]:
        """Yield the SDK's, for a runtime in this process; None: tracing is off."""
        if not self.url:
            yield None
            return
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        provider = TracerProvider(shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{self.url}/v1/traces")
        provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=SCHEDULE_DELAY_MS)
        )
        try:
            yield provider
        finally:
            provider.shutdown()


@contextmanager
def traced_as(ratio: float | None, per_s_max: float) -> Iterator[Tracing]:
    """Yield how a host is told to trace this share of instances; None: not at all.

    Raises:
        RunFailed: OpenTelemetry is not installed.
    """
    if ratio is None:
        yield Tracing()
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise RunFailed("--tracing needs shardrt[otel]")
    with subprocess.Popen(
        (sys.executable, "-m", "shardrt.bench.collector"), stdout=subprocess.PIPE, text=True
    ) as collector:
        try:
            assert collector.stdout is not None, "asked for a pipe"
            url = f"http://127.0.0.1:{int(collector.stdout.readline())}"
            variables = {
                "SHARDRT_TRACING_ENABLED": "true",
                "SHARDRT_TRACING_SAMPLE_RATIO": str(ratio),
                "SHARDRT_TRACING_TRACES_PER_S_MAX": str(per_s_max),
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            }
            pid = collector.pid
            settings: dict[str, object] = {
                "tracing.sample_ratio": ratio,
                "tracing.traces_per_s_max": per_s_max,
            }
            yield Tracing(settings, variables, url, lambda _: {pid: COLLECTOR})
        finally:
            collector.kill()
