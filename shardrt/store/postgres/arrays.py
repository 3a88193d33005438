"""PostgreSQL arrays in binary form.

Building them here costs a fraction of what psycopg's general list adaptation does, which
looks up a dumper per element.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from psycopg.adapt import Dumper
from psycopg.pq import Format

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg.abc import AdaptContext

_HEADER = Struct("!iiIii").pack  # dimensions, has nulls, element type, length, lower bound
_LENGTH = Struct("!i").pack
_INT4 = Struct("!ii").pack
_INT8 = Struct("!iq").pack
_NULL = _LENGTH(-1)
_TRUE = _LENGTH(1) + b"\1"
_FALSE = _LENGTH(1) + b"\0"

_OID_BOOL, _OID_BYTEA, _OID_INT8, _OID_INT4, _OID_TEXT = 16, 17, 20, 23, 25


class BoolArray(bytes):
    """An encoded ``boolean[]``."""


class ByteaArray(bytes):
    """An encoded ``bytea[]``."""


class Int4Array(bytes):
    """An encoded ``integer[]``."""


class Int8Array(bytes):
    """An encoded ``bigint[]``."""


class TextArray(bytes):
    """An encoded ``text[]``."""


def bool_array(values: Sequence[bool]) -> BoolArray:
    return BoolArray(_array(_OID_BOOL, len(values), [_TRUE if v else _FALSE for v in values]))


def int4_array(values: Sequence[int]) -> Int4Array:
    return Int4Array(_array(_OID_INT4, len(values), [_INT4(4, v) for v in values]))


def int8_array(values: Sequence[int | None]) -> Int8Array:
    elements = [_NULL if v is None else _INT8(8, v) for v in values]
    return Int8Array(_array(_OID_INT8, len(values), elements))


def bytea_array(values: Sequence[bytes]) -> ByteaArray:
    elements = [part for v in values for part in (_LENGTH(len(v)), v)]
    return ByteaArray(_array(_OID_BYTEA, len(values), elements))


def text_array(values: Iterable[str | None]) -> TextArray:
    encoded = [None if v is None else v.encode() for v in values]
    elements = [_NULL if v is None else _LENGTH(len(v)) + v for v in encoded]
    return TextArray(_array(_OID_TEXT, len(elements), elements))


def _array(oid: int, length: int, elements: list[bytes]) -> bytes:
    # The flag only says that there may be nulls; claiming so always is allowed.
    return b"".join([_HEADER(1, 1, oid, length, 1), *elements])


class _Encoded(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


class _EncodedBool(_Encoded):
    oid = 1000


class _EncodedBytea(_Encoded):
    oid = 1001


class _EncodedInt4(_Encoded):
    oid = 1007


class _EncodedText(_Encoded):
    oid = 1009


class _EncodedInt8(_Encoded):
    oid = 1016


def register_arrays(context: AdaptContext) -> None:
    """Let a connection take encoded arrays as parameters."""
    context.adapters.register_dumper(BoolArray, _EncodedBool)
    context.adapters.register_dumper(ByteaArray, _EncodedBytea)
    context.adapters.register_dumper(Int4Array, _EncodedInt4)
    context.adapters.register_dumper(Int8Array, _EncodedInt8)
    context.adapters.register_dumper(TextArray, _EncodedText)
