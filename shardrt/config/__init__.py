"""The settings of one host: read once, checked as a whole, then only passed on.

    defaults  <  TOML file  <  environment  <  overrides (command line, `Runtime(...)`)

A setting is named `section.key`: in TOML it is `key` in table `[section]`, in the
environment `SHARDRT_SECTION_KEY`; the commonest have short names too (`ENV_ALIASES`).
Whatever is wrong is reported at once, each problem with its key and where it came from.
Unknown keys are refused, so that a typing mistake cannot silently mean the default.

Nothing here opens a store or a socket, and nothing below the command line reads the
environment: `load` is given it.
"""

from shardrt.config.loading import ENV_ALIASES, load
from shardrt.config.settings import (
    HostSettings,
    HubSettings,
    LimitSettings,
    LogSettings,
    RetentionSettings,
    Settings,
    ShardSettings,
    StoreSettings,
)
from shardrt.config.tokens import Tokens
from shardrt.config.urls import mask_dsn

__all__ = [
    "ENV_ALIASES",
    "HostSettings",
    "HubSettings",
    "LimitSettings",
    "LogSettings",
    "RetentionSettings",
    "Settings",
    "ShardSettings",
    "StoreSettings",
    "Tokens",
    "load",
    "mask_dsn",
]
