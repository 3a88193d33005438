"""What a user can get wrong: one clear line, the right exit code, and nothing has changed."""

from __future__ import annotations

import json
import socket
import sqlite3
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest

from shardrt.testing.postgres import PostgresServer, free_port
from tests.serving import Served, cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.proc, pytest.mark.slow]

FAILED, USAGE = 1, 2
PAYLOAD_BYTES_MAX = 2048
UNSAFE = {"SHARDRT_STORE_UNSAFE": "true"}
"""The tests' server runs without fsync."""


def assert_one_line(stderr: str, *words: str) -> None:
    """Check that a message is one line that contains all of `words`."""
    (line,) = stderr.strip().splitlines()
    for word in words:
        assert word.lower() in line.lower()


# -- a host that does not start ----------------------------------------------------------------


def refusal(*options: str, store: str, **variables: str) -> tuple[int, str]:
    """Return exit code and stderr of a `serve` that cannot work."""
    done = cli("serve", "--port", "0", *options, SHARDRT_STORE=store, **variables)
    assert not done.stdout
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("no_such_module:app", ["no_such_module"]),
        ("shardrt.samples:nothing", ["nothing"]),
        ("shardrt.samples", ["module:attribute"]),
        ("json:loads", ["App"]),
    ],
)
def test_an_app_that_cannot_be_imported(app: str, words: list[str], tmp_path: Path) -> None:
    code, stderr = refusal("--app", app, store=f"sqlite:///{tmp_path / 'hub.db'}")
    assert code == USAGE
    assert_one_line(stderr, *words)


@pytest.mark.parametrize(
    "store", ["mysql://localhost/db", "nonsense", "postgresql://me@localhost:port/db"]
)
def test_a_store_url_that_is_none(store: str) -> None:
    code, stderr = refusal(store=store)
    assert code == USAGE
    assert_one_line(stderr, "store")


def test_a_postgres_that_cannot_be_reached() -> None:
    code, stderr = refusal(store=f"postgresql://me:secret@127.0.0.1:{free_port()}/db")
    assert code == FAILED
    assert_one_line(stderr, "127.0.0.1")
    assert "secret" not in stderr


@pytest.mark.pg
def test_a_postgres_that_could_lose_work() -> None:
    with PostgresServer(fsync=False) as server:
        code, stderr = refusal(store=server.dsn)
    assert code == FAILED
    assert_one_line(stderr, "fsync")


def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        code, stderr = refusal("--port", port, store=f"sqlite:///{tmp_path / 'hub.db'}")
    assert code == FAILED
    assert_one_line(stderr, port)


def test_a_hub_that_is_not_for_us(host: Served, store_url: str) -> None:
    host.start()
    assert host.interrupt() == 0

    code, stderr = refusal("--partitions", "16", store=store_url, **UNSAFE)
    assert code == FAILED
    assert_one_line(stderr, "16", "32")

    write_newer_format(store_url)
    code, stderr = refusal(store=store_url, **UNSAFE)
    assert code == FAILED
    assert_one_line(stderr, "999")


def write_newer_format(store_url: str) -> None:
    if store_url.startswith("sqlite"):
        with sqlite3.connect(store_url.removeprefix("sqlite:///")) as connection:
            connection.execute("UPDATE hub SET format = 999")
        connection.close()
        return
    dsn, _, schema = store_url.partition("?schema=")
    with psycopg.connect(dsn, autocommit=True, options=f"-c search_path={schema}") as postgres:
        postgres.execute("UPDATE hub SET format = 999")


# -- a request that makes no sense ---------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("served")
    limits = {"SHARDRT_LIMITS_PAYLOAD_BYTES_MAX": str(PAYLOAD_BYTES_MAX)}
    store_url = f"sqlite:///{directory / 'hub.db'}"
    with Served(store_url, directory, "--shards", "1", variables=limits) as host:
        yield host


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("start", "no-such-name"), FAILED, ["no-such-name"]),
        (("start", "hello", "--input", "{"), USAGE, ["json"]),
        (("start", "hello", "--input", f'"{"x" * PAYLOAD_BYTES_MAX}"'), FAILED, ["2048"]),
        (("start", "orders", "--id", "x" * 2000), FAILED, ["255"]),
        (("get", "nobody"), FAILED, ["nobody"]),
        (("wait", "nobody"), FAILED, ["nobody"]),
        (("raise-event", "nobody", "go"), FAILED, ["nobody"]),
        (("raise-event", "nobody", "go", "--data", "{"), USAGE, ["json"]),
        (("terminate", "nobody"), FAILED, ["nobody"]),
        (("purge", "nobody"), FAILED, ["nobody"]),
        (("list", "--status", "Sleeping"), USAGE, ["Sleeping"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_a_command_that_cannot_be_done(
    served: Served, arguments: tuple[str, ...], code: int, words: list[str]
) -> None:
    done = served.cli(*arguments)
    assert done.returncode == code, done.stderr
    said = done.stderr.strip().splitlines()
    # A wrong use of a command may be preceded by how it is used.
    assert_one_line(said[-1] if code == USAGE else done.stderr, *words)
    assert "Traceback" not in done.stderr


def test_an_id_that_is_taken(served: Served) -> None:
    assert served.cli("start", "hello", "--id", "taken", "--wait").returncode == 0
    before = served.ask("get", "taken")
    done = served.cli("start", "hello", "--id", "taken")
    assert done.returncode == FAILED
    assert_one_line(done.stderr, "taken")
    assert served.ask("get", "taken") == before


def test_a_host_that_is_not_there() -> None:
    port = free_port()
    done = cli("list", SHARDRT_URL=f"http://127.0.0.1:{port}")
    assert done.returncode == FAILED
    assert_one_line(done.stderr, str(port))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("start/no-such-name", b"{}", 404),
        ("start/hello", b"{", 400),
        ("start/hello", b"[1]", 400),
        ("start/hello", b"[" * 5000, 400),
        ("start/hello", b'{"instanceId": 7}', 400),
        ("start/hello", json.dumps({"input": "x" * PAYLOAD_BYTES_MAX}).encode(), 413),
        ("nobody/raiseEvent/go", b"{}", 404),
        ("nobody/terminate", b"{}", 404),
    ],
)
def test_a_request_over_http_that_makes_no_sense(
    served: Served, path: str, body: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    request = Request(f"{served.url}/runtime/orchestrations/{path}", body, headers)
    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=30)
    with refused.value as answer:
        assert answer.code == status
        assert list(json.load(answer)) == ["message"]
