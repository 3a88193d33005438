"""``/metrics``: what a host has counted and measured, in the text format of Prometheus."""

from __future__ import annotations

import asyncio
import time
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric as Family,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.responses import Response

from shardrt.core.history import Status
from shardrt.errors import ShardrtError
from shardrt.http.operations import Operation
from shardrt.links.admin import CountInstances, Metrics
from shardrt.links.metrics import CATALOGUE, Sample, Samples
from shardrt.store.base import Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.requests import Request

    from shardrt.http.caller import Caller

COUNT_S = 5.0
"""Instances are counted in the store at most so often, however often somebody asks."""
COUNT_S_MAX = 2.0
"""A scrape does not wait longer for that: when the store is away, or a shard frozen, the rest of it
counts most."""
OPEN = (Status.PENDING, Status.RUNNING, Status.SUSPENDED)

_decode = msgspec.json.Decoder(Samples).decode
_decode_counts = msgspec.json.Decoder(dict[str, int]).decode


class MetricsApi:
    """Answers scrapes.

    Args:
        caller: of whom to ask the samples.
        host_id: becomes a label of everything but what concerns the whole hub.
    """

    def __init__(
        self, caller: Caller, host_id: str, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._caller = caller
        self._host_id = host_id
        self._monotonic_s = monotonic_s
        self._counted_s = float("-inf")
        self._open: int | None = None
        """Open instances; None: nobody can tell at present."""

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/metrics",
                name="metrics",
                summary="What this host has counted, for Prometheus",
                answer=self.metrics,
                answers={200: str},
                media_type=CONTENT_TYPE_PLAIN_0_0_4.partition(";")[0],
            )
        ]

    async def metrics(self, _: Request) -> Response:
        """Return all samples of this host."""
        samples = _decode(await self._caller.ask(Metrics()))
        await self._count()
        families = [*_families(samples, self._host_id), *self._active()]
        return Response(exposition(families), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def _count(self) -> None:
        now_s = self._monotonic_s()
        if now_s - self._counted_s < COUNT_S:
            return
        self._counted_s = now_s
        try:
            async with asyncio.timeout(COUNT_S_MAX):
                counts = _decode_counts(await self._caller.ask(CountInstances(Filter())))
        except (TimeoutError, ShardrtError):
            self._open = None
        else:
            self._open = sum(counts.get(status, 0) for status in OPEN)

    def _active(self) -> list[Family]:
        if self._open is None:
            return []
        # Counted in the rows, so that no crash can make it drift; the same on every host.
        text = "Open instances of the whole hub; every host says the same."
        return [GaugeMetricFamily("orchestrations_active", text, value=self._open)]


def exposition(families: Iterable[Family]) -> bytes:
    """Return metrics as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families))
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def _families(samples: Samples, host_id: str) -> list[Family]:
    return [_family(name, samples.get(name, []), host_id) for name in CATALOGUE]


def _family(name: str, samples: list[tuple[tuple[str, ...], Sample]], host_id: str) -> Family:
    metric = CATALOGUE[name]
    labels = (*metric.labels, "host_id")
    if metric.bounds:
        histogram = HistogramMetricFamily(name, metric.help, labels=labels)
        for values, sample in samples:
            counts = zip(
                [*(f"{bound:g}" for bound in metric.bounds), "+Inf"],
                accumulate(sample.buckets),
                strict=True,
            )
            histogram.add_metric((*values, host_id), list(counts), sample.value)
        return histogram
    kind = GaugeMetricFamily if metric.is_gauge else CounterMetricFamily
    family = kind(name, metric.help, labels=labels)
    for values, sample in samples or ([] if metric.labels else [((), Sample())]):
        family.add_metric((*values, host_id), sample.value)
    return family
