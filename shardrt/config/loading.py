"""From file, environment and arguments to settings, with every problem at once."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shardrt.config.settings import Settings, key_types, reason, section_types
from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

ENV_PREFIX = "SHARDRT_"
ENV_ALIASES = {
    "SHARDRT_APP": "host.app",
    "SHARDRT_CA_FILE": "host.tls_ca",
    "SHARDRT_GATEWAYS": "host.gateways",
    "SHARDRT_HOST": "host.bind",
    "SHARDRT_HOST_ID": "host.host_id",
    "SHARDRT_PARTITIONS": "hub.partitions",
    "SHARDRT_PORT": "host.port",
    "SHARDRT_SHARDS": "host.shards",
    "SHARDRT_STORE": "store.url",
    "SHARDRT_TOKEN_FILE": "host.token_file",
}


class Loaded(NamedTuple):
    """Settings, and where they are from."""

    settings: Settings
    sources: dict[str, str]
    """`section.key` → file, variable or "arguments"; what is missing has its default."""


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Return the settings that file, environment and overrides add up to.

    Args:
        path: a TOML file.
        environ: usually `os.environ`; variables that name no section are not ours.
        overrides: values by `section.key`; None means: not given.

    Raises:
        ConfigInvalid: with every problem in all of them.
    """
    return load_traced(path, environ=environ, overrides=overrides).settings


def load_traced(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Loaded:
    """Do the same, and tell where each value came from."""
    reading = _Reading()
    if path is not None:
        reading.add_file(Path(path))
    reading.add_environment(environ or {})
    reading.add_overrides(overrides or {})
    return Loaded(reading.settings(), reading.sources)


class _Reading:
    """Values and problems gathered so far; a later source wins."""

    def __init__(self) -> None:
        self._values: dict[str, object] = {}
        self.sources: dict[str, str] = {}
        self._problems: list[str] = []

    def add_file(self, path: Path) -> None:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else None
            self._problems.append(f"{path}: {what or reason(error)}")
            return
        for section, table in document.items():
            if not isinstance(table, dict):
                self._problems.append(f"{section}: not a table (from {path})")
                continue
            if not table and section not in section_types():
                self._problems.append(unknown(section, section_types(), str(path)))
            for key, value in table.items():
                self._add(f"{section}.{key}", value, str(path))

    def add_environment(self, environ: Mapping[str, str]) -> None:
        # Long names after short ones: the more specific wins.
        for variable in sorted(environ, key=lambda name: (name not in ENV_ALIASES, name)):
            key = environment_key(variable)
            if key is not None:
                self._add(key, environ[variable], variable, text=True)

    def add_overrides(self, overrides: Mapping[str, object]) -> None:
        for key, value in overrides.items():
            if value is not None:
                self._add(key, value, "arguments")

    def _add(self, key: str, value: object, source: str, *, text: bool = False) -> None:
        kind = key_types().get(key)
        if kind is None:
            self._problems.append(unknown(key, key_types(), source))
            return
        try:
            self._values[key] = msgspec.convert(value, kind, strict=not text)
        except msgspec.ValidationError as error:
            self._problems.append(f"{key}: {reason(error)} (from {source})")
        else:
            self.sources[key] = source

    def settings(self) -> Settings:
        sections = {
            section: kind(
                **{
                    entry.name: self._values[f"{section}.{entry.name}"]
                    for entry in fields(kind)
                    if f"{section}.{entry.name}" in self._values
                }
            )
            for section, kind in section_types().items()
        }
        try:
            settings = Settings(**sections)
        except ConfigInvalid as error:
            raise ConfigInvalid(self._problems + error.problems) from None
        if self._problems:
            raise ConfigInvalid(self._problems)
        return settings


def environment_key(variable: str) -> str | None:
    """Return the setting that a variable names; None if it is none of ours."""
    if variable in ENV_ALIASES:
        return ENV_ALIASES[variable]
    section, _, key = variable.removeprefix(ENV_PREFIX).lower().partition("_")
    if variable.startswith(ENV_PREFIX) and section in section_types() and key:
        return f"{section}.{key}"
    return None


def unknown(key: str, known: Mapping[str, object], source: str) -> str:
    nearest = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{key}: unknown setting{hint} (from {source})"
