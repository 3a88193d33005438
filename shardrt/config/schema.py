"""The settings as JSON Schema, for editors: types and bounds, defaults, and what each one trades.

What a setting means is written below it in the source (`settings`), so it is read from there.
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Any

import msgspec

from shardrt.config import settings as source
from shardrt.config.settings import Settings, section_types


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a settings file (TOML has the same shape)."""
    described = msgspec.json.schema(Settings)
    definitions = described["$defs"]
    documents = _documents()
    for section in section_types().values():
        definition = definitions[section.__name__]
        definition["additionalProperties"] = False
        definition["description"] = inspect.cleandoc(definition["description"])
        for name, of_key in definition["properties"].items():
            of_key["description"] = documents[section.__name__][name]
    # Depends on the machine that asks.
    definitions["HostSettings"]["properties"]["shards"].pop("default", None)
    settings = definitions.pop("Settings")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **settings,
        "title": "shardrt settings",
        "description": "The settings of one host.",
        "additionalProperties": False,
        "$defs": definitions,
    }


def _documents() -> dict[str, dict[str, str]]:
    """Return class → setting → what is written below it."""
    documents: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(source)).body:
        if isinstance(node, ast.ClassDef):
            documents[node.name] = dict(_documents_of(node))
    return documents


def _documents_of(node: ast.ClassDef) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for declared, following in pairwise(node.body):
        match declared, following:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                found.append((name, " ".join(text.split())))
            case _:
                pass
    return found
