"""Decoders by annotation, for more annotations than msgspec takes.

msgspec decodes straight from JSON text whatever it can tell apart by JSON type. What it
refuses (two dataclasses in a union, a pydantic model beside anything else) is decoded to
plain JSON first and then shaped here, member by member: the first member that knows every
key wins, then the first one that fits at all.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias, Union

import msgspec

from shardrt.orchestration.custom import codec_of

Decode: TypeAlias = Callable[[Any], Any]
"""From JSON text to a value."""


class Mismatch(ValueError):
    """A value does not fit; the text says where and why."""


def decoder(annotation: Any) -> Decode:
    """Return a decoder of JSON text for an annotation.

    Raises:
        TypeError: no value of that type can be told in JSON.
    """
    try:
        return msgspec.json.Decoder(annotation, dec_hook=_decode_custom).decode
    except TypeError as error:
        if not _has_union(annotation):
            raise
        for member in _leaves(annotation, frozenset()):
            _check_leaf(member, error)
    plain = msgspec.json.Decoder().decode

    def decode(payload: Any) -> Any:
        return shape(plain(payload), annotation, "$")

    return decode


def _decode_custom(annotation: type, value: Any) -> Any:
    custom = codec_of(annotation)
    if custom is not None:
        return custom.decode(value)
    validate = getattr(annotation, "model_validate", None)
    if validate is None:
        raise NotImplementedError(f"type {annotation.__qualname__} has no JSON form")
    return validate(value)


def _check_leaf(member: Any, error: TypeError) -> None:
    try:
        msgspec.json.Decoder(member, dec_hook=_decode_custom)
    except TypeError:
        raise error from None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in {Union, types.UnionType}


@lru_cache(maxsize=1024)
def fields_of(annotation: Any) -> dict[str, Any] | None:
    """Return the annotated fields of a dataclass, attrs class, TypedDict or NamedTuple."""
    origin = typing.get_origin(annotation) or annotation
    if not isinstance(origin, type) or hasattr(origin, "model_validate"):
        return None
    if not (field_names(origin) or typing.is_typeddict(origin)):
        return None
    hints = typing.get_type_hints(origin)
    arguments = dict(
        zip(getattr(origin, "__parameters__", ()), typing.get_args(annotation), strict=False)
    )
    return {name: arguments.get(hint, hint) for name, hint in hints.items()}


def field_names(of: type) -> tuple[str, ...]:
    """Return the names of the fields of a class with declared fields, or nothing."""
    if dataclasses.is_dataclass(of):
        return tuple(field.name for field in dataclasses.fields(of))
    for attribute in ("__attrs_attrs__", "model_fields", "__struct_fields__", "_fields"):
        declared = getattr(of, attribute, None)
        if declared is not None:
            return tuple(getattr(field, "name", field) for field in declared)
    return ()


def _inner(annotation: Any) -> list[Any]:
    fields = fields_of(annotation)
    if fields is not None:
        return list(fields.values())
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        arguments = arguments[:1]
    return [argument for argument in arguments if argument is not Ellipsis]


@lru_cache(maxsize=1024)
def _has_union(annotation: Any) -> bool:
    return _is_union_within(annotation, frozenset())


def _is_union_within(annotation: Any, seen: frozenset[Any]) -> bool:
    if _is_union(annotation):
        return True
    if annotation in seen:
        return False
    return any(_is_union_within(inner, seen | {annotation}) for inner in _inner(annotation))


def _leaves(annotation: Any, seen: frozenset[Any]) -> Iterator[Any]:
    if annotation in seen or typing.get_origin(annotation) is typing.Literal:
        return
    inner = _inner(annotation)
    if not inner:
        yield annotation
    for part in inner:
        yield from _leaves(part, seen | {annotation})


# -- plain JSON to values -----------------------------------------------------------------


def shape(value: Any, annotation: Any, path: str) -> Any:
    """Return plain JSON as a value of `annotation`; raise `Mismatch` if it does not fit."""
    if _is_union(annotation):
        return _shape_union(value, typing.get_args(annotation), path)
    if not _has_union(annotation):
        return _convert(value, annotation, path)
    fields = fields_of(annotation)
    if fields is not None:
        return _shape_fields(value, annotation, fields, path)
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return shape(value, arguments[0], path)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _shape_dict(value, arguments, path)
    return _shape_items(value, annotation, arguments, path)


def _convert(value: Any, annotation: Any, path: str, *, forbid_unknown: bool = False) -> Any:
    if forbid_unknown and isinstance(value, dict):
        known = fields_of(annotation)
        if known is not None and not known.keys() >= value.keys():
            raise Mismatch(f"Unknown fields - at `{path}`")
    try:
        # Through the JSON decoder, because it is the one that reads Decimal, bytes and so on
        # from text and turns text keys back into numbers.
        return _decoder_of(annotation)(msgspec.json.encode(value))
    except Exception as error:
        reason, _, where = str(error).partition(" - at `$")
        raise Mismatch(f"{reason} - at `{path}{where.rstrip('`')}`") from error


@lru_cache(maxsize=1024)
def _decoder_of(annotation: Any) -> Decode:
    return msgspec.json.Decoder(annotation, dec_hook=_decode_custom).decode


def _shape_union(value: Any, members: tuple[Any, ...], path: str) -> Any:
    reasons = []
    for forbid_unknown in (True, False):
        for member in members:
            try:
                if _has_union(member):
                    return shape(value, member, path)
                return _convert(value, member, path, forbid_unknown=forbid_unknown)
            except Mismatch as error:
                reasons.append(str(error))
    names = " | ".join(getattr(member, "__name__", str(member)) for member in members)
    raise Mismatch(f"Expected `{names}`: {'; '.join(reasons[len(members) :])}")


def _shape_fields(value: Any, annotation: Any, fields: dict[str, Any], path: str) -> Any:
    if not isinstance(value, dict):
        raise Mismatch(f"Expected `object`, got `{type(value).__name__}` - at `{path}`")
    given = {
        name: shape(value[name], hint, f"{path}.{name}")
        for name, hint in fields.items()
        if name in value
    }
    make = typing.get_origin(annotation) or annotation
    for name in _required_keys(make):
        if name not in given:
            raise Mismatch(f"Object missing required field `{name}` - at `{path}`")
    try:
        return make(**given)
    except (TypeError, ValueError) as error:
        raise Mismatch(f"{error} - at `{path}`") from error


@lru_cache(maxsize=1024)
def _required_keys(of: Any) -> list[str]:
    if not typing.is_typeddict(of):
        return []
    # Annotations that are strings hide NotRequired from __required_keys__.
    hints = typing.get_type_hints(of, include_extras=True)
    required: frozenset[str] = of.__required_keys__
    return [
        name
        for name, hint in hints.items()
        if name in required and typing.get_origin(hint) is not typing.NotRequired
    ]


def _shape_dict(value: Any, arguments: tuple[Any, ...], path: str) -> Any:
    if not isinstance(value, dict):
        raise Mismatch(f"Expected `object`, got `{type(value).__name__}` - at `{path}`")
    keys = _convert(dict.fromkeys(value), dict[arguments[0], None], path)  # type: ignore[valid-type]
    parts = [shape(part, arguments[1], f"{path}.{key}") for key, part in value.items()]
    return dict(zip(keys, parts, strict=True))


def _shape_items(value: Any, annotation: Any, arguments: tuple[Any, ...], path: str) -> Any:
    if not isinstance(value, list):
        raise Mismatch(f"Expected `array`, got `{type(value).__name__}` - at `{path}`")
    origin = typing.get_origin(annotation)
    make = origin if origin in {tuple, set, frozenset} else list
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        if len(arguments) != len(value):
            reason = f"Expected `array` of length {len(arguments)}, got {len(value)}"
            raise Mismatch(f"{reason} - at `{path}`")
        hints = list(arguments)
    else:
        hints = [arguments[0]] * len(value)
    return make(
        shape(part, hint, f"{path}[{index}]")
        for index, (part, hint) in enumerate(zip(value, hints, strict=True))
    )
