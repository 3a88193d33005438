"""Answers, by what was asked."""

from __future__ import annotations

from msgspec import Raw

from shardrt.client.results import decode_result
from shardrt.core import requests as r


def test_results_are_decoded_by_request() -> None:
    assert decode_result(r.Start("hello"), Raw(b'["a","e"]')) == r.Started("a", "e")
    assert decode_result(r.Get(), Raw(b"null")) is None
    assert decode_result(r.Purge(), Raw(b"[3]")) == r.Purged(3)
    assert decode_result(r.GetHistory(), Raw(b"null")) is None
    assert decode_result(r.Export(), Raw(b"null")) is None
    assert decode_result(r.GetHistory(), Raw(b"[]")) == Raw(b"[]")
    assert decode_result(r.Terminate(), Raw(b"[]")) == r.Done()
