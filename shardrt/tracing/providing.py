"""Where spans go: to what the program has set up, or as the environment says.

A program that embeds shardrt has its own provider of tracers. The processes of a host make one
as OpenTelemetry's variables say, unless the app has set one while it was imported.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from shardrt.errors import ConfigInvalid
from shardrt.tracing.sampler import Sampler

if TYPE_CHECKING:
    from shardrt.config.settings import TracingSettings
    from shardrt.tracing.tracer import Tracer

logger = logging.getLogger(__name__)

EXPORT_DELAY_MS = 1000
"""How long spans wait to be exported together. Those of a process that is killed are lost."""
FLUSH_S = 2.0
"""How long the end of a process waits for whoever takes its spans."""


def make_tracer(settings: TracingSettings, version: str, provider: Any = None) -> Tracer | None:
    """Return what exports spans, or None if there is nothing to do.

    Args:
        settings: whether to trace, and how. A provider that is given says that, too.
        version: of this package.
        provider: the SDK's ``TracerProvider``; default: the one that the program has set.
    """
    if provider is None and not settings.enabled:
        return None
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import Tracer as SdkTracer  # noqa: PLC0415

        from shardrt.tracing.tracer import Tracer  # noqa: PLC0415
    except ImportError:
        logger.warning("tracing is switched on, but shardrt[otel] is not installed")
        return None
    provider = provider or trace.get_tracer_provider()
    sdk = provider.get_tracer(settings.tracer_name, version)
    if not isinstance(sdk, SdkTracer):
        logger.warning("tracing is switched on, but the program has no TracerProvider of the SDK")
        return None
    return Tracer(
        sdk,
        Sampler(settings.sample_ratio, settings.traces_per_s_max),
        version,
        state_operations=settings.state_operations,
    )


def provide(settings: TracingSettings, process: str, host_id: str) -> None:
    """Set the provider of this process, if it is to be traced and has none so far.

    Raises:
        ConfigInvalid: there is no such exporter.
    """
    if not settings.enabled:
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        return  # `make_tracer` says so
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    facts = {"service.instance.id": f"{host_id}/{process}", "host.id": host_id}
    if "OTEL_SERVICE_NAME" not in os.environ:
        facts["service.name"] = "shardrt"
    delay_ms = None if "OTEL_BSP_SCHEDULE_DELAY" in os.environ else EXPORT_DELAY_MS
    provider = TracerProvider(resource=Resource.create(facts))
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if name.strip() != "none":
            exporter = _exporter(name.strip())
            provider.add_span_processor(
                BatchSpanProcessor(exporter, schedule_delay_millis=delay_ms)
            )
    trace.set_tracer_provider(provider)


def flush(within_s: float = FLUSH_S) -> None:
    """Export what is left in this process before it ends, if that does not take longer."""
    api: Any = sys.modules.get("opentelemetry.trace")
    shutdown = None if api is None else getattr(api.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        thread = threading.Thread(target=shutdown, daemon=True)
        thread.start()
        thread.join(within_s)


def _exporter(name: str) -> Any:
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        return found.load()()
    raise ConfigInvalid(f"OTEL_TRACES_EXPORTER: no package brings an exporter {name!r}")
