"""Values as JSON and back, by annotation.

A payload is `msgspec.Raw`: JSON text, coded once where it is made and decoded once where it
is used. The annotation decides what comes back; without one it is plain JSON (`Any`). What
cannot be told truthfully in JSON is refused: NaN and infinities, unpaired surrogates, types
without a JSON form that nobody has taught (`custom`). Every error is `InputInvalid` and says
where in the value and why.

Enormous integers survive. Pydantic models are recognised by their methods, so that pydantic
is no dependency. Unions that the decoder cannot tell apart by JSON type alone are `shapes`.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw

from shardrt.core.history import NULL
from shardrt.errors import ConfigInvalid, InputInvalid
from shardrt.orchestration import shapes
from shardrt.orchestration.custom import codec_of

T = TypeVar("T")

# A float whose exponent is all ones, as MessagePack writes it. May also match inside a text
# or bytes; it only decides whether a value is looked at more closely.
_NON_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")


def _encode_custom(value: object) -> object:
    custom = codec_of(type(value))
    if custom is not None:
        return custom.encode(value)
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise NotImplementedError(f"objects of type {type(value).__qualname__} have no JSON form")
    return dump(mode="json")


_encode_json = msgspec.json.Encoder(enc_hook=_encode_custom).encode
_encode_binary = msgspec.msgpack.Encoder(enc_hook=_encode_custom).encode
_decode_json = msgspec.json.Decoder().decode


def encode(value: object, what: str = "value", name: str | None = None) -> Raw:
    """Return `value` as JSON; `what` and `name` say in errors what it is.

    Raises:
        InputInvalid: the value has no JSON form.
    """
    if value is None:
        return NULL
    if type(value) is Raw:
        return value
    try:
        data = _encode_json(value)
    except Exception as error:
        raise _not_encodable(value, _title(what, name), error) from error
    # The encoder writes NaN and infinities as null. NB: `in` first tries the text as a number, and
    # the error that it makes up for that costs more than the encoding.
    if data.find(b"null") >= 0 and type(value) is not str:
        _refuse_non_finite(value, _title(what, name))
    return Raw(data)


class Codec(Generic[T]):
    """Decodes payloads of one annotation. Get one from `codec_for`."""

    __slots__ = ("annotation", "decode_json")

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        if annotation is Any or annotation is object:
            self.decode_json = _decode_json
        else:
            try:
                self.decode_json = shapes.decoder(annotation)
            except TypeError as error:
                raise ConfigInvalid(f"{_name(annotation)} cannot be a payload: {error}") from error

    def decode(self, payload: Raw, what: str = "value") -> T:
        """Return the value in `payload`; `what` names it in errors.

        Raises:
            InputInvalid: it is no JSON, or does not fit the annotation.
        """
        try:
            value: T = self.decode_json(payload)
        except Exception as error:
            raise self.invalid(what, error) from error
        return value

    def invalid(self, what: str, error: Exception) -> InputInvalid:
        """Return what to raise when `decode_json` raised `error`."""
        if isinstance(error, (msgspec.MsgspecError, shapes.Mismatch, RecursionError)):
            return InputInvalid(f"{what}: {error}")
        reason = f"{type(error).__name__}: {error}"
        return InputInvalid(f"{what}: not a {_name(self.annotation)}: {reason}")


@lru_cache(maxsize=4096)
def _cached_codec(annotation: Any) -> Codec[Any]:
    return Codec(annotation)


def codec_for(annotation: Any) -> Codec[Any]:
    """Return the codec of an annotation.

    Raises:
        ConfigInvalid: values of that type cannot be payloads.
    """
    try:
        return _cached_codec(annotation)
    except TypeError:  # not hashable, such as Annotated[int, {}]
        return Codec(annotation)


ANY: Codec[Any] = codec_for(Any)
"""Plain JSON."""


def _title(what: str, name: str | None) -> str:
    return what if name is None else f"{what} {name!r}"


def _name(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _not_encodable(value: object, what: str, error: Exception) -> InputInvalid:
    if isinstance(error, RecursionError):
        return InputInvalid(f"{what}: nested too deeply, or contains itself")
    path, culprit = "$", value
    found: tuple[str, object] | None = (path, value)
    while found is not None:
        path, culprit = found
        found = _culprit_in(culprit, path)
    text = str(error)
    if isinstance(error, UnicodeEncodeError):
        text = "text with unpaired surrogates has no JSON form"
    return InputInvalid(f"{what}: {text} - at `{path}`")


def _culprit_in(value: object, path: str) -> tuple[str, object] | None:
    for step, part in _parts(value):
        try:
            _encode_json(part)
        except Exception:  # noqa: BLE001
            return path + step, part
    return None


def _parts(value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [(f".{key}", part) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [("[...]", part) for part in value]
    names = shapes.field_names(type(value))
    return [(f".{name}", getattr(value, name, None)) for name in names]


def _refuse_non_finite(value: object, what: str) -> None:
    try:
        suspicious = _NON_FINITE.search(_encode_binary(value)) is not None
    except Exception:  # noqa: BLE001
        suspicious = True
    if suspicious:
        _look_for_non_finite(value, what, "$")


def _look_for_non_finite(value: object, what: str, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputInvalid(f"{what}: {value} has no JSON form - at `{path}`")
    for step, part in _parts(value):
        _look_for_non_finite(part, what, path + step)
