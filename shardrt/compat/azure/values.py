"""Values as Azure's Python worker codes them: plain JSON, and envelopes around custom classes.

Azure codes inputs of orchestrators and entities twice, and decodes them twice. A text that comes
in is therefore taken as JSON where it is JSON; so that a text stays one, it is coded twice by
`to_input`. Everything else is coded once, and looks in a history as anybody would expect.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from azure.durable_functions.models.utils.df_serialization import df_dumps, df_loads
from msgspec import Raw

from shardrt.errors import InputInvalid


def to_payload(value: object, what: str) -> Raw:
    """Return a value as JSON.

    Raises:
        InputInvalid: it has no JSON form, not even by a `to_json` of its class.
    """
    try:
        payload: Raw = msgspec.json.decode(df_dumps(value), type=Raw)  # finds NaN out
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InputInvalid(f"{what}: {error}") from error
    return payload


def from_payload(payload: Raw, expected_type: type | None = None) -> Any:
    """Return what a payload stands for; a custom class by its `from_json`."""
    return df_loads(bytes(payload).decode(), expected_type=expected_type)


def to_input(value: object, what: str) -> Raw:
    """Return the input of an orchestrator or an entity; see the module."""
    payload = to_payload(value, what)
    return to_payload(bytes(payload).decode(), what) if isinstance(value, str) else payload


def from_input(payload: Raw, expected_type: type | None = None) -> Any:
    """Return the input of an orchestrator or an entity; see the module."""
    if not bytes(payload).startswith(b'"'):
        return from_payload(payload, expected_type)
    text: str = msgspec.json.decode(payload)
    try:
        return df_loads(text, expected_type=expected_type)
    except json.JSONDecodeError:
        return text  # of somebody who codes once, such as curl
