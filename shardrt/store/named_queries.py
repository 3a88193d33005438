"""SQL lives in .sql files; this reads them.

A file of queries holds named statements, each with a description::

    -- release --
    -- Give a partition up, if the epoch is still ours.
    UPDATE {schema}.partitions SET owner = NULL WHERE …;

The only things ever put into the text are the name of the schema, which the store has checked
and quoted, and for ``{name}`` the statement of that name. Everything else is a parameter.
"""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- (\w+) --$", re.MULTILINE)
_PLACE = re.compile(r"\{(\w+)\}")


def load_queries(package: str, schema: str = "", file: str = "queries.sql") -> dict[str, str]:
    """Return the statements of a file by name, comments and final semicolon removed."""
    text = files(package).joinpath(file).read_text(encoding="utf-8")
    _preface, *parts = _NAME.split(text)
    queries = {
        name: _bare(body).replace("{schema}", schema)
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
    return {
        name: _PLACE.sub(lambda place: queries[place[1]], query) for name, query in queries.items()
    }


def load_migrations(package: str, schema: str = "") -> dict[int, str]:
    """Return the scripts ``migrations/NNNN_name.sql`` by number, in order."""
    scripts = {
        int(script.name[:4]): script.read_text(encoding="utf-8").replace("{schema}", schema)
        for script in files(package).joinpath("migrations").iterdir()
        if script.name.endswith(".sql")
    }
    return dict(sorted(scripts.items()))


def _bare(body: str) -> str:
    lines = [line for line in body.splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines).strip().removesuffix(";")
