"""What is allowed but seldom meant: warnings about settings, with what to do instead.

Errors are refused where settings are made (`settings.rule_problems`); nothing here stops a host.
The defaults have no warnings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shardrt.config.settings import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shardrt.config.settings import Settings

LEASE_TTL_S_MIN = 2.0
"""Less than this and a busy database looks like a dead host."""


def warnings(settings: Settings, sources: Mapping[str, str]) -> list[str]:
    """Return what deserves a second look, as `section.key: what`.

    Args:
        settings: valid ones.
        sources: where each value came from; see `loading.load_traced`.
    """
    return [*_about_safety(settings, sources), *_about_rhythms(settings), *_about_size(settings)]


def _about_safety(settings: Settings, sources: Mapping[str, str]) -> Iterator[str]:
    host, store = settings.host, settings.store
    if store.url.startswith("memory:"):
        yield "store.url: memory:// forgets everything at exit; use sqlite:/// or postgresql://"
    if store.unsafe:
        yield "store.unsafe: acknowledged work can be lost when the database server crashes"
    if host.open_access and host.bind not in LOOPBACK and not (host.token or host.token_file):
        yield "host.open_access: whoever reaches this address can start and purge anything"
    for key in ("host.token", "store.url"):
        if _is_file(sources.get(key, "")) and _holds_secret(key, settings):
            yield f"{key}: a secret in a file that others may read; put it into the environment"


def _is_file(source: str) -> bool:
    return bool(source) and source != "arguments" and not source.startswith("SHARDRT_")


def _holds_secret(key: str, settings: Settings) -> bool:
    return bool(
        settings.host.token if key == "host.token" else urlsplit(settings.store.url).password
    )


def _about_rhythms(settings: Settings) -> Iterator[str]:
    host, shard = settings.host, settings.shard
    if host.lease_ttl_s < LEASE_TTL_S_MIN:
        yield (
            f"host.lease_ttl_s: {host.lease_ttl_s:g} s is less than {LEASE_TTL_S_MIN:g} s: a slow "
            "moment of the database costs this host its partitions"
        )
    if shard.checkpoint_interval_s > 60:
        yield "shard.checkpoint_interval_s: lists lag by it, and so much is replayed after a crash"
    if 0 < settings.retention.completed_s < 60:
        yield "retention.completed_s: results are gone before a slow client can ask for them"


def _about_size(settings: Settings) -> Iterator[str]:
    hub, host, shard = settings.hub, settings.host, settings.shard
    if hub.partitions < host.shards:
        yield (
            f"hub.partitions: {hub.partitions} partitions leave some of {host.shards} shards "
            "without work (a hub that exists keeps its number)"
        )
    if shard.activity_threads_max > shard.activity_concurrency_max:
        yield "shard.activity_threads_max: more than activity_concurrency_max are never used"
