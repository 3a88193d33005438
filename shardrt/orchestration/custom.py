"""Types that users teach the payloads: how their values become JSON, and come back.

Known to the whole process rather than to one app, because clients code payloads too and know
no app. `App.codec` is the way in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from shardrt.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Callable


class CustomCodec(NamedTuple):
    """Both directions."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_codecs: dict[type, CustomCodec] = {}


def register(of: type, codec: CustomCodec) -> None:
    """Teach a type.

    Raises:
        ConfigInvalid: it is no class, has a form already, or was taught in another way.
    """
    if not isinstance(of, type):
        raise ConfigInvalid(f"a codec is for a class, not for {of!r}")
    if not isinstance(msgspec.inspect.type_info(of), msgspec.inspect.CustomType):
        raise ConfigInvalid(f"{of.__qualname__} has a JSON form already")
    if _codecs.setdefault(of, codec) != codec:
        raise ConfigInvalid(f"{of.__qualname__} has another codec already")


def codec_of(of: Any) -> CustomCodec | None:
    """Return the codec of exactly this class: what a subclass adds would be lost."""
    return _codecs.get(of) if isinstance(of, type) else None
