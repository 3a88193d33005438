"""Store URLs of PostgreSQL: our parameters, libpq's, and what must never be shown."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardrt.errors import ConfigInvalid

SCHEMA_DEFAULT = "shardrt"

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_SECRET_KEYS = {"password", "sslpassword"}
_MASK = "***"

# A dead peer is noticed within about ten seconds instead of libpq's hours.
_DEFAULTS = {
    "application_name": "shardrt",
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


class PostgresUrl(NamedTuple):
    """A store URL taken apart."""

    conninfo: str
    """What libpq connects with. Holds the password: never show or log it."""
    conninfos: tuple[str, ...]
    """The same for each server that it names, in that order."""
    schema: str
    masked: str
    secrets: tuple[str, ...]

    def redact(self, text: str) -> str:
        """Return the text without the secrets, should it contain them."""
        for secret in self.secrets:
            found = re.escape(secret)
            # Within other words a short one is chance, and hiding it makes messages unreadable.
            if secret.isalnum() and len(secret) < 4:
                found = rf"\b{found}\b"
            text = re.sub(found, _MASK, text)
        return text


def parse_url(url: str) -> PostgresUrl:
    """Take a store URL apart. Raises `ConfigInvalid`, which shows nothing of the URL."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        schema = dict(query).get("schema", SCHEMA_DEFAULT)
        ours = [(key, value) for key, value in query if key != "schema"]
        bare = _join(parts, ours)
        given = conninfo_to_dict(bare)
        _check_separators(parts, str(given.get("port") or ""))
    except (ValueError, ProgrammingError):
        # The text of these may show the password, and so would the chained exception.
        raise ConfigInvalid(
            "store.url: not a valid PostgreSQL URL; in user and password, characters like @ / # ? "
            "must be percent-encoded"
        ) from None
    if not _IDENTIFIER.fullmatch(schema):
        raise ConfigInvalid(f"store.url: schema {schema!r} is not a plain identifier")
    secrets = {str(given[key]) for key in _SECRET_KEYS if given.get(key)}
    secrets |= {quote(secret, safe="") for secret in secrets} | _password_as_written(parts.netloc)
    defaults = {key: value for key, value in _DEFAULTS.items() if key not in given}
    conninfo = make_conninfo(bare, **defaults)
    return PostgresUrl(
        conninfo=conninfo,
        conninfos=_of_each_server(conninfo),
        schema=schema,
        masked=_masked(url),
        secrets=tuple(sorted(filter(None, secrets), key=len, reverse=True)),
    )


def _of_each_server(conninfo: str) -> tuple[str, ...]:
    given = conninfo_to_dict(conninfo)
    hosts = str(given.get("host") or "").split(",")
    ports = str(given.get("port") or "").split(",")
    if len(hosts) == 1 or given.get("hostaddr") or len(ports) not in {1, len(hosts)}:
        return (conninfo,)
    ports *= len(hosts) // len(ports)
    pairs = zip(hosts, ports, strict=True)
    return tuple(make_conninfo(conninfo, host=host, port=port) for host, port in pairs)


def _password_as_written(netloc: str) -> set[str]:
    user_info, at, _host = netloc.rpartition("@")
    _user, colon, password = user_info.partition(":")
    return {password, unquote(password)} if at and colon else set()


def _masked(url: str) -> str:
    parts = urlsplit(url)
    user_info, at, host = parts.netloc.rpartition("@")
    user, colon, _password = user_info.partition(":")
    netloc = f"{user}{colon}{_MASK if colon else ''}{at}{host}"
    query = [
        (key, _MASK if key in _SECRET_KEYS else value)
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return _join(parts._replace(netloc=netloc), query, safe="*/")


def _join(parts: SplitResult, query: list[tuple[str, str]], safe: str = "") -> str:
    # `geturl` would drop the slashes of an empty host, which libpq insists on.
    text = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return f"{text}?{urlencode(query, safe=safe, quote_via=quote)}" if query else text


def _check_separators(parts: SplitResult, ports: str) -> None:
    """Refuse what a password with an unencoded / or @ looks like: we could not mask it."""
    if "@" in parts.path or not all(port.isdigit() for port in ports.split(",") if port):
        raise ValueError("unencoded characters")
