"""How deep JSON text is nested, without decoding it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from shardrt.core.json_text import is_deeper

VALUES = st.recursive(
    st.none() | st.text(alphabet='[]{}"\\a', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 0


@given(VALUES)
def test_the_depth_is_that_of_the_decoded_value(value: object) -> None:
    text = json.dumps(value).encode()
    depth = depth_of(value)
    assert not is_deeper(text, depth)
    assert depth == 0 or is_deeper(text, depth - 1)


@pytest.mark.parametrize("text", [b'"' + b"[" * 50 + b'"', b'["' + b'\\"[' * 50 + b'"]'])
def test_brackets_in_texts_do_not_count(text: bytes) -> None:
    assert not is_deeper(text, 1)
